"""Rows of samples -> rows of scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from pipeline.scorers.base import PromptScorer, Sample, SampledPrompt, Score, Scorer

Row = dict[str, Any]


def score_rows(rows: Sequence[Row], scorers: Sequence[Scorer | PromptScorer]) -> list[Row]:
    """Score sampled answers.

    Args:
        rows: of a table of samples; all samples of a prompt stand together.
        scorers: to apply, one after another.

    Returns:
        A row a sample and column, and a row a prompt and column for what is scored by the prompt; such a row stands
        at the prompt's first sample. A sample without a usable answer has a null score with the reason.
    """
    found: list[Row] = []
    for scorer in scorers:
        found += _by_prompt(rows, scorer) if isinstance(scorer, PromptScorer) else _by_sample(rows, scorer)
    return found


def _by_sample(rows: Sequence[Row], scorer: Scorer) -> Iterator[Row]:
    usable = [row for row in rows if _is_usable(row)]
    for column, scores in scorer([_sample(row) for row in usable]).items():
        of = {id(row): score for row, score in zip(usable, scores, strict=True)}
        for row in rows:
            yield _scored(row, column, of.get(id(row), Score(None, row["drop_reason"])))


def _by_prompt(rows: Sequence[Row], scorer: PromptScorer) -> Iterator[Row]:
    for _, of_set in groupby(rows, key=lambda row: row["probe_set"]):
        together = [list(group) for _, group in groupby(of_set, key=lambda row: row["prompt_id"])]
        prompts = [
            SampledPrompt(group[0]["prompt"], group[0]["slice"], [_sample(row) for row in group if _is_usable(row)])
            for group in together
        ]
        for column, scores in scorer.score_prompts(prompts).items():
            for group, score in zip(together, scores, strict=True):
                if score is not None:
                    yield _scored(group[0], column, score)


def _is_usable(row: Row) -> bool:
    return row["drop_reason"] in (None, "empty")


def _sample(row: Row) -> Sample:
    return Sample(
        row["prompt"], row["response"], row["token_ids"], row["slice"], row["probe_set"], row["finish_reason"]
    )


def _scored(row: Row, column: str, score: Score) -> Row:
    kept = {name: row[name] for name in ("prompt_id", "sample", "probe_set", "slice")}
    return {**kept, "scorer": column, "score": score.value, "reason": score.reason}
