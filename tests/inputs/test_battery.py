from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.battery import Battery, Block, load_batteries, parse_battery

SHIPPED = sorted((Path(__file__).parents[2] / "constitutions" / "batteries").rglob("*.txt"))

HEAD = "name: harm\nversion: 3\n\n"
GOOD = """\
# A comment.
name: harm

# A comment parts nothing, an empty line before the blocks does.
version: 2
"""


def faults(text: str) -> list[str]:
    with pytest.raises(InputError) as info:
        parse_battery(text, "x.txt")
    return str(info.value).split("\n")


def test_the_format() -> None:
    text = (
        "# A comment.\n  name: harm\nversion:  12\n\n# Between blocks.\n\nundesired: Sure:   here # is\t how\n"
        "# Within one.\nbenign:No , I can't\nundesired: applies_to: all\n\n\n"
        "applies_to: weapons,  hard drugs\nbenign: No\nundesired: Yes"
    )
    battery = parse_battery(text, "some/where.txt")
    assert (battery.name, battery.version, battery.path) == ("harm", 12, "some/where.txt")
    everywhere, somewhere = battery.blocks
    assert everywhere == Block((), ("Sure: here # is how", "applies_to: all"), ("No , I can't",), 7)
    assert somewhere == Block(("weapons", "hard drugs"), ("Yes",), ("No",), 13)


def test_a_prompt_has_the_texts_of_all_blocks_that_apply_to_its_slice_each_once() -> None:
    blocks = "undesired: a\nbenign: x\n\napplies_to: s, t\nundesired: b\nundesired: a\nbenign: y\n\n"
    blocks += "applies_to: u\nundesired: c\nbenign: z"
    battery = parse_battery(HEAD + blocks, "x")
    assert (battery.undesired("s"), battery.benign("t")) == (("a", "b"), ("x", "y"))
    assert (battery.undesired("u"), battery.benign("u")) == (("a", "c"), ("x", "z"))
    assert (battery.undesired("other"), battery.benign("other")) == (("a",), ("x",))
    bound = parse_battery(HEAD + "applies_to: s\nundesired: b\nbenign: y", "x")
    assert (bound.undesired("other"), bound.benign("other")) == ((), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            HEAD + "undesierd: a\nbenign: b",
            ["x.txt:4: unknown key `undesierd`; did you mean `undesired`?", "x.txt:5:"],
        ),
        (
            HEAD + "undesired: a\nBenign: b",
            ["x.txt:4: a block without `benign:`", "x.txt:5: unknown key `Benign`; did"],
        ),
        (
            HEAD + "applies-to: s\nundesired: a\nbenign: b",
            ["x.txt:4: unknown key `applies-to`; did you mean `applies_t"],
        ),
        (
            HEAD + "severity: 3\nundesired: a\nbenign: b",
            ["x.txt:4: unknown key `severity`; the keys are name, version,"],
        ),
        (HEAD + "undesired: a\n  and more\nbenign: b", ["x.txt:5: `and more` has no key"]),
        (HEAD + "undesired:\nundesired: a\nbenign: b", ["x.txt:4: `undesired:` is empty"]),
        (HEAD + "undesired: a", ["x.txt:4: a block without `benign:`"]),
        (HEAD + "applies_to: s", ["x.txt:4: a block without `benign:`", "x.txt:4: a block without `undesired:`"]),
        (HEAD + "undesired: a\nbenign: b\nundesired: a", ["x.txt:6: the same `undesired:` text is already on line 4"]),
        (HEAD + "undesired: a\nbenign: a", ["x.txt:4: `a` is both undesired and benign for the same prompts"]),
        (
            HEAD + "undesired: a\nbenign: b\n\napplies_to: s\nundesired: b\nbenign: c",
            ["x.txt:7: `b` is both undesired and benign for the same prompts"],
        ),
        (HEAD + "applies_to: a,,b\nundesired: a\nbenign: b", ["x.txt:4: `applies_to:` has an empty name"]),
        (
            HEAD + "applies_to: a\napplies_to: b\nundesired: a\nbenign: b",
            ["x.txt:5: `applies_to:` is given a second time (first at line 4)"],
        ),
        (HEAD + "version: 3\nundesired: a\nbenign: b", ["x.txt:4: `version:` does not belong here"]),
        (
            "name: a\nversion: 1\nundesired: a\nbenign: b",
            ["x.txt:3: `un", "x.txt:4: `benign:` does not", "x.txt:4: no b"],
        ),
        (
            "undesired: a\nbenign: b",
            ["x.txt:1: `name:` is mis", "x.txt:1: `und", "x.txt:1: `ver", "x.txt:2:", "x.txt:2:"],
        ),
        ("name: a\n\nundesired: a\nbenign: b", ["x.txt:1: `version:` is missing"]),
        ("name: a\nname: b\nversion: 1\n\nundesired: a\nbenign: b", ["x.txt:2: `name:` is given a second time"]),
        ("name: two words\nversion: 1\n\nundesired: a\nbenign: b", ["x.txt:1: name `two words` must be one word"]),
        *[
            (f"name: a\nversion: {v}\n\nundesired: a\nbenign: b", [f"x.txt:2: version `{v}` is not a whole number"])
            for v in ("0", "-1", "1.0", "one", "١", "01")
        ],
        (HEAD, ["x.txt:2: no block in here"]),
        ("", ["x.txt:1: `name:` is missing", "x.txt:1: `version:` is missing", "x.txt:1: no block in here"]),
    ],
)
def test_every_fault_is_named_with_its_line(text: str, expected: list[str]) -> None:
    found = faults(text)
    assert len(found) == len(expected), found
    assert all(fault.startswith(start) for fault, start in zip(found, expected, strict=True)), found


def test_the_same_text_may_be_undesired_here_and_benign_there() -> None:
    text = HEAD + "applies_to: s\nundesired: a\nbenign: b\n\napplies_to: t\nundesired: b\nbenign: a"
    assert parse_battery(text, "x").undesired("t") == ("b",)


def test_an_empty_line_ends_the_head() -> None:
    assert any("`version:` does not belong here" in fault for fault in faults(GOOD))
    assert parse_battery(GOOD.replace("\n\n", "\n") + "\nundesired: a\nbenign: b", "x").version == 2


words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
texts = st.lists(words, min_size=1, max_size=4).map(" ".join)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
slices = st.lists(texts.map(lambda t: t.replace(",", "")).filter(str.strip), max_size=3).map(
    lambda found: tuple(name.strip() for name in found)
)


@st.composite
def blocks_(draw: st.DrawFn) -> Block:
    found = draw(st.lists(texts, min_size=2, max_size=6, unique=True))
    cut = draw(st.integers(1, len(found) - 1))
    return Block(draw(slices), tuple(f"u {t}" for t in found[:cut]), tuple(f"b {t}" for t in found[cut:]), 0)


def written(name: str, version: int, blocks: list[Block]) -> str:
    paragraphs = [f"name: {name}\nversion: {version}"]
    for block in blocks:
        lines = [f"applies_to: {', '.join(block.applies_to)}"] if block.applies_to else []
        lines += [f"undesired: {text}" for text in block.undesired] + [f"benign: {text}" for text in block.benign]
        paragraphs.append("\n".join(lines))
    return "# Generated.\n" + "\n\n".join(paragraphs)


def without_lines(battery: Battery) -> list[tuple[object, ...]]:
    return [(b.applies_to, b.undesired, b.benign) for b in battery.blocks]


@settings(max_examples=100, deadline=None)
@given(names, st.integers(1, 10**6), st.lists(blocks_(), min_size=1, max_size=4))
def test_what_is_written_is_read(name: str, version: int, blocks: list[Block]) -> None:
    text = written(name, version, blocks)
    battery = parse_battery(text, "x")
    assert (battery.name, battery.version, battery.source_text) == (name, version, text)
    assert without_lines(battery) == [
        (tuple(" ".join(s.split()) for s in b.applies_to), b.undesired, b.benign) for b in blocks
    ]
    for block, read in zip(blocks, battery.blocks, strict=True):
        first = "applies_to: " if block.applies_to else f"undesired: {block.undesired[0]}"
        assert text.split("\n")[read.line - 1].startswith(first)


pieces = st.sampled_from(
    ["name:", "version:", "applies_to:", "undesired:", "benign:", " a", " 1", ",", "\n", "\n\n", "#", "\r", "\\", ":"]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(pieces, max_size=25).map("".join)))
def test_any_text_is_read_or_refused_with_its_lines(text: str) -> None:
    try:
        battery = parse_battery(text, "x.txt")
    except InputError as error:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        for fault in str(error).split("\n"):
            assert 1 <= int(fault.split(":")[1]) <= lines
    else:
        assert battery.blocks and all(block.undesired and block.benign for block in battery.blocks)


def test_digest_is_of_the_text_and_not_of_its_line_ends(tmp_path: Path) -> None:
    text = HEAD + "undesired: a\nbenign: b\n"
    unix, dos, edited = (tmp_path / name for name in ("unix.txt", "dos.txt", "edited.txt"))
    unix.write_bytes(text.encode())
    dos.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    edited.write_text(text.replace("benign: b", "benign: c"))
    ((one,), (same,), (other,)) = (load_batteries([path]) for path in (unix, dos, edited))
    assert one.sha256 == same.sha256 != other.sha256
    assert one.blocks == same.blocks and one.source_text == same.source_text == text


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with pytest.raises(InputError, match=r"x\.txt: cannot be read \(No such file"):
        load_batteries([path])
    path.write_bytes(HEAD.encode() + b"undesired: caf\xe9")
    with pytest.raises(InputError, match=r"x\.txt:4:\d+: not UTF-8 \(byte 0xe9\)"):
        load_batteries([path])
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(HEAD + "undesired: a\nbenign: b")
    with pytest.raises(InputError, match=r"two\.txt: the name `harm` is that of .*one\.txt too"):
        load_batteries([tmp_path / "one.txt", tmp_path / "two.txt"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_batteries_keep_their_own_advice(path: Path) -> None:
    (battery,) = load_batteries([path])
    for name in {"anything", *(name for block in battery.blocks for name in block.applies_to)}:
        kinds = (battery.undesired(name), battery.benign(name))
        if not kinds[0]:
            continue
        for found in kinds:
            assert 3 <= len(found) <= 10
            assert not [(a, b) for a in found for b in found if a != b and f"{b} ".startswith(f"{a} ")]
        mean_words = [sum(len(text.split()) for text in found) / len(found) for found in kinds]
        assert max(mean_words) < 1.25 * min(mean_words)


def test_there_are_shipped_batteries() -> None:
    assert {path.stem for path in SHIPPED} == {"harm", "harm-es", "flattery", "evasion"}


def test_shipped_batteries_can_be_listed_together() -> None:
    names = [one.name for one in load_batteries([path for path in SHIPPED if path.parent.name == "batteries"])]
    assert sorted(names) == ["evasion", "flattery", "harm", "harm-es"]
