"""The one rule of randomness: the seed of every random choice is a hash of what the choice is for."""

from __future__ import annotations

import hashlib


def row_seed(
    run_seed: int, stage: str, round_: int | None, prompt_id: str, sample: int, revision_index: int = 0
) -> int:
    """Seed of one sample: a 63-bit hash of the sample's identity, so that no batch, shard or rank can change it.

    ``round_`` is None where every round should draw the same noise (common random numbers: ``measure``).
    """
    return _hash("row", run_seed, stage, round_, prompt_id, sample, revision_index)


def stage_seed(run_seed: int, stage: str, round_: int) -> int:
    """Seed of a whole stage (31 bits, as numpy's and the Trainer's legacy seeding require)."""
    return _hash("stage", run_seed, stage, round_) & 0x7FFFFFFF


def _hash(*names: object) -> int:
    text = "\x1f".join(map(repr, names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
