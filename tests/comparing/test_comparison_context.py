"""What differs between checkpoints, what they trained on, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_runs import INPUTS, RECIPE, amend, write_run

from pipeline.comparing.context import context_report
from pipeline.comparing.differences import find_differences, round_data
from pipeline.errors import InputError
from pipeline.report.checkpoints import find_checkpoints
from pipeline.report.costs import Cost, Price, cost_so_far, read_price, round_cost
from pipeline.runs.files import write_text


def test_rounds_of_one_run_differ_in_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert not any(find_differences(find_checkpoints([str(run.path)])))
    assert "What differs" not in context_report(find_checkpoints([str(run.path)]), None)


def test_runs_differ_in_constitution_recipe_inputs_and_engine(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", 2)
    two = write_run(
        tmp_path / "two",
        2,
        recipe=RECIPE | {"learning_rate": 0.1},
        inputs=INPUTS | {"prompts": "d" * 64, "constitution": "e" * 64, "few_shot": "f" * 64},
        versions={"torch": "2.13.0", "transformers": "5.23.0", "numpy": "3.0"},
        constitution="be kind .\n\nbe thorough .\n",
    )
    checkpoints = find_checkpoints([f"{one.path}:1", str(two.path)])
    first, second = find_differences(checkpoints)
    assert (first.recipe, first.constitution[2:]) == (second.recipe, second.constitution[2:])
    assert second.constitution[:2] == ["--- one:1", "+++ two:1"]
    assert second.constitution[3:] == [" be kind .", " ", "-be brief .", "+be thorough ."]
    assert second.recipe == ["learning_rate: 0.002 -> 0.1"]
    assert second.inputs == ["prompts"], "the constitution is shown in full, and few_shot stands in one recipe only"
    assert second.engine == ['numpy: "2.4.6" -> "3.0"']
    text = context_report(checkpoints, None)
    assert "What differs from one:1 in two:0, two:1" in text, "what two checkpoints share is said once"
    assert text.count("be thorough") == 1


def test_amendments_are_told_of_the_rounds_after_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    amend(run, 1, "learning_rate: 0.01 -> 0.002")
    write_text(run.stage_dir(2, "refine") / "constitution.txt", "be kind .\n")
    first, second = find_differences(find_checkpoints([str(run.path)]))
    assert not first
    assert second.amendments == ["after round 1: why not"]
    assert second.recipe == ["learning_rate: 0.01 -> 0.002"], "though both were sampled with the same settings"
    assert "-be brief ." in second.constitution


def test_data_are_counted_by_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    zero, _, two = find_checkpoints([str(run.path)])
    data = round_data(two)
    assert data and data._asdict() == {
        "answers": 48,
        "unusable": {"empty": 2},
        "revisions": 96,
        "dropped": {"unchanged": 40, "loop": 3},
        "kept": 30,
        "trained": {"revision": 60},
        "steps": 20,
    }
    assert round_data(zero) is None
    lines = context_report([zero, two], None).splitlines()
    assert "40 unchanged, 3 loop" in next(line for line in lines if line.startswith("  round 2"))
    (run.stage_dir(2, "distill") / "manifest.json").unlink()
    assert round_data(two) is None, "a round under way"


def test_costs_are_added_up_over_stages_and_rounds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    zero, one, two = find_checkpoints([str(run.path)])
    # Ten seconds on two devices for every stage; two manifests of measuring, three of training.
    assert round_cost(zero) == Cost(1000, 2000, 0, 20.0, 40.0)
    assert round_cost(one) == Cost(4300, 3400, 700, 50.0, 100.0)
    assert cost_so_far(two) == Cost(1000 + 2 * 4300, 2000 + 2 * 3400, 1400, 120.0, 240.0)
    price = read_price(["3.60/h", "10/Mtok"])
    assert price == Price(3.6, 10.0)
    assert cost_so_far(two).money(Price(3.6, 10.0)) == pytest.approx(0.24 + 0.184)
    assert "0.4240" in context_report([zero, two], price)
    assert "money" not in context_report([zero, two], None)


@pytest.mark.parametrize("given", [["3"], ["3/s"], ["-1/h"], ["1/h", "2/h"], ["nan/h"], ["1e3/h"]])
def test_a_price_that_is_none(given: list[str]) -> None:
    with pytest.raises(InputError, match=r"2\.50/h"):
        read_price(given)


def test_half_a_price() -> None:
    assert read_price([]) is None
    assert read_price(["2/Mtok"]) == Price(0.0, 2.0)


def test_texts_of_people_are_not_obeyed(tmp_path: Path) -> None:
    one, two = (
        write_run(tmp_path / name, 1, constitution=text) for name, text in (("one", "a\n"), ("two", "\x1b[2Jb\n"))
    )
    text = context_report(find_checkpoints([str(one.path), str(two.path)]), None)
    assert "\x1b" not in text and "\\x1b[2Jb" in text
