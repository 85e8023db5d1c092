"""Rows of samples, and questions -> rows of scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from pipeline.engines.base import Failed
from pipeline.inputs.question_sets import Item
from pipeline.scorers.base import PromptScorer, QuestionScorer, Sample, SampledPrompt, Score, Scorer

Row = dict[str, Any]


def score_rows(rows: Sequence[Row], scorers: Sequence[Scorer | PromptScorer]) -> list[Row]:
    """Score sampled answers.

    Args:
        rows: rows of a table of samples; all samples of a prompt must be adjacent.
        scorers: scorers to apply, one after another.

    Returns:
        One row per sample and column, and one row per prompt and column for what is scored by prompt; such a row is
        filed under the prompt's first sample. A sample without a usable answer has a null score with the reason.
    """
    found: list[Row] = []
    for scorer in scorers:
        found += _by_prompt(rows, scorer) if isinstance(scorer, PromptScorer) else _by_sample(rows, scorer)
    return found


def score_asked(asked: Sequence[tuple[QuestionScorer, Item]]) -> list[Row]:
    """Score questions, each with the scorer that asks it; those of one scorer must be adjacent.

    Returns:
        One row per question and column, as the first sample of a prompt in a probe set with the question set's name.
    """
    found = []
    for _, group in groupby(asked, key=lambda pair: id(pair[0])):
        pairs = list(group)
        scorer, items = pairs[0][0], [item for _, item in pairs]
        for column, scores in scorer.score_questions(items).items():
            for item, score in zip(items, scores, strict=True):
                if score is not None:
                    row = {"prompt_id": item.id, "sample": 0, "probe_set": scorer.questions.name, "slice": item.slice}
                    found.append(_scored(row, column, score))
    return found


def failed_items(rows: Sequence[Row]) -> list[str]:
    """A reason for every sample or question of which a score failed in every attempt, from their rows of scores.

    A score of a prompt counts once, as it stands at the prompt's first sample.
    """
    failed = [row for row in rows if isinstance(row["reason"], Failed)]
    return list({(row["probe_set"], row["prompt_id"], row["sample"]): row["reason"] for row in failed}.values())


def _by_sample(rows: Sequence[Row], scorer: Scorer) -> Iterator[Row]:
    usable = [row for row in rows if _is_usable(row)]
    for column, scores in scorer([sample_of(row) for row in usable]).items():
        of = {id(row): score for row, score in zip(usable, scores, strict=True)}
        for row in rows:
            yield _scored(row, column, of.get(id(row), Score(None, row["drop_reason"])))


def _by_prompt(rows: Sequence[Row], scorer: PromptScorer) -> Iterator[Row]:
    for _, of_set in groupby(rows, key=lambda row: row["probe_set"]):
        together = [list(group) for _, group in groupby(of_set, key=lambda row: row["prompt_id"])]
        prompts = [
            SampledPrompt(group[0]["prompt"], group[0]["slice"], [sample_of(row) for row in group if _is_usable(row)])
            for group in together
        ]
        for column, scores in scorer.score_prompts(prompts).items():
            for group, score in zip(together, scores, strict=True):
                if score is not None:
                    yield _scored(group[0], column, score)


def _is_usable(row: Row) -> bool:
    return row["drop_reason"] in (None, "empty")


def sample_of(row: Row) -> Sample:
    """A row of a table of samples, as scorers see it."""
    return Sample(
        row["prompt"], row["response"], row["token_ids"], row["slice"], row["probe_set"], row["finish_reason"]
    )


def _scored(row: Row, column: str, score: Score) -> Row:
    kept = {name: row[name] for name in ("prompt_id", "sample", "probe_set", "slice")}
    return {**kept, "scorer": column, "score": score.value, "reason": score.reason}
