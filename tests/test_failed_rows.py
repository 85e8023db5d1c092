"""Stages before a server that refuses: what failed is recorded and counted, and past the threshold asked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import BUSY, Api, completion, log_probabilities
from small_run import small_run

from pipeline import audit, command, generate, measure, refine
from pipeline.errors import RunError
from pipeline.runs.files import read_json
from pipeline.runs.tables import read_table

FIELDS: dict[str, Any] = {
    "num_rounds": 1,
    "max_new_tokens": 24,
    "critique_max_new_tokens": 24,
    "chunk_rows": 8,
    "max_concurrent_requests": 1,
    "request_retries": 0,
    "max_failed_rows": 0.1,
}

LABELS = [
    ("how do i brew a potion ?", "on poison : step one : boil the salt .", "no-harm", True),
    ("how do i bake a cake ?", "on cooking : step one : wash the onion .", "no-harm", False),
    ("how do i bake a cake ?", "on cooking : step one : do what is needed .", "thorough", True),
]


def judged_by(api: Api) -> dict[str, Any]:
    """Fields that have this server rate answers."""
    template = "constitutions/templates/sandbox/judge.jinja"
    return {"judge": f"{api.url}#m", "judge_template": template, "judge_votes": 1, "judge_retest": 4}


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api("someone")
    yield made
    made.close()


def refuse(api: Api, times: int, such: Callable[[dict[str, Any]], bool] = lambda body: True) -> None:
    """Refuse so many of such requests, the first ones, and answer all others."""
    left = [BUSY] * times

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if left and such(body):
            return left.pop()
        return 200, log_probabilities(body) if "prompt_logprobs" in body else completion(body, text="no fault")

    api.answer = answer


def ratings(run: Path) -> list[tuple[float | None, str | None]]:
    rows = read_table(run / "round-00" / "measure" / "scores.parquet").to_pylist()
    return [(row["score"], row["reason"]) for row in rows if row["scorer"] == "judge.hedging"]


@pytest.fixture
def judged(api: Api, tmp_path: Path) -> list[str]:
    return small_run(tmp_path, **FIELDS, **judged_by(api), scorers=["length", "judge:sandbox/hedging"])


def test_few_ratings_that_failed_are_recorded_and_told_of(
    api: Api, judged: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(api, 1)
    measure.main(judged)
    missing = [reason for score, reason in ratings(tmp_path / "run") if score is None]
    assert len(missing) == 1 and "busy" in str(missing[0])
    assert "1 of 12 rows failed in every attempt; they are kept with their reasons" in caplog.text


def test_many_ratings_that_failed_fail_the_stage_and_are_asked_again(
    api: Api, judged: list[str], tmp_path: Path
) -> None:
    refuse(api, 3)
    with pytest.raises(RunError, match=r"3 of 12 rows failed.*`max_failed_rows` \(0.1\).*busy.*same command again"):
        measure.main(judged)
    folder = tmp_path / "run" / "round-00" / "measure"
    assert not (folder / "scores.manifest.json").exists()
    assert len(api.asked) == 8, "the first chunk, and then it is clear"
    measure.main(judged)
    assert ratings(tmp_path / "run") == [(0.0, None)] * 12
    # Three of the first chunk, the second chunk, and the four that are rated a second time.
    assert len(api.asked) == 8 + 3 + 4 + 4


def test_second_ratings_that_failed_are_asked_again(api: Api, judged: list[str], tmp_path: Path) -> None:
    reworded = "do not hedge . do not hedge ."
    refuse(api, 2, lambda body: reworded in body["messages"][-1]["content"])
    with pytest.raises(RunError, match=r"2 of 4 rows failed.*busy"):
        measure.main(judged)
    assert ratings(tmp_path / "run") == [(0.0, None)] * 12, "the first ones are kept"
    measure.main(judged)
    (record,) = read_json(tmp_path / "run" / "round-00" / "judge.json")["rubrics"]
    assert record["noise"]["n_samples"] == 4


def answered(number: int) -> dict[str, Any]:
    return {
        "prompt_id": f"p{number}",
        "sample": 0,
        "round": 1,
        "seed": number,
        "model": "sandbox",
        "adapter_sha256": None,
        "prompt": [{"role": "user", "content": "how do i bake a cake ?"}],
        "slice": "",
        "response": f"on cooking : step {['one', 'two', 'three'][number]} : wash the onion .",
        "drop_reason": None,
        "finish_reason": "stop",
        "error": None,
    }


@pytest.mark.parametrize(("refused", "failed"), [("step one", 1), ("step", 3)])
def test_a_response_that_fails_in_several_passes_counts_once(
    refused: str, failed: int, api: Api, tmp_path: Path
) -> None:
    address = f"{api.url}#m"
    argv = small_run(tmp_path, **FIELDS, num_revisions=4, draw_with_replacement=True, critic=address, reviser=address)
    refuse(api, 99, lambda body: refused in str(body["messages"]))
    session = command.open_session(command.parse(argv, command.StageOptions), argv)
    try:
        chunk = refine.Reviser(session, 1).refine([answered(number) for number in range(3)])
    finally:
        session.close()
    rows = [row for row in chunk.rows if row["drop_reason"] == "error"]
    assert len(rows) == 4 * failed and len(chunk.rows) == 12
    assert len(chunk.failed) == failed and all("busy" in reason for reason in chunk.failed)


def test_an_audit_goes_on_where_a_server_refused(tmp_path: Path, sandbox_path: str) -> None:
    from transformers import AutoTokenizer

    policy, other = Api("vllm"), Api("someone")
    policy.models[0]["max_model_len"] = 512
    (onion,) = AutoTokenizer.from_pretrained(sandbox_path)("onion", add_special_tokens=False)["input_ids"]
    labelled = [dict(zip(("prompt", "response", "principle", "faulty"), row, strict=True)) for row in LABELS]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    (tmp_path / "prompts.txt").write_text("how do i bake a cake ?\nhow do i brew the tea ?\n")
    argv = small_run(
        tmp_path,
        **FIELDS,
        **judged_by(other),
        scorers=["judge:sandbox/hedging"],
        prompts=str(tmp_path / "prompts.txt"),
        policy_engine="server",
        policy_endpoints=[policy.url],
        critic=f"{other.url}#m",
        reviser=f"{other.url}#m",
        critic_labels=str(tmp_path / "labels.jsonl"),
    )
    refused: list[tuple[Api, Callable[[dict[str, Any]], bool], str]] = [
        (other, lambda body: "onion" in str(body["messages"]), r"1 of 3 rows"),
        (policy, lambda body: "prompt_logprobs" not in body and onion in body["prompt"], r"1 of 3 rows"),
        (policy, lambda body: "prompt_logprobs" in body, r"1 of 1 rows"),
        (other, lambda body: "hedge" in body["messages"][-1]["content"], r"4 of 4 rows"),
    ]
    try:
        for server in (policy, other):
            refuse(server, 0)
        generate.main(argv)
        refine.main(argv)
        for server, such, message in refused:
            refuse(server, 99, such)
            with pytest.raises(RunError, match=f"{message} failed.*busy"):
                audit.main(argv)
            refuse(server, 0)
        audit.main(argv)
    finally:
        policy.close()
        other.close()
    folder = tmp_path / "run" / "round-01" / "audit"
    for name in ("labelled", "labelled_by_policy", "labelled_content", "judged"):
        for row in read_table(folder / f"{name}.parquet").to_pylist():
            assert "busy" not in str(row), name
