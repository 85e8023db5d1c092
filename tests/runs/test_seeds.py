from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runs.seeds import row_seed, stage_seed

NAMES = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["generate", "measure", "critique"]),
    st.none() | st.integers(0, 3),
    st.text(max_size=3),
    st.integers(0, 3),
    st.integers(0, 3),
)


def test_golden_values() -> None:
    # A change here changes every sample of every run: old runs could no longer be continued or compared.
    assert row_seed(0, "generate", 1, "p", 0) == 318079160234346244
    assert row_seed(0, "measure", None, "p", 0) == 7057123030675049609
    assert row_seed(7, "revision", 3, "0123abcd", 5, 2) == 1169720477987526328
    assert stage_seed(0, "distill", 1) == 497050555


def test_every_name_matters() -> None:
    base = (0, "generate", 1, "p", 0, 0)
    changed = [
        (1, "generate", 1, "p", 0, 0),
        (0, "refine", 1, "p", 0, 0),
        (0, "generate", 2, "p", 0, 0),
        (0, "generate", None, "p", 0, 0),
        (0, "generate", 1, "q", 0, 0),
        (0, "generate", 1, "p", 1, 0),
        (0, "generate", 1, "p", 0, 1),
    ]
    assert len({row_seed(*names) for names in [base, *changed]}) == 8


def test_a_large_run_has_no_two_equal_seeds() -> None:
    seeds = [
        row_seed(0, stage, round_, f"p{prompt}", sample, revision)
        for stage in ("generate", "critique", "revision")
        for round_ in (1, 2, 3)
        for prompt in range(300)
        for sample in range(4)
        for revision in range(4)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds), "int64 holds them"
    # Uniform in the top bit as in the lowest: nothing was masked away.
    for bit in (0, 31, 62):
        share = sum(seed >> bit & 1 for seed in seeds) / len(seeds)
        assert abs(share - 0.5) < 0.02


@given(NAMES, NAMES)
def test_seeds_are_equal_only_for_equal_names(one: tuple, other: tuple) -> None:
    assert (row_seed(*one) == row_seed(*other)) == (one == other)


def test_names_are_not_glued_together() -> None:
    assert row_seed(0, "a", 1, "b", 0) != row_seed(0, "a", 1, "b\x1f0", 0)
    assert row_seed(0, "measure", None, "p", 1, 2) != row_seed(0, "measure", None, "p1", 2)
    assert row_seed(0, "1", 1, "p", 0) != row_seed(0, "", 11, "p", 0)


def test_stage_seeds_suit_numpy_and_the_trainer() -> None:
    seeds = {stage_seed(run, stage, r) for run in range(10) for stage in ("distill", "helpful") for r in range(10)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
