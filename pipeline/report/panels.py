"""Score tables of a run as the arrays that statistics read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runs.tables import read_table


class Panel(NamedTuple):
    """One scorer on one set of prompts.

    Attributes:
        prompt_ids: ids of the prompts, sorted.
        slices: slices of the prompts, in the same order.
        scores: scores, [n_prompts, k]; NaN where there is none.
    """

    prompt_ids: list[str]
    slices: list[str]
    scores: np.ndarray


def read_panel(scores: Path, column: str, probe_set: str) -> Panel:
    """The scores of one column on one probe set.

    Raises:
        RunError: the file is missing or damaged.
    """
    table = read_table(scores)
    return to_panel(table.filter((pc.field("scorer") == column) & (pc.field("probe_set") == probe_set)))


def to_panel(table: pa.Table) -> Panel:
    """Rows of one column and probe set as an array; a prompt's samples are in the order of their numbers."""
    ids, first, row_of = np.unique(
        np.asarray(table["prompt_id"].to_pylist(), dtype=object).astype(str), return_index=True, return_inverse=True
    )
    sample = table["sample"].to_numpy()
    scores = np.full((len(ids), int(sample.max(initial=-1)) + 1), np.nan)
    scores[row_of, sample] = table["score"].to_numpy(zero_copy_only=False).astype(float)
    slices = table["slice"].to_pylist()
    return Panel(list(ids), [slices[i] for i in first], scores)


def as_panel(prompt_ids: Sequence[str], values: Sequence[float]) -> np.ndarray:
    """Values by prompt, [n_prompts, k], prompts in order of appearance; NaN where one has fewer values than others."""
    by_prompt: dict[str, list[float]] = {}
    for prompt_id, value in zip(prompt_ids, values, strict=True):
        by_prompt.setdefault(prompt_id, []).append(float(value))
    panel = np.full((len(by_prompt), max(map(len, by_prompt.values()), default=1)), np.nan)
    for i, own in enumerate(by_prompt.values()):
        panel[i, : len(own)] = own
    return panel
