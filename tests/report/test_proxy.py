from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.report.proxy import Judged, judged_of, proxy_record, proxy_report


def answers(n: int, objects: float, gold: np.ndarray, seed: int) -> list[Judged]:
    rng = np.random.default_rng(seed)
    return [Judged(f"{i:04d}", bool(rng.random() < objects), float(gold[i])) for i in range(n)]


def record(now: list[Judged], base: list[Judged], kl: float | None = 0.25) -> dict[str, Any]:
    found = proxy_record(now, base, gold="gold.harm", bad_beyond=0.0, kl=kl)
    assert found is not None
    return found


BASE_GOLD = np.random.default_rng(0).exponential(1.0, 600) - 1.0


def test_what_is_said_of_the_base_itself() -> None:
    base = answers(600, 0.6, BASE_GOLD, 1)
    found = record(base, base, kl=0.0)
    assert found["sqrt_kl"] == 0.0 and found["apart"] is None
    assert found["objections"]["value"] == pytest.approx(np.mean([one.objects for one in base]))
    assert found["gold.mean"]["value"] == pytest.approx(BASE_GOLD.mean())
    assert found["gold.cvar_1pct"]["value"] == pytest.approx(np.sort(BASE_GOLD)[-6:].mean())
    assert found["gold.mean.change"]["value"] == 0.0
    passed = [one for one in base if not one.objects]
    assert found["n_passed"] == len(passed)
    assert found["confidently_wrong"]["value"] == pytest.approx(np.mean([one.gold > 0 for one in passed]))
    assert found["severe"]["value"] <= 0.01


def test_a_better_bulk_with_a_worse_tail_parts_at_the_tail_alone() -> None:
    base = answers(600, 0.6, BASE_GOLD, 1)
    gold = BASE_GOLD - 0.5
    gold[:6] = 12.0
    found = record(answers(600, 0.2, gold, 2), base)
    assert found["sqrt_kl"] == 0.5
    assert found["apart"] == "at the tail"
    assert found["objections.change"]["high"] < 0 and found["gold.mean.change"]["value"] < 0
    assert found["severe"]["value"] == pytest.approx((gold > found["severe_beyond"]).mean()) and gold[6] < 12
    assert 6 <= (gold > found["severe_beyond"]).sum() < 12
    gold = BASE_GOLD + 0.5
    assert record(answers(600, 0.2, gold, 2), base)["apart"] == "at the mean and at the tail"


def test_they_do_not_part_where_gold_follows_or_the_critic_is_no_happier() -> None:
    base = answers(600, 0.6, BASE_GOLD, 1)
    assert record(answers(600, 0.2, BASE_GOLD - 0.5, 2), base)["apart"] is None
    assert record(answers(600, 0.6, BASE_GOLD + 3, 2), base)["apart"] is None


def test_a_score_that_says_yes_or_no_has_no_severe_part() -> None:
    gold = (np.arange(600) % 10 == 0).astype(float)
    base = answers(600, 0.5, gold, 1)
    found = record(base, base)
    assert "severe" not in found and found["severe_beyond"] is None
    assert found["bad"]["value"] == pytest.approx(0.1)


def test_first_answers_with_a_critique_and_a_gold_score() -> None:
    made = {"sample": 0, "revision_index": 0, "critique": "no fault .", "score": 1.0}
    rows = [
        {**made, "prompt_id": "b", "critique": "it breaks the rule ."},
        {**made, "prompt_id": "a"},
        {**made, "prompt_id": "a", "revision_index": 1, "critique": "it breaks the rule ."},
        {**made, "prompt_id": "c", "critique": None},
        {**made, "prompt_id": "d", "score": None},
    ]
    assert judged_of(rows, lambda row: row["score"]) == [Judged("a", False, 1.0), Judged("b", True, 1.0)]
    assert proxy_record([], [], gold="g", bad_beyond=0, kl=None) is None


def test_the_table_has_every_policy_and_says_where_they_part() -> None:
    base = answers(600, 0.6, BASE_GOLD, 1)
    gold = BASE_GOLD - 0.5
    gold[:6] = 12.0
    rounds = [(0, record(base, base, kl=0.0)), (1, record(answers(600, 0.2, gold, 2), base))]
    panel = {r: {"mean": 0.1 * r, "cvar_1pct": None, "kl": 0.04 * r} for r in range(3)}
    lines = proxy_report(rounds, panel).split("\n")
    assert [line.split()[:3] for line in lines[2:]] == [
        ["round", "0", "0"],
        ["round", "1", "0.5"],
        ["round", "2", "0.283"],
    ]
    assert lines[3].endswith("apart at the tail") and "no critic has met it" in lines[4]
    assert proxy_report([], panel) == ""
