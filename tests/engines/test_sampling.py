from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.engines.base import Sampling
from pipeline.engines.sampling import draw_tokens, gumbel_noise

MASK = (1 << 64) - 1


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def reference_noise(seed: int, step: int, token: int) -> float:
    """The same noise in Python integers: SplitMix64's finaliser over (seed, step), then over (that, token)."""
    gamma = 0x9E3779B97F4A7C15
    row = _mix((_mix(seed & MASK) + (step + 1) * gamma) & MASK)
    uniform = ((_mix((row + (token + 1) * gamma) & MASK) >> 11) + 0.5) * 2.0**-53
    return -math.log(-math.log(uniform))


def at(step: int) -> torch.Tensor:
    return torch.tensor([step])


def seeds_of(n: int, first: int = 0) -> torch.Tensor:
    return torch.arange(first, first + n, dtype=torch.int64)


@pytest.mark.parametrize(
    ("seed", "step", "token", "value"),
    [
        (0, 0, 0, 0.8509171899612388),
        (1, 0, 0, -0.08938146483571749),
        (2**63 - 1, 7, 809, 0.6646871140486258),
        (123456789, 95, 31999, -0.5927533004684634),
    ],
)
def test_golden_noise(seed: int, step: int, token: int, value: float) -> None:
    found = gumbel_noise(torch.tensor([seed]), at(step), 32000)[0, token].item()
    assert found == pytest.approx(value, abs=1e-12)


@given(st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_noise_is_splitmix64_in_counter_mode(seed: int, step: int, token: int) -> None:
    found = gumbel_noise(torch.tensor([seed]), at(step), token + 1)[0, token].item()
    assert found == pytest.approx(reference_noise(seed, step, token), rel=1e-12, abs=1e-12)


def test_noise_of_a_row_knows_no_other_rows() -> None:
    whole = gumbel_noise(seeds_of(50), at(3), 100)
    assert torch.equal(whole[[41, 7]], gumbel_noise(torch.tensor([41, 7]), at(3), 100))
    assert torch.equal(whole[:, :10], gumbel_noise(seeds_of(50), at(3), 10)), "nor how large the vocabulary is"


@pytest.mark.parametrize("axis", ["seeds", "steps", "tokens"])
def test_noise_follows_the_gumbel_law_along_every_axis(axis: str) -> None:
    noise = {
        "seeds": lambda: gumbel_noise(seeds_of(20_000), at(0), 1)[:, 0],
        "steps": lambda: torch.cat([gumbel_noise(seeds_of(1), at(step), 1)[:, 0] for step in range(5_000)]),
        "tokens": lambda: gumbel_noise(seeds_of(1), at(0), 20_000)[0],
    }[axis]()
    assert stats.kstest(noise.numpy(), stats.gumbel_r.cdf).pvalue > 0.001
    neighbours = np.corrcoef(noise[:-1].numpy(), noise[1:].numpy())[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(len(noise))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_are_exact_draws_from_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    n = 40_000
    drawn = draw_tokens(logits.expand(n, -1), seeds_of(n), at(5), Sampling(temperature, 1.0, 1))
    expected = (logits.double() / temperature).softmax(-1).numpy() * n
    assert stats.chisquare(np.bincount(drawn.numpy(), minlength=6), expected).pvalue > 0.001


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=8), st.floats(0.05, 0.99))
@settings(max_examples=40, deadline=None)
def test_top_p_keeps_exactly_the_nucleus(logits: list[float], top_p: float) -> None:
    # The smallest set of likeliest tokens whose mass reaches top_p, written out token by token.
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    p = torch.tensor(logits, dtype=torch.float64).softmax(-1).tolist()
    if any(abs(p[a] - p[b]) < 1e-9 for a, b in pairwise(order)):
        return  # of equally likely tokens either may be in
    nucleus, mass = set(), 0.0
    for i in order:
        if abs(mass - top_p) < 1e-9:
            return  # rounding decides
        if mass >= top_p:
            break
        nucleus.add(i)
        mass += p[i]
    n = 4_000
    drawn = draw_tokens(
        torch.tensor(logits, dtype=torch.float64).expand(n, -1), seeds_of(n), at(0), Sampling(1.0, top_p, 1)
    )
    assert set(drawn.tolist()) <= nucleus
    assert {i for i in nucleus if p[i] / mass > 0.01} <= set(drawn.tolist())


def test_top_p_renormalises_inside_the_nucleus() -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    n = 40_000
    drawn = draw_tokens(p.log().expand(n, -1), seeds_of(n), at(0), Sampling(1.0, 0.65, 1))
    assert stats.chisquare(np.bincount(drawn.numpy(), minlength=2), np.array([4, 3]) / 7 * n).pvalue > 0.001


def test_a_batch_in_pieces_is_drawn_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, seeds = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)), seeds_of(50)
    for sampling in (Sampling(1.0, 1.0, 1), Sampling(0.7, 0.8, 1)):
        whole = draw_tokens(logits, seeds, seeds, sampling)
        for at_once in (1, 100, 750):
            monkeypatch.setattr("pipeline.engines.sampling._ON_CPU", at_once)
            assert torch.equal(draw_tokens(logits, seeds, seeds, sampling), whole)
        assert torch.equal(seeds, seeds_of(50)), "the seeds are not hashed in place"


def test_temperature_zero_is_argmax_whatever_the_seed() -> None:
    logits = torch.randn(64, 30, generator=torch.Generator().manual_seed(0))
    for first in (0, 10**12):
        drawn = draw_tokens(logits, seeds_of(64, first), at(0), Sampling(0.0, 0.3, 1))
        assert torch.equal(drawn, logits.argmax(-1))


def test_policies_that_nearly_agree_draw_the_same_tokens() -> None:
    # Common random numbers: what a comparison of rounds under the same noise rests on.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5_000, 50, generator=generator)
    moved = logits + 0.01 * torch.randn(5_000, 50, generator=generator)
    one, other = (draw_tokens(side, seeds_of(5_000), at(0), Sampling(1.0, 1.0, 1)) for side in (logits, moved))
    assert (one == other).float().mean() > 0.98
    independent = draw_tokens(moved, seeds_of(5_000, 10**9), at(0), Sampling(1.0, 1.0, 1))
    assert (one == independent).float().mean() < 0.2
