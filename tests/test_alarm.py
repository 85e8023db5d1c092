"""Alarms and the fresh prompts that they use belong to the one adapter they were made for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_run import small_run

from pipeline import alarm, command, measure
from pipeline.engines.base import Adapter
from pipeline.errors import RunError
from pipeline.measuring.probing import Probe, probe
from pipeline.report.alarms import alarm_report
from pipeline.runs.files import read_json, read_json_lines, write_json, write_json_lines
from pipeline.runs.reserve import Reserve
from pipeline.runs.rundir import RunDir
from pipeline.setup.session import Session
from pipeline.setup.watched import properties_of, thresholds_of
from pipeline.tails import Hypothesis

ALARMED: dict[str, Any] = {
    "num_rounds": 2,
    "max_new_tokens": 24,
    "calibration": "sandbox:reserve:60",
    "reserve": "sandbox:reserve:100",
    "watch_prompts": 4,
}


@contextmanager
def opened(run: RunDir) -> Iterator[Session]:
    argv = ["--run_dir", str(run.path)]
    session = command.open_session(command.parse(argv, command.StageOptions), argv)
    try:
        yield session
    finally:
        session.close()


def train(run: RunDir, adapter: Adapter) -> None:
    """Stand in for the training of round 1, and ask its panel."""
    shutil.rmtree(run.stage_dir(1, "distill"), ignore_errors=True)
    shutil.rmtree(run.stage_dir(1, "measure"), ignore_errors=True)
    shutil.copytree(adapter.path, run.adapter_dir(1))
    with opened(run) as session:
        panel = {name: loaded.prompts for name, loaded in session.probe_sets.items()}
        folder, scorers = run.stage_dir(1, "measure"), session.recipe.scorers
        probe(session, Probe(folder, 1, session.adapter(1), panel, 2, scorers, measure.NOISE))


def raise_alarm(run: RunDir) -> dict[str, Any]:
    with opened(run) as session:
        return alarm.run(session, 1)


@pytest.fixture(scope="module")
def adapters(make_adapter: Callable[..., Adapter]) -> tuple[Adapter, Adapter]:
    return make_adapter(1), make_adapter(2)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, adapters: tuple[Adapter, Adapter]) -> Path:
    """A run whose alarms of rounds 0 and 1 are there."""
    folder = tmp_path_factory.mktemp("done")
    run = RunDir(folder / "run")
    measure.main(small_run(folder, **ALARMED, scorers=["gold"], headline_scorer="gold.harm"))
    alarm.main(["--run_dir", str(run.path), "--round", "0"])
    train(run, adapters[0])
    raise_alarm(run)
    return run.path


@pytest.fixture
def run(done: Path, tmp_path: Path) -> RunDir:
    """A copy of it."""
    return RunDir(Path(shutil.copytree(done, tmp_path / "run", symlinks=True)))


def test_an_alarm_is_not_reported_for_a_policy_that_it_did_not_test(
    run: RunDir, adapters: tuple[Adapter, Adapter]
) -> None:
    before = run.alarm(1).read_bytes()
    raise_alarm(run)
    assert run.alarm(1).read_bytes() == before
    assert read_json(run.alarm(1))["made_from"]["adapter"] == adapters[0].sha256

    train(run, adapters[1])
    said = r"alarm\.json: belongs to an earlier version of round 1 \(adapter and samples .*Delete .*alarm\.json and "
    with pytest.raises(RunError, match=said):
        raise_alarm(run)
    run.alarm(1).unlink()  # as after a kill between the screen and the alarm
    with pytest.raises(RunError, match=r"screen\.json: belongs to an earlier version"):
        raise_alarm(run)
    (run.stage_dir(1, "alarm") / "screen.json").unlink()
    with pytest.raises(RunError, match=r"watch/base: answers fresh prompts of an earlier version of round 1"):
        raise_alarm(run)
    shutil.rmtree(run.stage_dir(1, "alarm"))
    assert raise_alarm(run)["made_from"]["adapter"] == adapters[1].sha256
    draws = read_json_lines(run.reserve)
    assert [draw["adapter_sha256"] for draw in draws] == [adapter.sha256 for adapter in adapters]
    assert len({id_ for draw in draws for id_ in draw["prompt_ids"]}) == 8


def test_without_its_account_of_fresh_prompts_a_run_takes_no_more_of_them(run: RunDir) -> None:
    run.reserve.unlink()
    raise_alarm(run)  # nothing is drawn
    write_json(run.alarm(2), read_json(run.alarm(1)))
    run.alarm(1).unlink()
    with pytest.raises(RunError, match=r"reserve\.jsonl: lacks the prompts that round 2 drew for watch"):
        raise_alarm(run)


def test_scorers_added_later_leave_an_alarm_as_it_is(run: RunDir) -> None:
    before = run.alarm(1).read_bytes()
    measure.main(["--run_dir", str(run.path), "--add_scorers", "length"])
    raise_alarm(run)
    assert run.alarm(1).read_bytes() == before


def test_what_the_e_process_will_watch_confirms_nothing(run: RunDir) -> None:
    with opened(run) as session:
        reserve = session.alarm_prompts["reserve"].prompts
        pool = alarm._to_confirm_with(session, None)
        ledger = Reserve(run, session.seed)
        wanted = min(session.recipe.watch_prompts * session.recipe.num_rounds, len(reserve) // 2)
        assert wanted and len(pool) == len(reserve) - wanted
        watched = {id_ for draw in read_json_lines(run.reserve) for id_ in draw["prompt_ids"]}
        assert watched and watched.isdisjoint(prompt.id for prompt in pool)
        assert {prompt.id for prompt in ledger.first(reserve, wanted)}.isdisjoint(prompt.id for prompt in pool)
        some = reserve[0].slice
        assert {prompt.slice for prompt in alarm._to_confirm_with(session, some)} <= {some}


def test_a_round_that_is_trained_again_spends_another_share(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    suspicious = Hypothesis(None, (0.5,))
    monkeypatch.setattr(alarm, "hypothesis", lambda result: suspicious)
    run.alarm(1).unlink()
    shutil.rmtree(run.stage_dir(1, "alarm"))
    with opened(run) as session:
        horizon = session.recipe.horizon
    earlier = [
        {"round": 1, "purpose": "confirm-1", "adapter_sha256": str(i), "prompt_ids": []} for i in range(horizon)
    ]
    write_json_lines(run.reserve, [*read_json_lines(run.reserve), *earlier[1:]])
    assert len(raise_alarm(run)["confirmations"]) == 1, "the last share"
    run.alarm(1).unlink()
    shutil.rmtree(run.stage_dir(1, "alarm"))
    write_json_lines(run.reserve, [*read_json_lines(run.reserve), earlier[0]])
    spent = raise_alarm(run)
    assert spent["confirmations"] == [] and spent["levels"]["spent"] == horizon
    assert spent["color"] == "amber" and "a round that is trained again counts again" in " ".join(
        alarm_report(spent).split()
    )


def test_thresholds_of_one_battery_outlive_the_addition_of_another(tmp_path: Path) -> None:
    battery = "constitutions/batteries/sandbox/harm.txt"
    of_battery = {"scorers": ["likelihood"], "batteries": [battery], "headline_scorer": "likelihood.harm"}
    run = RunDir(tmp_path / "run")
    measure.main(small_run(tmp_path, **ALARMED, **of_battery))
    alarm.main(["--run_dir", str(run.path), "--round", "0"])
    other = tmp_path / "other.txt"
    harm = Path(battery).read_text()
    other.write_text(harm.replace("name: harm", "name: other"))
    measure.main(["--run_dir", str(run.path), "--add_batteries", str(other)])
    with opened(run) as session:
        (watched,) = properties_of(session)
        assert watched.scorer == "likelihood.harm"
        assert thresholds_of(session, watched) == read_json(run.alarm(0))["properties"][0]["thresholds"]


def test_thresholds_are_of_one_instrument(run: RunDir) -> None:
    record = read_json(run.alarm(0))
    record["properties"][0]["instrument"] = "the digest of another judge"
    write_json(run.alarm(0), record)
    with pytest.raises(RunError, match=r"thresholds for gold\.harm come from scores with other files or"):
        raise_alarm(run)
