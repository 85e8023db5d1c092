from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.rubric import Rating, load_rubrics, parse_rubric

RUBRICS = Path(__file__).parents[2] / "constitutions" / "rubrics"
SHIPPED = sorted(RUBRICS.rglob("*.txt"))

HEAD = "name: harm\nversion: 3\nworse: high\n\n"
ASKED = "question: how bad\nreworded: is it bad\n"
GOOD = HEAD + ASKED + "rating: 0 = fine\nrating: 1 = bad\n"


def faults(text: str) -> list[str]:
    with pytest.raises(InputError) as info:
        parse_rubric(text, "x.txt")
    return str(info.value).split("\n")


def test_the_format() -> None:
    text = (
        "# A comment.\n name:  harm\nversion: 12\nworse: low\n\nquestion: How  bad\n# Within.\nquestion: is it?\n"
        "reworded: Is it bad: yes?\n\nrating: -1 = fine = good\nsays: No\nsays: no\n\nrating: 2.5 = bad"
    )
    rubric = parse_rubric(text, "some/where.txt")
    assert (rubric.name, rubric.version, rubric.worse, rubric.path) == ("harm", 12, "low", "some/where.txt")
    assert (rubric.question, rubric.reworded) == ("How bad is it?", "Is it bad: yes?")
    assert rubric.ratings == (
        Rating("-1", -1.0, "fine = good", ("No", "no"), 11),
        Rating("2.5", 2.5, "bad", ("2.5",), 15),
    )
    assert rubric.range == (-1.0, 2.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD.replace("rating: 1", "ratng: 1"),
            ["x.txt:1: has 1 `rating:` lines", "x.txt:8: unknown key `ratng`; did"],
        ),
        (GOOD.replace("worse: high", "worse: up"), ["x.txt:3: worse `up` must be one of high, low, both."]),
        (GOOD.replace("worse: high\n", ""), ["x.txt:1: `worse:` is missing in the first"]),
        (GOOD.replace("version: 3", "version: 0"), ["x.txt:2: version `0` is not a whole number"]),
        (GOOD + "version: 4", ["x.txt:9: `version:` belongs in the first paragraph"]),
        (GOOD.replace("version: 3", "version: 3\nquestion: why"), ["x.txt:3: `question:` does not belong here"]),
        (GOOD.replace("reworded: is it bad\n", ""), ["x.txt:1: `reworded:` is missing; a rubric asks"]),
        (GOOD.replace("is it bad", "how bad"), ["x.txt:1: `reworded:` is the question itself"]),
        (GOOD + "rating: 1 = worse", ["x.txt:9: `1` begins with `1`", "x.txt:9: rating 1 is not above 1"]),
        (GOOD + "rating: 10 = worse", ["x.txt:9: `10` begins with `1`, so the judge's first words"]),
        (GOOD + "rating: 0.5 = half", ["x.txt:9: `0.5` begins with `0`", "x.txt:9: rating 0.5 is not above 1"]),
        (GOOD + "rating: two = bad", ["x.txt:9: `rating: two = bad` must be `rating: NUMBER = MEANING`."]),
        (GOOD + "rating: 2", ["x.txt:9: `rating: 2` must be"]),
        (GOOD + "\nquestion: really\nsays: yes", ["x.txt:11: `says:` does not belong here"]),
        (HEAD + ASKED + "says: yes\nrating: 0 = a\nrating: 1 = b", ["x.txt:7: `says:` does not belong here"]),
        (
            HEAD + ASKED + "rating: 0 = a\nsays: no\nrating: 1 = b\nsays: not so",
            ["x.txt:9: `not so` begins with `no`"],
        ),
        (GOOD + "  and more", ["x.txt:9: `and more` has no key; a line is `question: TEXT` or"]),
        (
            "",
            [
                "x.txt:1: `name:`",
                "x.txt:1: `question:`",
                "x.txt:1: `reworded:`",
                "x.txt:1: `ver",
                "x.txt:1: `wor",
                "x.txt:1: has 0",
            ],
        ),
    ],
)
def test_every_fault_is_named_with_its_line(text: str, expected: list[str]) -> None:
    found = faults(text)
    assert len(found) == len(expected), found
    assert all(fault.startswith(start) for fault, start in zip(found, expected, strict=True)), found


texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["high", "low", "both"]),
    st.lists(texts, min_size=2, max_size=2, unique=True),
    st.lists(st.tuples(st.integers(-500, 500), texts), min_size=2, max_size=12, unique_by=lambda pair: pair[0]),
)
def test_what_is_written_is_read(worse: str, asked: list[str], ratings: list[tuple[int, str]]) -> None:
    ratings.sort()
    lines = [f"rating: {value} = {meaning}\nsays: <{value}>" for value, meaning in ratings]
    text = f"name: n\nversion: 1\nworse: {worse}\n\nquestion: {asked[0]}\nreworded: {asked[1]}\n" + "\n".join(lines)
    rubric = parse_rubric(text, "x")
    assert (rubric.worse, rubric.question, rubric.reworded) == (worse, *asked)
    assert [(int(one.value), one.meaning) for one in rubric.ratings] == ratings
    for one in rubric.ratings:
        assert text.split("\n")[one.line - 1].startswith(f"rating: {one.label} =")


pieces = st.sampled_from(
    [
        "name:",
        "version:",
        "worse:",
        "question:",
        "reworded:",
        "rating:",
        "says:",
        " a",
        " 1 = b",
        " high",
        "\n",
        "\n\n",
        "#",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(pieces, max_size=25).map("".join)))
def test_any_text_is_read_or_refused_with_its_lines(text: str) -> None:
    try:
        rubric = parse_rubric(text, "x.txt")
    except InputError as error:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        for fault in str(error).split("\n"):
            assert 1 <= int(fault.split(":")[1]) <= lines
    else:
        assert rubric.question and rubric.reworded and len(rubric.ratings) >= 2


def test_digest_is_of_the_text_and_names_are_unique(tmp_path: Path) -> None:
    unix, dos, edited = (tmp_path / name for name in ("unix.txt", "dos.txt", "edited.txt"))
    unix.write_bytes(GOOD.encode())
    dos.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    edited.write_text(GOOD.replace("= bad", "= very bad"))
    ((one,), (same,), (other,)) = (load_rubrics([path]) for path in (unix, dos, edited))
    assert one.sha256 == same.sha256 != other.sha256
    with pytest.raises(InputError, match=r"dos\.txt: the name `harm` is that of .*unix\.txt too"):
        load_rubrics([unix, dos])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_rubrics(path: Path) -> None:
    (rubric,) = load_rubrics([path])
    assert rubric.name == path.stem
    if path.parent == RUBRICS:
        assert [one.label for one in rubric.ratings] == list("0123456789")
        assert rubric.worse == ("low" if rubric.name == "helpfulness" else "high")


def test_there_are_shipped_rubrics() -> None:
    names = {path.stem for path in SHIPPED if path.parent == RUBRICS}
    assert names == {"harm", "helpfulness", "evasiveness", "hedging", "flattery", "deception"}
