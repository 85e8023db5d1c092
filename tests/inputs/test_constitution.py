import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.constitution import draw_principles, load_constitution, parse_constitution

SHIPPED = Path(__file__).parents[2] / "constitutions"

GOOD = """\
# A comment.
The answer should not
   be rude.
# in the middle of a paragraph: still one sentence
It should # be kind.

name: no-flattery
weight: 2.5
applies_to: opinions,  feedback
critique: Point out
  praise: the empty kind.
revise:Write it
again.
\t
\\# is text, and so is
\\weight: 3, and
\\\\this, and \\that: all of it
"""


def faults(text: str) -> list[str]:
    with pytest.raises(InputError) as info:
        parse_constitution(text, "x.txt")
    return str(info.value).split("\n")


def test_the_format():
    sentence, pair, escaped = parse_constitution(GOOD, "some/where/good.txt").principles
    assert sentence.text == "The answer should not be rude. It should # be kind."
    assert (sentence.critique, sentence.revise, sentence.weight, sentence.applies_to) == (None, None, 1.0, ())
    assert (pair.id, pair.text, pair.weight, pair.line) == ("no-flattery", None, 2.5, 7)
    assert pair.applies_to == ("opinions", "feedback")
    assert pair.critique == "Point out praise: the empty kind."
    assert pair.revise == "Write it again."
    assert escaped.text == r"# is text, and so is weight: 3, and \this, and \that: all of it"
    assert [p.line for p in (sentence, pair, escaped)] == [2, 7, 15]


@pytest.mark.parametrize(
    "text",
    [
        "Remember: no insults.",
        "remember: no insults.",
        "Above all:\nbe kind, as in:\nexample: hello.",
        "Write {{ nothing }} and {% no code %}.",
        "See http://example.org for more",
        "A principle that names critique: and revise: within a line.",
        r"\frac is no escape",
        "note:not a key",
        "applies to: everyone",
    ],
)
def test_prose_is_not_taken_for_keys(text):
    (principle,) = parse_constitution(text, "x").principles
    assert principle.text == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good.\n\nname: a\nwieght: 2\nText.", ["x.txt:4:1: unknown key `wieght`; did you mean `weight`?"]),
        ("  Critique: a\n\trevision: b", ["x.txt:1:3: unknown key `Critique`", "x.txt:2:2: unknown key `revision`"]),
        ("applies-to: b\nText", ["x.txt:1:1: unknown key `applies-to`; did you mean `applies_to`?"]),
        ("name: a\nseverity: high\nText", ["x.txt:2:1: unknown key `severity`; the keys are name, weight,"]),
        ("Text\nname: b", ["x.txt:2:1: `name:` must be above the principle's text"]),
        ("Text\ncritique: a\nrevise: b", ["x.txt:2:1: `critique:` under a principle", "x.txt:3:1: `revise:`"]),
        ("critique: a\nrevise: b\ncritique: c", ["x.txt:3:1: `critique:` is given a second time (first at line 1)"]),
        ("critique: a\nrevise: b\nweight: 2", ["x.txt:3:1: `weight:` must be above"]),
        ("critique: a", ["x.txt:1:1: `critique:` without `revise:`"]),
        ("name: a\nrevise: a", ["x.txt:2:1: `revise:` without `critique:`"]),
        ("critique:\nrevise: a", ["x.txt:1:1: `critique:` is empty"]),
        ("name: a\nweight: 2", ["x.txt:1:1: a principle without text"]),
        *[
            (f"weight: {w}\nText", [f"x.txt:1:1: weight `{w}` is not a positive number"])
            for w in ("0", "-1", "inf", "nan", "two", "1 2")
        ],
        ("weight:\nText", ["x.txt:1:1: weight `` is not"]),
        ("name: two words\nText", ["x.txt:1:1: name `two words` must be one word"]),
        ("name:\nText", ["x.txt:1:1: name `` must be one word"]),
        ("applies_to: a,,b\nText", ["x.txt:1:1: `applies_to:` has an empty name"]),
        ("applies_to: a,\nb\nText", ["x.txt:1:1: `applies_to:` has an empty name"]),
        ("name: a\nOne.\n\nname: a\nTwo.", ["x.txt:4:1: the name `a` is taken already, at line 1"]),
        ("Same text.\n\n\nSame\ntext.", ["x.txt:4:1: the same principle appears already, at line 1"]),
        ("", ["x.txt:1:1: no principle in here"]),
        ("# one\n\n  # two", ["x.txt:1:1: no principle in here"]),
        ("name: a\nwieght: 1\n\nText\n\nrevise: b", ["x.txt:2:1: unknown key", "x.txt:6:1: `revise:` without"]),
    ],
)
def test_every_fault_is_named_with_line_and_column(text, expected):
    found = faults(text)
    assert len(found) == len(expected)
    assert all(fault.startswith(start) for fault, start in zip(found, expected, strict=True)), found


def test_advice_for_prose_that_looks_like_a_key_works():
    assert faults("Be kind, as in\ncritic: hello")[0].endswith(r"If it is meant as text, write `\critic:`.")
    (principle,) = parse_constitution("Be kind, as in\n\\critic: hello", "x").principles
    assert principle.text == "Be kind, as in critic: hello"


def test_ids_do_not_depend_on_the_other_principles():
    one, two, named = "Be kind.", "Be true.", "name: n\nBe short."
    forward = parse_constitution("\n\n".join([one, two, named]), "x").principles
    backward = parse_constitution("\n\n".join(["# new", named, "Be quick.", two, "weight: 3\n" + one]), "x").principles
    assert [p.id for p in forward] == [backward[3].id, backward[2].id, "n"]
    assert forward[0].id.startswith("be-kind-")
    assert len({p.id for p in backward}) == 4
    # The break between critique and revise counts.
    ids = {
        parse_constitution(t, "x").principles[0].id for t in ("critique: a b\nrevise: c", "critique: a\nrevise: b c")
    }
    assert len(ids) == 2


def test_digest_is_of_the_text_and_not_of_its_line_ends(tmp_path):
    unix, dos = tmp_path / "u.txt", tmp_path / "d.txt"
    unix.write_bytes(GOOD.encode())
    dos.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    a, b = load_constitution(unix), load_constitution(str(dos))
    assert a.sha256 == b.sha256 and a.source_text == b.source_text == GOOD
    assert a.principles == b.principles
    assert (a.name, b.name) == ("u", "d")
    assert parse_constitution(GOOD + "# more", "x").sha256 != a.sha256


def test_unreadable_files(tmp_path):
    path = tmp_path / "x.txt"
    with pytest.raises(InputError, match=r"x\.txt: cannot be read \(No such file"):
        load_constitution(path)
    path.write_bytes(b"Be kind.\n\nBe caf\xe9")
    with pytest.raises(InputError, match=r"x\.txt:3:7: not UTF-8 \(byte 0xe9\)"):
        load_constitution(path)


@given(st.text(st.sampled_from("ab:#\\ \n\t\r{%") | st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text):
    try:
        constitution = parse_constitution(text, "x")
    except InputError as error:
        assert all(line.startswith("x:") for line in str(error).split("\n"))
    else:
        assert constitution.principles
        assert len({p.id for p in constitution.principles}) == len(constitution.principles)
        for p in constitution.principles:
            assert p.text or (p.critique and p.revise)


SLICED = "name: a\nweight: 6\nA\n\nname: b\nweight: 3\nB\n\nname: c\nC\n\nname: d\nweight: 100\napplies_to: tea\nD"


def test_slices():
    constitution = parse_constitution(SLICED, "x")
    assert [p.id for p in constitution.urn("coffee").principles] == ["a", "b", "c"]
    assert [p.id for p in constitution.urn("tea").principles] == ["a", "b", "c", "d"]
    only_tea = parse_constitution("applies_to: tea\nD", "x")
    with pytest.raises(InputError, match="no principle applies to the slice `coffee`"):
        draw_principles(only_tea, 1, np.random.default_rng(0), True, "coffee")


def test_draws_follow_the_weights():
    constitution = parse_constitution(SLICED, "x")
    drawn = draw_principles(constitution, 20_000, np.random.default_rng(0), True, "coffee")
    counts = Counter(p.id for p in drawn)
    for name, share in {"a": 0.6, "b": 0.3, "c": 0.1}.items():
        assert abs(counts[name] / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5


def test_draws_without_replacement():
    constitution = parse_constitution(SLICED, "x")
    rng = np.random.default_rng(0)
    draws = [[p.id for p in draw_principles(constitution, 7, rng, False, "coffee")] for _ in range(4000)]
    for ids in draws:
        assert sorted(ids[:3]) == sorted(ids[3:6]) == ["a", "b", "c"]  # a fresh urn begins after each three
    # P(first a, then b) = 0.6 * 0.3/0.4
    share = sum(ids[:2] == ["a", "b"] for ids in draws) / 4000
    assert abs(share - 0.45) < 4 * (0.45 * 0.55 / 4000) ** 0.5


def test_golden_draws():
    # A change here changes what every run from now on revises by: runs could no longer be continued or compared.
    weights = (0.1, 0.7, 0.2, 3, 0.001, 2.5)
    text = "\n\n".join(f"name: p{i}\nweight: {weight}\nRule {i}." for i, weight in enumerate(weights))
    for replace, expected in ((True, "p5 p5 p3 p3 p1 p3 p3 p1"), (False, "p5 p3 p1 p0 p2 p4 p3 p1")):
        drawn = draw_principles(parse_constitution(text, "c"), 8, np.random.default_rng(5), replace, "any")
        assert " ".join(p.id for p in drawn) == expected


def test_draws_are_decided_by_the_generator():
    constitution = parse_constitution(SLICED, "x")
    first, again, other = (
        [p.id for p in draw_principles(constitution, 30, np.random.default_rng(seed), True, "tea")]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    rng = np.random.default_rng(1)
    draw_principles(constitution, 5, rng, False, "tea")
    reference = np.random.default_rng(1)
    reference.random(5)
    assert rng.random() == reference.random()


@pytest.mark.parametrize(("name", "least"), [("harmless", 12), ("honest", 8)])
def test_shipped_constitutions(name, least):
    constitution = load_constitution(SHIPPED / f"{name}.txt")
    assert len(constitution.principles) >= least
    sentences = [p for p in constitution.principles if p.text]
    assert least / 4 < len(sentences) < len(constitution.principles) * 3 / 4
    for p in constitution.principles:
        assert not p.text or p.text.endswith(".")
        # The answer is trained on: it must not speak of the rewriting.
        assert not p.revise or "Write only the answer" in p.revise


def check(*args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline.inputs.constitution", "check", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_check_prints_what_is_asked():
    done = check(str(SHIPPED / "honest.txt"))
    assert (done.returncode, done.stderr) == (0, "")
    for p in load_constitution(SHIPPED / "honest.txt").principles:
        assert f"== {p.id} (line {p.line}; weight {p.weight:g}" in done.stdout
        for asked in (p.text, p.critique, p.revise):
            assert asked is None or asked in done.stdout


def test_check_reports_all_faults(tmp_path):
    (tmp_path / "x.txt").write_text("weight: 0\nText\n\nname: {{ a }}\ncritique: b")
    done = check(str(tmp_path / "x.txt"), "--templates", str(tmp_path))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert [line.split(": ")[0].removeprefix(str(tmp_path)) for line in lines] == [
        "/x.txt:1:1",
        "/x.txt:4:1",
        "/x.txt:5:1",
        "/critique.jinja",
    ]


def test_check_finds_a_template_that_does_not_fit(tmp_path):
    (tmp_path / "x.txt").write_text("Be {{ kind }}.\n\ncritique: a\nrevise: b")
    for name in ("critique", "rewrite", "rewrite_without_critique"):
        (tmp_path / f"{name}.jinja").write_text("{{ principle.text }}")
    done = check(str(tmp_path / "x.txt"), "--templates", str(tmp_path))
    assert done.returncode == 1
    assert "Be {{ kind }}." in done.stdout and "note: the braces" in done.stdout
    assert "critique.jinja:1: fails for the principle `a-b-" in done.stderr
