from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.degeneration import degeneration_report, degeneration_table
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import REFINEMENTS, SAMPLES, TRAIN, to_table, write_table

PROMPT = [{"role": "user", "content": "tell me more"}]
PLAIN = "a b c d e"
LOOP = "round and " * 12


def write(path: Path, schema: Any, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, [to_table([{name: row.get(name) for name in schema.names} for row in rows], schema)], schema)


def sample(i: int, k: int, text: str, **labels: Any) -> dict[str, Any]:
    row = {"prompt_id": f"p{i}", "sample": k, "probe_set": "panel", "prompt": PROMPT, "slice": "all"}
    return row | {"response": text, "finish_reason": "stop"} | labels


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    kept = "to keep it short and simple"
    write(run.stage_dir(0, "measure") / "samples.parquet", SAMPLES, [sample(i, 0, PLAIN) for i in range(100)])
    after = [sample(i, 0, LOOP if i < 20 else f"{PLAIN} {kept}" if i < 60 else PLAIN) for i in range(98)]
    after += [sample(98, 0, PLAIN, finish_reason="length"), sample(99, 0, "", drop_reason="error")]
    after += [sample(0, 0, LOOP, probe_set="other")]
    write(run.stage_dir(1, "measure") / "samples.parquet", SAMPLES, after)
    finals = [LOOP if i < 10 else f"{PLAIN} {kept}" if i < 20 else PLAIN for i in range(100)]
    ended = ["length" if i == 50 else "stop" for i in range(100)]
    refined = [
        {"prompt_id": f"t{i}", "sample": 0, "round": 1, "final": text, "finish_reason": why}
        for i, (text, why) in enumerate(zip(finals, ended, strict=True))
    ]
    refined.append({"prompt_id": "t50", "sample": 0, "round": 1, "final": None, "finish_reason": "stop"})
    write(run.stage_dir(1, "refine") / "refinements.parquet", REFINEMENTS, refined)
    trained = [
        {
            "prompt_id": f"t{i}",
            "sample": 0,
            "round": 1,
            "prompt": PROMPT,
            "completion": [{"role": "assistant", "content": text}],
            "source": "revision",
        }
        for i, text in enumerate(finals)
    ]
    write(run.stage_dir(1, "distill") / "train.parquet", TRAIN, trained)
    return run


def test_shares_and_their_ratio(run: RunDir) -> None:
    table = degeneration_table(run, 1, "panel")
    assert (table["training_rows"], table["answers"]) == (100, 99)
    kinds = {one["kind"]: one for one in table["kinds"]}
    loop = kinds["loop"]
    assert (loop["trained"], loop["answers"], loop["round_0"]) == pytest.approx((0.1, 20 / 99, 0.0))
    assert loop["amplification"] == pytest.approx(200 / 99)
    assert loop["low"] < 200 / 99 < loop["high"]
    assert (kinds["cut_off"]["trained"], kinds["cut_off"]["answers"]) == pytest.approx((0.01, 1 / 99))
    assert kinds["fragment"]["amplification"] is None


def test_boilerplate_is_found_and_amplified(run: RunDir) -> None:
    table = degeneration_table(run, 1, "panel")
    (phrase,) = [one for one in table["boilerplate"] if "keep it short" in one["phrase"]]
    assert (phrase["trained"], phrase["round_0"]) == (0.1, 0)
    assert phrase["answers"] == pytest.approx(40 / 99)
    assert phrase["amplification"] == pytest.approx(400 / 99)
    assert phrase["low"] > 1


def test_the_report_names_what_there_is(run: RunDir) -> None:
    text = degeneration_report(degeneration_table(run, 1, "panel"))
    assert "fragment" not in text
    (line,) = [line for line in text.splitlines() if line.strip().startswith("loop")]
    assert line.split()[1:4] == ["10.0%", "20.2%", "0.0%"]
    assert "2.02 [" in line
    assert "keep it short" in text


def test_without_answers_there_is_nothing_to_tell(run: RunDir) -> None:
    table = degeneration_table(run, 1, "absent")
    assert (table["answers"], table["kinds"], table["boilerplate"]) == (0, [], [])
    assert "none" in degeneration_report(table)


def test_a_sound_round_says_so() -> None:
    kinds = [{"kind": "loop", "trained": 0.0, "answers": 0.0}]
    assert "none" in degeneration_report({"kinds": kinds, "boilerplate": []})
