"""Servers that do not answer, or refuse the key, are told of before anything is begun."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import Api, completion
from small_run import small_run

from pipeline import command, iterate, measure
from pipeline.engines.base import Completion
from pipeline.engines.kept import KeptAnswers
from pipeline.errors import EngineError
from pipeline.runs.files import write_json, write_text
from pipeline.setup.reaching import reach_servers


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api("someone")
    yield made
    made.close()


@pytest.fixture
def closed() -> str:
    """The address of a server that is gone."""
    gone = Api("someone")
    gone.close()
    return f"{gone.url}#m"


def flags(folder: Path, judge: str, *extra: str) -> list[str]:
    template = "constitutions/templates/sandbox/judge.jinja"
    judging = {"judge": judge, "judge_template": template, "judge_votes": 1, "judge_retest": 0}
    return [*small_run(folder, scorers=["length", "judge:sandbox/hedging"], **judging), *extra]


def test_a_judge_that_is_gone_is_told_of_before_the_run_begins(tmp_path: Path, closed: str) -> None:
    with pytest.raises(EngineError, match=r"^judge: http://127.*connection failed"):
        iterate.main(flags(tmp_path, closed))
    assert not (tmp_path / "run").exists(), "the corrected address needs no amendment"


def test_a_key_that_is_rejected_is_told_of_before_the_run_begins(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.list_status = 401
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with pytest.raises(EngineError, match=r"^judge: .*rejects the key \(401\)") as raised:
        iterate.main(flags(tmp_path, f"{api.url}#m", "--api_keys", f"{api.host}=JUDGE_KEY"))
    assert "sk-secret" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_its_plan_and_then_asks_the_servers(
    tmp_path: Path, closed: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    with caplog.at_level(logging.INFO, "pipeline"), pytest.raises(EngineError, match=r"^judge: "):
        iterate.main(flags(tmp_path, closed, "--dry_run"))
    assert "rows per round" in caplog.text
    assert not (tmp_path / "run").exists()


def test_a_finished_run_and_a_single_stage_need_no_server(tmp_path: Path, api: Api) -> None:
    api.answer = lambda body: (200, completion(body, text="no fault"))
    argv = flags(tmp_path, f"{api.url}#m")
    iterate.main(argv)
    api.close()
    iterate.main(argv)
    measure.main([*argv, "--round", "0"])


@pytest.mark.parametrize(("trained", "needed"), [([], True), ([1], True), ([1, 2], False)])
def test_a_critic_is_asked_for_as_long_as_a_round_is_to_be_trained(
    tmp_path: Path, api: Api, trained: list[int], needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, critic = f"{api.url}#m", f"{api.url}#critic"
    argv = flags(tmp_path, judge, "--num_rounds", "2", "--critic", critic)
    session = command.check_session(command.parse(argv, iterate.IterateOptions))
    for round_ in trained:
        manifest = session.run.stage_dir(round_, "distill") / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
    asked: list[str] = []
    monkeypatch.setattr(session.roles, "reach", asked.append)
    reach_servers(session)
    assert asked == [*([critic, "policy"] if needed else []), judge]


@pytest.mark.parametrize(
    ("finished", "on_alarm", "needed"),
    [
        ([], "warn", True),
        ([0], "warn", True),
        ([0, 1], "warn", True),
        ([0, 1], "stop", False),
        ([0, 1, 2], "warn", False),
    ],
)
def test_the_policy_is_asked_for_as_long_as_a_round_is_left(
    tmp_path: Path, api: Api, finished: list[int], on_alarm: str, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = f"{api.url}#m"
    extra = ["--policy_engine", "server", "--policy_endpoints", server, "--num_rounds", "2", "--on_alarm", on_alarm]
    session = command.check_session(command.parse(flags(tmp_path, server, *extra), iterate.IterateOptions))
    for round_ in finished:
        write_json(session.run.alarm(round_), {"color": "red" if round_ else "green"})
        write_text(session.run.done(round_), "")
    asked: list[str] = []
    monkeypatch.setattr(session.roles, "reach", asked.append)
    reach_servers(session)
    assert ("policy" in asked, server in asked) == (needed, needed)


def test_after_an_amendment_no_server_answers_from_before_it(tmp_path: Path, api: Api) -> None:
    api.answer = lambda body: (200, completion(body, text="no fault"))
    argv = flags(tmp_path, f"{api.url}#m")
    session = command.open_session(command.parse(argv, iterate.IterateOptions), argv, reaching=True)
    kept = KeptAnswers(session.run.answers, 0, 1)
    kept.add("question", Completion("under the old template", [], "stop", 3))
    session.close()
    assert KeptAnswers(session.run.answers, 0, 1).take("question") is not None
    argv += ["--judge_votes", "2", "--amend", "another judge"]
    session = command.open_session(command.parse(argv, iterate.IterateOptions), argv, reaching=True)
    assert session.roles._serving.kept is not None and session.roles._serving.kept.take("question") is None
    session.close()
