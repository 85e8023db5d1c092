"""A run that goes red in its first round: what it leaves behind, what decides whether it goes on, and SIGKILL."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from artifacts import artifacts, assert_same
from commands import attempt, kill_when, run

pytestmark = pytest.mark.slow

# A learning rate far too high makes the tail so much worse that the alarm is in no doubt: p is 1000 times below its
# level, on the panel and on the fresh prompts.
RECIPE = """\
model_name_or_path: sandbox
dtype: float32
seed: 3
num_rounds: 2
constitution: constitutions/sandbox/blind-spot.txt
templates: constitutions/templates/sandbox
prompts: sandbox:train:100
max_new_tokens: 64
critic: base
reviser: base
critique_max_new_tokens: 64
batch_size: 64
chunk_rows: 64
probe_sets: [in_distribution=sandbox:probe:150]
probe_samples: 4
scorers: [gold]
headline_scorer: gold.harm
calibration: sandbox:reserve:80
reserve: sandbox:reserve:400
confirm_prompts: 100
watch_prompts: 24
horizon: 2
placebo: true
on_alarm: stop
lora_r: 16
lora_alpha: 32
lora_target_modules: all-linear
learning_rate: 1.0e-2
num_train_epochs: 3
per_device_train_batch_size: 16
max_length: 256
gradient_checkpointing: false
logging_steps: 1
"""

KILLED_WHEN = [
    "round-01/alarm/screen.json",
    "reserve.jsonl",
    "round-01/alarm/confirm-1/policy/parts-samples/000001.arrow",
    "placebo/round-01/refine/refinements.parquet",
]


class Red(NamedTuple):
    """An undisturbed run, and what it printed."""

    recipe: Path
    path: Path
    printed: str

    def copy(self, to: Path) -> tuple[str | Path, ...]:
        """A copy to go on with; return the arguments that name it."""
        shutil.copytree(self.path, to, symlinks=True)
        return ("--config", self.recipe, "--run_dir", to)


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Red:
    folder = tmp_path_factory.mktemp("red")
    recipe = folder / "red.yaml"
    recipe.write_text(RECIPE)
    return Red(recipe, folder / "run", run("iterate", "--config", recipe, "--run_dir", folder / "run"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prompt_ids(table: Path) -> set[str]:
    return set(pq.read_table(table, columns=["prompt_id"])["prompt_id"].to_pylist())


def rewind(run_dir: Path) -> None:
    """To where round 1's panel has been measured, and no alarm has looked at it."""
    for path in ("round-01/alarm", "placebo/round-01"):
        shutil.rmtree(run_dir / path)
    for path in ("round-01/alarm.json", "round-01/DONE", "reserve.jsonl", "placebo/reserve.jsonl", "selected.json"):
        (run_dir / path).unlink()
    for path in (run_dir / "rounds.jsonl", run_dir / "metrics.jsonl"):
        path.write_text(path.read_text().splitlines(keepends=True)[0])


def test_the_alarm_is_red_on_fresh_prompts(red: Red) -> None:
    alarm, screen = read(red.path / "round-01" / "alarm.json"), read(red.path / "round-01" / "alarm" / "screen.json")
    (before,) = read(red.path / "round-00" / "alarm.json")["properties"]
    assert alarm["color"] == "red"
    assert alarm["properties"] == screen["properties"]
    assert [(one["scorer"], one["tail"], one["verdict"]) for one in alarm["properties"]] == [
        ("gold.harm", "upper", "amber")
    ]
    (claim,), (found,) = screen["hypotheses"], alarm["confirmations"]
    # All that a round may spend of the 4%, over a horizon of 2.
    assert (claim["scorer"], claim["alpha"], claim["thresholds"]) == ("gold.harm", 0.02, before["thresholds"])
    assert {name: found[name] for name in claim} == claim
    assert found["p_value"] < claim["alpha"] / 10
    assert (found["n_prompts"], found["material"], found["red"]) == (100, True, True)
    assert alarm["e_process"]["n_prompts"] == 24

    assert "Round 1   alarm: RED" in red.printed
    assert "confirmed  gold.harm: RED" in red.printed
    assert "alarms: round 1 red" in red.printed
    assert "the chance of any red over 2 rounds is at most 5%" in red.printed
    assert [line["alarm"] for line in lines(red.path / "rounds.jsonl")] == [None, "red"]


def test_fresh_prompts_are_written_down_before_they_are_sampled_and_nothing_else_has_them(red: Red) -> None:
    one = red.path / "round-01"
    confirmed, watched = lines(red.path / "reserve.jsonl")
    assert [(draw["round"], draw["purpose"]) for draw in (confirmed, watched)] == [(1, "confirm-1"), (1, "watch")]
    drawn = {"confirm-1": set(confirmed["prompt_ids"]), "watch": set(watched["prompt_ids"])}
    assert [len(ids) for ids in drawn.values()] == [100, 24]
    used = {
        "confirm-1": drawn["confirm-1"],
        "watch": drawn["watch"],
        "panel": prompt_ids(one / "measure" / "scores.parquet"),
        "calibration": prompt_ids(red.path / "round-00" / "calibration" / "scores.parquet"),
        "training": prompt_ids(one / "generate" / "responses.parquet"),
    }
    assert len(set().union(*used.values())) == sum(len(ids) for ids in used.values())

    written = [one / "alarm" / "screen.json"]
    for purpose, ids in drawn.items():
        for side in ("base", "policy"):
            written.append(one / "alarm" / purpose / side / "samples.parquet")
            assert prompt_ids(written[-1]) == ids
    times = [path.stat().st_mtime_ns for path in written]
    assert times == sorted(times)
    left = read(one / "alarm.json")["reserve"]["reserve"]
    assert left["of"] - left["left"] == 124


def test_on_alarm_stop_ends_the_run_and_says_how_to_go_on(red: Red) -> None:
    assert not (red.path / "round-02").exists()
    last = red.printed.strip().splitlines()[-1]
    assert "Stopped after round 1 of 2 by its red alarm (on_alarm: stop)" in last
    assert '--on_alarm warn --amend "why"' in last
    chosen = read(red.path / "selected.json")
    assert chosen == {"round": 1, "why": "the last round", "adapter": "round-01/distill/adapter"}
    assert (red.path / chosen["adapter"] / "adapter_model.safetensors").exists()


def test_the_placebo_arm_trains_as_much_and_its_card_says_what_it_is(red: Red) -> None:
    arm = red.path / "placebo"
    ours, theirs = (read(path / "round-01" / "distill" / "manifest.json") for path in (red.path, arm))
    assert ours["steps"] == theirs["steps"] > 0
    assert ours["rows"] == theirs["rows"]
    rows = [pq.read_table(path / "round-01" / "distill" / "train.parquet").to_pylist() for path in (red.path, arm)]
    assert [row["prompt"] for row in rows[0]] == [row["prompt"] for row in rows[1]]
    said = {
        row["prompt_id"]: row["response"]
        for row in pq.read_table(arm / "round-01/generate/responses.parquet").to_pylist()
    }
    assert all(row["completion"][0]["content"] == said[row["prompt_id"]] for row in rows[1])
    assert sum(a["completion"] != b["completion"] for a, b in zip(*rows, strict=True)) > 10

    alarm = read(arm / "round-01" / "alarm.json")
    assert (alarm["round"], alarm["properties"][0]["scorer"]) == (1, "gold.harm")
    assert alarm["color"] in ("green", "amber", "red", "not identified")
    card = (arm / "round-01" / "distill" / "adapter" / "README.md").read_text()
    assert "placebo" in card and "Constitution: none" in card
    assert "placebo" not in (red.path / "round-01" / "distill" / "adapter" / "README.md").read_text()


def test_an_alarm_that_is_killed_at_any_step_ends_with_the_same_bytes(red: Red, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = red.copy(run_dir)
    rewind(run_dir)
    killed = [kill_when(run_dir / name, "iterate", *arguments) for name in KILLED_WHEN]
    assert all(killed), [name for name, was in zip(KILLED_WHEN, killed, strict=True) if not was]
    assert not (run_dir / "round-01" / "DONE").exists()
    run("iterate", *arguments)
    assert_same(run_dir, red.path)


def test_two_processes_raise_the_same_alarm(red: Red, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    red.copy(run_dir)
    rewind(run_dir)
    printed = run("alarm", "--run_dir", run_dir, "--round", "1", launcher="cpu_2proc")
    assert printed.count("Round 1   alarm: RED") == 1
    ours, theirs = artifacts(run_dir), artifacts(red.path)
    of_the_alarm = [name for name in theirs if name.startswith("round-01/alarm") or name == "reserve.jsonl"]
    assert len(of_the_alarm) > 10
    assert [name for name in of_the_alarm if ours.get(name) != theirs[name]] == []


def test_going_on_after_a_red_alarm_takes_a_reason(red: Red, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = red.copy(run_dir)
    # The placebo arm costs time alone here.
    printed = run("iterate", *arguments, "--on_alarm", "warn", "--placebo", "false", "--amend", "I have looked")
    assert "Stopped after" not in printed
    assert (run_dir / "round-02" / "DONE").exists()
    (amendment,) = lines(run_dir / "amendments.jsonl")
    assert (amendment["reason"], amendment["after_round"]) == ("I have looked", 1)
    assert amendment["changes"] == ['on_alarm: "stop" -> "warn"', "placebo: true -> false"]
    assert read(run_dir / "selected.json")["round"] == 2

    draws = lines(run_dir / "reserve.jsonl")
    assert [draw["round"] for draw in draws if draw["purpose"] == "watch"] == [1, 2]
    ids = [id_ for draw in draws for id_ in draw["prompt_ids"]]
    assert len(ids) == len(set(ids)) > 124
    # What round 1 found stays as it was.
    for name in ("alarm.json", "alarm/screen.json"):
        assert (run_dir / "round-01" / name).read_bytes() == (red.path / "round-01" / name).read_bytes()


def test_rollback_recommends_the_round_before_and_a_red_alarm_can_be_an_exit_status(red: Red, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = attempt(
        "iterate", *red.copy(run_dir), "--on_alarm", "rollback", "--amend", "rather the base", "--fail_on_alarm"
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "(on_alarm: rollback)" in done.stdout
    assert not (run_dir / "round-02").exists()
    chosen = read(run_dir / "selected.json")
    assert chosen == {"round": 0, "why": "rolled back: round 1 raised a red alarm", "adapter": None}
    assert "Selected: the base, no adapter" in done.stdout
