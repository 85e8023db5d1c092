"""The worst and the most changed samples: both answers to a prompt, and the training row most like it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inputs.overlap import words
from pipeline.report.page.reading import Page, Shown
from pipeline.report.page.words import Comparison, compare_words

Key = tuple[str, int]

MOST, FEWEST = 40, 5
"""Samples of each kind on a page, divided among its checkpoints; and the fewest that a checkpoint shows."""


class Revision(NamedTuple):
    """One link of a critique chain."""

    principle: str
    critique: str
    revision: str
    drop_reason: str


class Chain(NamedTuple):
    """The training row whose prompt is most like the sample's: what was answered, criticised, rewritten, kept.

    ``final`` is what the policy was trained on, None if nothing. ``likeness`` is the share of words in common.
    """

    prompt: str
    response: str
    revisions: list[Revision]
    final: str | None
    likeness: float


class PairedSample(NamedTuple):
    """A probe sample under a checkpoint, beside what round 0 answers to the same prompt with the same noise."""

    anchor: str
    label: str
    round: int
    run: str
    kind: str
    slice: str
    prompt: list[dict[str, str]]
    answers: Comparison
    score_before: float | None
    score: float
    scores: list[tuple[str, float | None, float | None]]
    chain: Chain | None
    beyond: float


def paired_samples(page: Page) -> list[PairedSample]:
    """For each checkpoint the worst samples by the page's scorer, then those whose score changed most since round 0.

    Among equally changed scores, the answers that share the fewest words come first. A sample is in one list only.
    """
    shown = page.later or page.shown
    number = max(MOST // len(shown), FEWEST)
    found: list[PairedSample] = []
    for one in shown:
        found += _of_checkpoint(page, one, number, len(found))
    return found


def sample_rows(samples: Iterable[PairedSample]) -> list[dict[str, Any]]:
    """The samples for CSV, without the critique chains."""
    return [
        {
            "run": one.run,
            "round": one.round,
            "kind": one.kind,
            "slice": one.slice,
            "prompt": "\n".join(message["content"] for message in one.prompt),
            "round_0": "".join(text for text, _ in one.answers.before),
            "answer": "".join(text for text, _ in one.answers.after),
            "words_changed": one.answers.changed,
            "score_before": one.score_before,
            "score": one.score,
        }
        for one in samples
    ]


def _of_checkpoint(page: Page, shown: Shown, number: int, taken: int) -> list[PairedSample]:
    before, after = shown.run.first, shown
    texts, texts_before = ({**_texts(one.samples, page.probe_set)} for one in (after, before))
    # Questions that a scorer asks by itself have scores but no sampled answers to show.
    scores = {key: s for key, s in _scores(after.scores, page.scorer, page.probe_set).items() if key in texts}
    scores_before = _scores(before.scores, page.scorer, page.probe_set)
    sign = 1.0 if page.tail == "upper" else -1.0
    by_badness = sorted(scores, key=lambda key: (-sign * scores[key], key))
    rank = {key: place for place, key in enumerate(by_badness, 1)}
    worst = by_badness[:number]
    moved = sorted(
        (key for key in scores if key in scores_before and key not in set(worst)),
        key=lambda key: (-abs(scores[key] - scores_before[key]), key),
    )
    # Comparing words is slow: only where scores moved at least as far as the last that could be shown.
    if len(moved) > number:
        least = abs(scores[moved[number - 1]] - scores_before[moved[number - 1]])
        moved = [key for key in moved[: 10 * number] if abs(scores[key] - scores_before[key]) >= least]
    compared = {
        key: compare_words(texts_before.get(key, {}).get("response") or "", texts[key]["response"] or "")
        for key in (*worst, *moved)
    }
    moved.sort(key=lambda key: (-abs(scores[key] - scores_before[key]), -compared[key].changed, key))
    chosen = [(key, "worst") for key in worst]
    chosen += [
        (key, "changed") for key in moved[:number] if scores[key] != scores_before[key] or compared[key].changed
    ]
    wanted = {key for key, _ in chosen}
    every = [_every_score(one.scores, page.probe_set, wanted) for one in (before, after)]
    near = _Nearby(after)
    return [
        PairedSample(
            anchor=f"sample-{taken + place}",
            label=shown.label,
            round=shown.round,
            run=shown.run.label,
            kind=kind,
            slice=texts[key]["slice"],
            prompt=texts[key]["prompt"],
            answers=compared[key],
            score_before=scores_before.get(key),
            score=scores[key],
            scores=[
                (name, every[0].get(key, {}).get(name), value) for name, value in sorted(every[1].get(key, {}).items())
            ],
            chain=near.chain(texts[key]["prompt"], texts[key]["slice"]),
            beyond=rank[key] / len(scores),
        )
        for place, (key, kind) in enumerate(chosen, 1)
    ]


def _scores(table: pa.Table, scorer: str, probe_set: str) -> dict[Key, float]:
    found = table.filter(
        (pc.field("scorer") == scorer) & (pc.field("probe_set") == probe_set) & pc.field("score").is_valid()
    )
    keys = zip(found["prompt_id"].to_pylist(), found["sample"].to_pylist(), strict=True)
    return dict(zip(keys, found["score"].to_pylist(), strict=True))


def _texts(table: pa.Table, probe_set: str) -> dict[Key, dict[str, Any]]:
    rows = table.filter(pc.field("probe_set") == probe_set).to_pylist()
    return {(row["prompt_id"], row["sample"]): row for row in rows}


def _every_score(table: pa.Table, probe_set: str, wanted: set[Key]) -> dict[Key, dict[str, float | None]]:
    ids = pa.array(sorted({prompt_id for prompt_id, _ in wanted}), pa.string())
    near = table.filter((pc.field("probe_set") == probe_set) & pc.field("prompt_id").isin(ids)).to_pylist()
    found: dict[Key, dict[str, float | None]] = {}
    for row in near:
        key = row["prompt_id"], row["sample"]
        if key in wanted:
            found.setdefault(key, {})[row["scorer"]] = row["score"]
    return found


class _Nearby:
    """The critique chains of a round, to find the one whose prompt is most like a given prompt."""

    def __init__(self, shown: Shown) -> None:
        table = shown.refinements
        self._chains: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
        for row in table.to_pylist() if table is not None else ():
            self._chains.setdefault((row["slice"], row["prompt_id"], row["sample"]), []).append(row)
        self._words = {key: frozenset(words(_spoken(rows[0]["prompt"]))) for key, rows in self._chains.items()}

    def chain(self, prompt: Sequence[Mapping[str, str]], slice_name: str) -> Chain | None:
        """The most similar of the same slice, or of all where the slice has none; None without training rows."""
        asked = frozenset(words(_spoken(prompt)))
        candidates = [key for key in self._chains if key[0] == slice_name] or list(self._chains)
        if not candidates:
            return None
        likeness = {key: _jaccard(asked, self._words[key]) for key in candidates}
        best = max(sorted(candidates), key=lambda key: likeness[key])
        rows = sorted(self._chains[best], key=lambda row: row["revision_index"] or 0)
        links = [
            Revision(
                *(row[name] or "" for name in ("principle_id", "critique", "revision", "drop_reason")),
            )
            for row in rows
        ]
        return Chain(_spoken(rows[0]["prompt"]), rows[0]["response"] or "", links, rows[-1]["final"], likeness[best])


def _spoken(prompt: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(message["content"] for message in prompt if message["role"] == "user")


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0
