"""Drawing tokens with noise that belongs to a row: the same row gets the same noise in any batch, on any device."""

from __future__ import annotations

import torch

from pipeline.engines.base import Sampling

# Constants of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"),
# written as the signed integers that torch's int64 holds.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)

_ON_CPU, _ELSEWHERE = 1 << 18, 1 << 25
"""Logits dealt with at once: what a processor's cache holds, or what keeps a GPU busy in bounded memory."""


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Hash every element, in place."""
    x ^= _shift_right(x, 30)
    x *= _MIX_1
    x ^= _shift_right(x, 27)
    x *= _MIX_2
    x ^= _shift_right(x, 31)
    return x


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    shifted = x >> bits
    shifted &= (1 << (64 - bits)) - 1  # torch shifts int64 arithmetically
    return shifted


def gumbel_noise(seeds: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise of shape [rows, vocabulary] in float64, a pure function of (seed, step, token).

    ``seeds`` and ``steps`` are int64 [rows]. A hash in counter mode: no state to save, no order to keep.
    """
    tokens = torch.arange(1, vocabulary + 1, device=seeds.device, dtype=torch.int64)
    row = _mix(_mix(seeds.clone()) + (steps + 1) * _GAMMA)  # tensors wrap where Python's integers would grow
    bits = _mix(row[:, None] + tokens * _GAMMA)
    uniform = _shift_right(bits, 11).double()
    uniform += 0.5
    uniform *= 2.0**-53
    return uniform.log_().neg_().log_().neg_()


def draw_tokens(logits: torch.Tensor, seeds: torch.Tensor, steps: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One token per row, int64 [rows], from ``logits`` [rows, vocabulary]; ``seeds`` and ``steps`` are int64 [rows].

    Gumbel-max: the argmax of the scaled logits plus the row's noise is an exact draw from the softmax, and two
    policies that share a row's seed draw the same token wherever they nearly agree (common random numbers).
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    at_once = _ON_CPU if logits.device.type == "cpu" else _ELSEWHERE
    rows = max(at_once // logits.shape[-1], 1)
    pieces = zip(logits.split(rows), seeds.split(rows), steps.split(rows), strict=True)
    return torch.cat([_draw(*piece, sampling) for piece in pieces])


def _draw(logits: torch.Tensor, seeds: torch.Tensor, steps: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    scaled = logits.double() / sampling.temperature
    if sampling.top_p < 1:
        scaled = _keep_nucleus(scaled, sampling.top_p)
    return scaled.add_(gumbel_noise(seeds, steps, logits.shape[-1])).argmax(dim=-1)


def _keep_nucleus(scaled: torch.Tensor, top_p: float) -> torch.Tensor:
    # Holtzman et al. 2020: the smallest set of likeliest tokens whose mass reaches top_p.
    ordered, order = scaled.sort(dim=-1, descending=True)
    mass = ordered.softmax(dim=-1)
    mass_before = mass.cumsum(dim=-1) - mass
    ordered.masked_fill_(mass_before >= top_p, float("-inf"))
    return torch.empty_like(scaled).scatter_(-1, order, ordered)
