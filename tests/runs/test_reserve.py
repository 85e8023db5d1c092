from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RunError
from pipeline.runs.files import read_json_lines
from pipeline.runs.reserve import Reserve
from pipeline.runs.rundir import RunDir


class Fresh(NamedTuple):
    id: str


PROMPTS = [Fresh(f"p{i:02d}") for i in range(40)]
SEED = 3
POLICY = "digest of an adapter"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def ids(drawn: list[Fresh]) -> list[str]:
    return [prompt.id for prompt in drawn]


# Overlapping pools: any stretch of the prompts, in any order.
pools = st.sets(st.sampled_from(PROMPTS)).map(sorted).flatmap(st.permutations)
draws = st.lists(st.tuples(pools, st.integers(0, 15)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(draws)
def test_no_prompt_is_drawn_twice(sequence: list[tuple[list[Fresh], int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        used: set[str] = set()
        for round_, (pool, wanted) in enumerate(sequence, 1):
            free = {prompt.id for prompt in pool} - used
            drawn = ids(Reserve(run, SEED).draw(round_, "confirm-1", POLICY, pool, wanted))
            assert len(set(drawn)) == len(drawn) == min(wanted, len(free))
            assert set(drawn) <= free
            used |= set(drawn)
        recorded = [id_ for entry in read_json_lines(run.reserve) for id_ in entry["prompt_ids"]]
        assert sorted(recorded) == sorted(used)


@settings(max_examples=30, deadline=None)
@given(st.permutations(PROMPTS), st.integers(1, 20), st.integers(0, 20))
def test_a_draw_is_repeated_after_a_kill_whatever_came_between(
    shuffled: list[Fresh], wanted: int, wanted_again: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        first = Reserve(run, SEED).draw(1, "confirm-1", POLICY, PROMPTS, wanted)
        other = Reserve(run, SEED).draw(1, "watch", POLICY, PROMPTS, 5)
        # As a new launch does it: another object, the pool in another order, another ration.
        assert Reserve(run, SEED).draw(1, "confirm-1", POLICY, shuffled, wanted_again) == first
        assert Reserve(run, SEED).draw(1, "watch", POLICY, shuffled, wanted_again) == other
        assert len(read_json_lines(run.reserve)) == 2


@settings(max_examples=30, deadline=None)
@given(st.permutations(PROMPTS), st.integers(1, 40))
def test_the_order_of_the_pool_is_no_matter(shuffled: list[Fresh], wanted: int) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        left = Reserve(RunDir(Path(one)), SEED).draw(1, "watch", POLICY, PROMPTS, wanted)
        right = Reserve(RunDir(Path(two)), SEED).draw(1, "watch", POLICY, shuffled, wanted)
    assert left == right


def test_the_seed_decides_what_is_drawn_and_not_the_file_s_order(tmp_path: Path) -> None:
    drawn = [
        ids(Reserve(RunDir(tmp_path / str(seed)), seed).draw(1, "watch", POLICY, PROMPTS, 10)) for seed in range(5)
    ]
    assert len({tuple(one) for one in drawn}) == 5
    assert all(sorted(one) != ids(PROMPTS[:10]) for one in drawn)


def test_round_and_purpose_both_make_a_draw_of_its_own(run: RunDir) -> None:
    reserve = Reserve(run, SEED)
    drawn = [
        ids(reserve.draw(round_, purpose, POLICY, PROMPTS, 10))
        for round_, purpose in [(1, "confirm-1"), (1, "confirm-2"), (2, "confirm-1")]
    ]
    assert len({id_ for one in drawn for id_ in one}) == 30


def test_a_round_that_is_trained_again_gets_prompts_that_its_first_training_did_not_see(run: RunDir) -> None:
    reserve = Reserve(run, SEED)
    first = reserve.draw(1, "watch", POLICY, PROMPTS, 10)
    other = reserve.draw(1, "watch", "another adapter", PROMPTS, 10)
    assert not set(first) & set(other)
    assert reserve.draw(1, "watch", "another adapter", PROMPTS, 10) == other
    assert reserve.draw(1, "watch", POLICY, PROMPTS, 10) == first, "no other policy has seen them"
    assert len(read_json_lines(run.reserve)) == 2 and len(reserve.left(PROMPTS)) == 20


def test_a_ledger_that_lost_a_draw_is_refused(run: RunDir) -> None:
    reserve = Reserve(run, SEED)
    reserve.draw(1, "watch", POLICY, PROMPTS, 3)
    reserve.require([(1, "watch")])
    with pytest.raises(RunError, match=r"reserve\.jsonl: lacks the prompts that round 2 drew for watch.*Restore"):
        reserve.require([(1, "watch"), (2, "watch")])


def test_running_out_gives_fewer_and_then_none(run: RunDir) -> None:
    reserve = Reserve(run, SEED)
    sizes = [len(reserve.draw(round_, "watch", POLICY, PROMPTS[:10], 4)) for round_ in range(1, 6)]
    assert sizes == [4, 4, 2, 0, 0]
    # A draw that gave nothing is spent as well: prompts that are added later are not for it.
    assert reserve.draw(4, "watch", POLICY, PROMPTS, 4) == []


def test_left_is_what_nothing_has_used_in_the_order_of_the_pool(run: RunDir) -> None:
    reserve = Reserve(run, SEED)
    assert reserve.left(PROMPTS) == PROMPTS
    drawn = reserve.draw(1, "confirm-1", POLICY, PROMPTS[:20], 7) + reserve.draw(1, "watch", POLICY, PROMPTS, 5)
    assert reserve.left(PROMPTS) == [prompt for prompt in PROMPTS if prompt not in drawn]
    assert len(reserve.left(PROMPTS)) == 28
    assert reserve.left([prompt for prompt in PROMPTS if prompt in drawn]) == []


def test_the_ledger_has_a_line_a_draw_before_the_prompts_are_given_out(run: RunDir) -> None:
    reserve = Reserve(run, SEED)
    assert not run.reserve.exists()
    first = reserve.draw(1, "confirm-1", POLICY, PROMPTS, 3)
    second = reserve.draw(1, "watch", POLICY, PROMPTS, 2)
    assert read_json_lines(run.path / "reserve.jsonl") == [
        {"round": 1, "purpose": "confirm-1", "adapter_sha256": POLICY, "prompt_ids": ids(first)},
        {"round": 1, "purpose": "watch", "adapter_sha256": POLICY, "prompt_ids": ids(second)},
    ]


def test_what_cannot_be_written_down_is_not_given_out(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pipeline.runs.reserve.write_json_lines", full)
    with pytest.raises(OSError, match="no space left"):
        Reserve(run, SEED).draw(1, "watch", POLICY, PROMPTS, 3)
    assert Reserve(run, SEED).left(PROMPTS) == PROMPTS


def test_a_reserve_that_lost_what_was_drawn_is_refused(tmp_path: Path) -> None:
    run, pool = RunDir(tmp_path), PROMPTS[:6]
    drawn = Reserve(run, 0).draw(1, "watch", POLICY, pool, 2)
    left = [prompt for prompt in pool if prompt not in drawn]
    with pytest.raises(RunError, match=r"reserve.jsonl: round 1 drew 2 prompts for watch"):
        Reserve(run, 0).draw(1, "watch", POLICY, left, 2)
    assert len(Reserve(run, 0).draw(2, "watch", POLICY, left, 2)) == 2
