"""Checkpoints side by side: numbers, verdicts, refusals; and that runs are only read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_runs import ENGINE, INPUTS, RECIPE, VERSIONS, amend, draw_scores, write_round, write_run

from pipeline.comparing.comparable import recipe_at
from pipeline.comparing.comparison import Entry, SideBySide, compare_checkpoints
from pipeline.errors import InputError
from pipeline.report.checkpoints import find_checkpoints
from pipeline.runs.files import read_json, write_json
from pipeline.runs.rundir import RunDir
from pipeline.tails import compare, frozen_threshold, summarise


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return write_run(tmp_path_factory.mktemp("runs") / "one", drift=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return write_run(tmp_path_factory.mktemp("runs") / "two", seed=1)


@pytest.fixture(scope="module")
def rounds(run: RunDir) -> SideBySide:
    return compare_checkpoints(find_checkpoints([str(run.path)]))


def between(*names: str, **options: Any) -> SideBySide:
    return compare_checkpoints(find_checkpoints(names), **options)


def entry(found: SideBySide, scorer: str, checkpoint: int, *, slice_: str | None = None, tail: str = "upper") -> Entry:
    wanted = (scorer, tail, "probe", slice_)
    return next(one for one in found.entries if (one.group, one.checkpoint) == (wanted, checkpoint))


def test_a_run_against_its_round_0_has_the_numbers_of_its_drift_tables(run: RunDir, rounds: SideBySide) -> None:
    checked = 0
    for one in rounds.entries:
        known = {
            (c["scorer"], c["tail"], c["probe_set"], c["slice"], c["quantity"]): c
            for c in read_json(run.drift(one.checkpoint))["cells"]
        }
        for quantity, cell in one.cells.items():
            expected = known[(*one.group, quantity)]
            assert cell == {name: value for name, value in expected.items() if not name.startswith("previous_")}
            checked += 1
    # Harm on two sets and five slices of each, calm once, both ends of length; three rounds, eight quantities.
    assert checked == (2 * 6 + 1 + 2) * 3 * 8


def test_the_headline_comes_first_and_all_of_everything_is_there_if_asked_for(run: RunDir) -> None:
    few, all_of_it = between(str(run.path)), between(str(run.path), everything=True)
    assert few.entries[0].group == ("harm", "upper", "probe", None)
    groups = {one.group for one in all_of_it.entries}
    assert len(groups) == 4 * 2 * 6
    assert {one.group for one in few.entries} < groups


def test_across_runs_changes_are_since_the_first_and_paired_by_prompt(run: RunDir, other: RunDir) -> None:
    found = between(f"{run.path}:1", f"{other.path}:2")
    before, after = draw_scores(1)["harm"]["probe"], draw_scores(2, seed=1)["harm"]["probe"]
    threshold = frozen_threshold(before, 0.99)
    expected = {row.quantity: row for row in summarise(before, after, threshold=threshold, seed=7)}
    cell = entry(found, "harm", 1).cells["q90"]
    change = expected["q90"].change_from_baseline
    assert change is not None
    assert (cell["baseline_value"], cell["baseline_low"]) == (change.value, change.low)
    assert cell["value"] == expected["q90"].estimate.value


def test_the_verdict_is_that_of_the_alarm_against_the_run_s_own_round_0(rounds: SideBySide) -> None:
    calm, red = (entry(rounds, "harm", i).verdict for i in (1, 2))
    assert calm and (calm.color, calm.source, calm.detectable) == ("green", "alarm.json", 1.75)
    assert red and (red.color, red.slice, red.p_value) == ("red", "s0", 0.02)
    s0, s1 = (entry(rounds, "harm", 2, slice_=name).verdict for name in ("s0", "s1"))
    assert s0 and (s0.color, s0.source) == ("red", "alarm.json")
    assert s1 and (s1.color, s1.source) == ("green", "panel")
    assert entry(rounds, "harm", 0).verdict is None


def test_other_verdicts_are_screens_beyond_the_baseline_s_frozen_thresholds(run: RunDir, other: RunDir) -> None:
    verdict = entry(between(f"{run.path}:0", f"{other.path}:2"), "harm", 1).verdict
    before, after = draw_scores(0)["harm"]["probe"], draw_scores(2, seed=1)["harm"]["probe"]
    ids = np.arange(60) % 5
    expected = compare(before, after, slices=ids, thresholds=(1.5, 2.5), seed=0)
    assert verdict and verdict.thresholds == (1.5, 2.5) and verdict.source == "panel"
    # Exchanges are drawn by the run's seed.
    assert verdict.p_value == pytest.approx(expected.panel_p, abs=0.01)
    assert (verdict.color, verdict.slice) == ("amber", "s0")
    unwatched = entry(between(f"{run.path}:0", f"{other.path}:2"), "calm", 1).verdict
    assert unwatched and unwatched.thresholds not in ((), (1.5, 2.5))


def test_slices_are_corrected_for_their_number(run: RunDir, other: RunDir) -> None:
    found = between(f"{run.path}:0", f"{other.path}:0")
    colors = [
        one.verdict.color
        for one in found.entries
        if one.verdict and one.group.slice and one.group.probe_set == "probe"
    ]
    assert colors == ["green"] * 5, "two draws of one law"
    worse = between(f"{run.path}:0", f"{other.path}:2")
    verdict = entry(worse, "harm", 1, slice_="s0").verdict
    assert verdict and verdict.color == "amber"


def test_a_run_in_progress_is_read_and_left_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    write_round(run, 1)  # measured; its alarm is not known yet
    run.stage_dir(2, "measure").mkdir(parents=True)
    (run.stage_dir(2, "measure") / ".samples.parquet.123.tmp").write_bytes(b"half")
    run.lock()
    try:
        before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
        found = compare_checkpoints(find_checkpoints([str(run.path)]))
        assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    finally:
        run.release()
    assert [one.round for one in found.checkpoints] == [0, 1]
    verdict = entry(found, "harm", 1).verdict
    assert verdict and verdict.source == "panel"


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "sampling": ({"recipe": RECIPE | {"probe_temperature": 0.7}}, "probe_temperature is 0.7, not 1.0"),
    "precision": ({"engine": ENGINE | {"dtype": "bfloat16"}}, "dtype is bfloat16, not float32"),
    "engine": ({"engine": ENGINE | {"device": "cuda"}}, "device is cuda, not cpu"),
    "probes": ({"prompts": range(20, 80)}, "40 prompts of probe are the same, of 60 and 60"),
    "scorers": ({"inputs": INPUTS | {"batteries.harm": "f" * 64}}, "batteries.harm is sha256 ffffffffffff"),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_cannot_be_compared_is_refused_with_the_way_out(kind: str, tmp_path: Path) -> None:
    options, said = DIFFERENT[kind]
    run = write_run(tmp_path / "one", rounds=1, inputs=INPUTS | {"batteries.harm": "e" * 64})
    other = write_run(tmp_path / "two", rounds=1, **({"inputs": run_inputs(run)} | options))
    with pytest.raises(InputError) as refusal:
        between(str(run.path), str(other.path))
    message = str(refusal.value)
    assert f"two:0: {kind}: {said}" in message
    assert message.endswith(f"--despite {kind}")
    found = between(str(run.path), str(other.path), despite=[kind])
    assert {one.kind for one in found.overlooked} == {kind}


def write_template(run: RunDir, round_: int, template: str, **engine: str) -> None:
    path = run.stage_dir(round_, "measure") / "samples.manifest.json"
    manifest = read_json(path)
    write_json(path, manifest | {"chat_template": template, "engine": manifest["engine"] | engine})


def test_a_chat_template_that_was_amended_is_another(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", inputs=INPUTS | {"chat_template_path": "f" * 64})  # the latest, for all rounds
    for round_, template in enumerate("eef"):
        write_template(run, round_, template * 64)
    assert not between(f"{run.path}:0", f"{run.path}:1").overlooked
    with pytest.raises(InputError, match="run:2: sampling: chat template is sha256 ffffffffffff, not sha256 eeeee"):
        between(str(run.path))


def test_a_chat_template_is_the_same_wherever_it_was_given(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", rounds=1)
    given = {"recipe": RECIPE | {"chat_template_path": "t.jinja"}, "inputs": INPUTS | {"chat_template_path": "f" * 64}}
    two = write_run(tmp_path / "two", rounds=1, **given)
    write_template(two, 0, "f" * 64)
    with pytest.raises(InputError, match="chat template is sha256 ffffffffffff, not sha256 dddddddddddd"):
        between(str(one.path), str(two.path))
    write_template(one, 0, "f" * 64)
    assert not between(str(one.path), str(two.path)).overlooked


def test_the_own_chat_templates_of_two_models_belong_to_them(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / name, rounds=1) for name in ("one", "two"))
    write_template(one, 0, "e" * 64)
    write_template(two, 0, "f" * 64, model="another")
    assert not between(str(one.path), str(two.path)).overlooked
    write_json(two.resolved, RECIPE | {"chat_template_path": "t.jinja"})
    with pytest.raises(InputError, match="two:0: sampling: chat template is sha256 ffff"):
        between(str(one.path), str(two.path))


def run_inputs(run: RunDir) -> dict[str, str]:
    return dict(read_json(run.inputs))


def test_versions_that_compute_nothing_and_more_samples_are_no_obstacle(run: RunDir, tmp_path: Path) -> None:
    engine = ENGINE | {"endpoints": ["http://elsewhere"]}
    other = write_run(tmp_path / "two", rounds=1, versions=VERSIONS | {"numpy": "3.0"}, engine=engine)
    write_json(other.resolved, RECIPE | {"learning_rate": 1.0, "probe_samples": 8})
    assert not between(f"{run.path}:0", str(other.path)).overlooked


def test_despite_other_probes_the_prompts_in_common_are_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", rounds=1)
    other = write_run(tmp_path / "two", rounds=2, prompts=range(20, 80))
    found = between(str(run.path), f"{other.path}:1", despite=["probes"])
    assert found.prompts == {"probe": (40, 60), "other": (10, 30)}
    everyone = range(80)
    before, after = (draw_scores(i, prompts=everyone)["harm"]["probe"][20:60] for i in (0, 1))
    expected = summarise(before, after, quantities=["mean"], seed=7)[0].change_from_baseline
    cell = entry(found, "harm", 1).cells["mean"]
    assert expected is not None
    assert (cell["n_prompts"], cell["baseline_value"]) == (40, pytest.approx(expected.value))


def test_probe_sets_of_one_side_are_left_out_and_named(run: RunDir, tmp_path: Path) -> None:
    import pyarrow.compute as pc

    from pipeline.runs.tables import SAMPLES, SCORES, read_table, write_table

    other = write_run(tmp_path / "two", rounds=1)
    for name, schema in (("samples", SAMPLES), ("scores", SCORES)):
        path = other.stage_dir(0, "measure") / f"{name}.parquet"
        write_table(path, [read_table(path).filter(pc.field("probe_set") == "probe")], schema)
    found = between(f"{run.path}:0", str(other.path))
    assert list(found.prompts) == ["probe"]
    assert found.left_out == ["what only one:0 measured, the probe sets other"]
    assert {one.group.probe_set for one in found.entries} == {"probe"}
    for name, schema in (("samples", SAMPLES), ("scores", SCORES)):
        path = other.stage_dir(0, "measure") / f"{name}.parquet"
        write_table(path, [read_table(path).filter(pc.field("probe_set") == "other")], schema)
    with pytest.raises(InputError, match="nothing to compare"):
        between(f"{run.path}:0", str(other.path))


def test_a_score_is_compared_on_the_set_that_has_it(tmp_path: Path) -> None:
    """Questions are scored and not sampled."""
    import pyarrow as pa

    from pipeline.runs.tables import SCORES, read_table, to_table, write_table

    run = write_run(tmp_path / "run", rounds=2)
    for round_ in range(2):
        rows = [
            {"prompt_id": f"q{i}", "sample": 0, "probe_set": "questions", "slice": "all", "scorer": "choice"}
            | {"score": float(i % 7 + round_)}
            for i in range(40)
        ]
        pieces = [read_table(run.scores(round_)), to_table(rows, SCORES)]
        write_table(run.scores(round_), [pa.concat_tables(pieces)], SCORES)
        drift = read_json(run.drift(round_))
        write_json(run.drift(round_), drift | {"cells": [*drift["cells"], {"scorer": "choice", "tail": "upper"}]})
    found = between(str(run.path))
    cell = next(one for one in found.entries if one.group.scorer == "choice" and one.checkpoint).cells["mean"]
    assert (cell["probe_set"], cell["baseline_value"]) == ("questions", pytest.approx(1.0))
    assert next(iter(found.prompts)) == "probe"


def test_a_score_that_is_missing_on_the_first_set_is_compared_on_the_next(tmp_path: Path) -> None:
    """As under_refusal on the unsafe set of several; what has no score anywhere is not said to have stayed."""
    import pyarrow as pa

    from pipeline.comparing.table import comparison_report
    from pipeline.runs.tables import SCORES, read_table, to_table, write_table

    run = write_run(tmp_path / "run", rounds=2)
    for round_ in range(2):
        rows = [
            {"prompt_id": f"{name}-{i:04d}", "sample": 0, "probe_set": name, "slice": "s0", "scorer": scorer}
            | {"score": score, "reason": "not a prompt of it" if score is None else None}
            for scorer in ("under_refusal", "gone")
            for name in ("probe", "other")
            for i in range(30)
            for score in [float(i % 7 + round_) if (scorer, name) == ("under_refusal", "other") else None]
        ]
        pieces = [read_table(run.scores(round_)), to_table(rows, SCORES)]
        write_table(run.scores(round_), [pa.concat_tables(pieces)], SCORES)
        drift = read_json(run.drift(round_))
        ends = [{"scorer": scorer, "tail": "upper"} for scorer in ("under_refusal", "gone")]
        write_json(run.drift(round_), drift | {"cells": [*drift["cells"], *ends]})
    found = between(str(run.path))
    cell = next(one for one in found.entries if one.group.scorer == "under_refusal" and one.checkpoint).cells["mean"]
    assert (cell["probe_set"], cell["baseline_value"]) == ("other", pytest.approx(1.0))
    text = comparison_report(found)
    assert "under_refusal on other: 30 prompts" in text
    assert "Not identified: gone on probe." in text
    assert "gone" not in next(line for line in text.splitlines() if "Nothing moved" in line)


def test_a_round_was_measured_by_the_recipe_of_its_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recipe=RECIPE | {"probe_temperature": 0.5})
    amend(run, 1, "probe_temperature: 1.0 -> 0.5", "constitution: the line endings changed")
    for round_, settings in ((0, "old"), (1, "old"), (2, "new")):
        path = run.stage_dir(round_, "measure") / "samples.manifest.json"
        write_json(path, read_json(path) | {"settings": settings})
    temperatures = [recipe_at(one)["probe_temperature"] for one in find_checkpoints([str(run.path)])]
    assert temperatures == [1.0, 1.0, 0.5]
    with pytest.raises(InputError, match=r"run:2: sampling: probe_temperature is 0\.5, not 1\.0"):
        between(str(run.path))
    # Round 1 is measured anew, after the amendment.
    path = run.stage_dir(1, "measure") / "samples.manifest.json"
    write_json(path, read_json(path) | {"settings": "new"})
    assert recipe_at(find_checkpoints([f"{run.path}:1"])[0])["probe_temperature"] == 0.5
