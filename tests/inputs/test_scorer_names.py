from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.inputs.recipe_fields import find_problems
from pipeline.inputs.recipe_parser import read_file
from pipeline.inputs.scorer_names import PLAIN, WITH_ARGUMENT, describe_names, name_problem, split_name


@pytest.mark.parametrize(
    ("entry", "name", "argument"),
    [
        ("refusal", "refusal", None),
        ("refusal:mine.json", "refusal", "mine.json"),
        ("choice:../a.jsonl", "choice", "../a.jsonl"),
        ("choice:C:/a b.jsonl", "choice", "C:/a b.jsonl"),
        ("choice:", "choice", ""),
    ],
)
def test_an_entry_is_split_at_its_first_colon(entry: str, name: str, argument: str | None) -> None:
    assert split_name(entry) == (name, argument)


def test_every_scorer_is_accepted_as_it_is_described() -> None:
    entries = describe_names().split(", ")
    assert len(entries) == len(PLAIN) + len(WITH_ARGUMENT)
    assert [name_problem(entry) for entry in entries] == [None] * len(entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("kl:x", "`kl` takes no argument; write `kl`"),
        ("refusal:", "`refusal` takes no argument; write `refusal`"),
        ("choice", "`choice` needs its argument; write `choice:FILE`"),
        ("choice:", "`choice` needs its argument; write `choice:FILE`"),
        ("choise:a.jsonl", "no scorer `choise`; did you mean `choice`?"),
        ("zzzz", "no scorer `zzzz`; there are gold, refusal,"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(entry: str, message: str) -> None:
    assert message in (name_problem(entry) or "")
    assert message in find_problems({"scorers": ["kl", entry]})["scorers"]


def test_yaml_leaves_the_colon_of_an_entry_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("scorers: [refusal, choice:../a.jsonl, sycophancy:b/c.json.gz]\n")
    (entry,), _, problems = read_file(path)
    assert (entry.raw, problems) == (["refusal", "choice:../a.jsonl", "sycophancy:b/c.json.gz"], [])
