"""Counterfactual pairs: one prompt and sample number under two checkpoints, with the words that changed marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc

from pipeline.comparing.comparable import recipe_at
from pipeline.comparing.comparison import SideBySide
from pipeline.comparing.table import names_of
from pipeline.errors import InputError
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.terminal import pad, paint, printable, width
from pipeline.runs.seeds import stage_seed
from pipeline.runs.tables import read_table
from pipeline.tails.arrays import Tail, orientation

Choice = Literal["worst", "changed", "random"]
CHOICES: tuple[Choice, ...] = ("worst", "changed", "random")

_WORDS = re.compile(r"\n|[^\S\n]+|[^\s]+")


class Answer(NamedTuple):
    """A probe sample with its score; ``reason`` says why it has none."""

    text: str
    score: float | None
    reason: str | None


class Pair(NamedTuple):
    """The same prompt and sample number under two checkpoints.

    Attributes:
        probe_set: probe set of the prompt.
        prompt_id: id of the prompt.
        slice: slice of the prompt.
        prompt: messages of the prompt.
        sample: number of the sample.
        scorer: scorer by which the pair was chosen.
        before: answer under the baseline.
        after: answer under the other checkpoint.
        same_noise: whether both were sampled with the same seed, so that they differ only where the policies do.
    """

    probe_set: str
    prompt_id: str
    slice: str
    prompt: list[dict[str, str]]
    sample: int
    scorer: str
    before: Answer
    after: Answer
    same_noise: bool


def read_choice(given: Sequence[str]) -> tuple[Choice, int]:
    """What ``--pairs worst 5`` asks for.

    Raises:
        InputError: the choice is unknown, or the number is not a positive integer.
    """
    name, number = given
    for choice in CHOICES:
        if name == choice and number.isdecimal() and int(number) > 0:
            return choice, int(number)
    raise InputError(f"--pairs {name} {number}: give one of {', '.join(CHOICES)} and how many, as in --pairs worst 5.")


def choose_pairs(found: SideBySide, choice: Choice, number: int, scorer: str | None = None) -> list[Pair]:
    """Pairs of the baseline and the last checkpoint, of the first probe set with samples that both have a score of.

    ``worst`` takes those that score worst under the last checkpoint, ``changed`` those whose score moved furthest,
    ``random`` any, the same in every call. Each prompt comes once. Where scores tie, answers that differ come first.

    Args:
        found: the comparison.
        choice: which pairs to take.
        number: number of pairs at most.
        scorer: scorer to choose by; the headline scorer if None.

    Raises:
        InputError: there is no such scorer, or no sample that it scored under both checkpoints.
    """
    baseline, last = found.checkpoints[0], found.checkpoints[-1]
    tails = {entry.group.scorer: entry.group.tail for entry in reversed(found.entries)}
    others = f"there are {', '.join(sorted(tails))}"
    if scorer is not None and scorer not in tails:
        raise InputError(f"--scorer {scorer}: no such score; {others}.")
    if scorer is None and found.headline not in tails:
        raise InputError(
            f"--pairs: {found.headline}, the headline score of {baseline.label}, was not measured in every "
            f"checkpoint; name a score with --scorer ({others})."
        )
    scorer = scorer or found.headline
    sets = dict.fromkeys(entry.group.probe_set for entry in found.entries if entry.group.scorer == scorer)
    answers = {name: [_answers(one, scorer, name) for one in (baseline, last)] for name in sets}
    keys_of = {name: sorted(set.intersection(*map(_scored, sides))) for name, sides in answers.items()}
    probe_set = next((name for name, keys in keys_of.items() if keys), None)
    if probe_set is None:
        raise InputError(
            f"--pairs: no sample has a score of {scorer} under both {baseline.label} and {last.label}; name another "
            f"with --scorer ({others})."
        )
    keys, (before, after) = keys_of[probe_set], answers[probe_set]
    if choice == "random":
        order = np.random.default_rng(stage_seed(int(recipe_at(baseline)["seed"]), "pairs", 0)).permutation(len(keys))
        ranked = [keys[i] for i in order]
    else:
        ranked = sorted(keys, key=lambda key: _rank(choice, before[key], after[key], tails[scorer]), reverse=True)
    first_of: dict[str, tuple[str, int]] = {}
    for key in ranked:
        first_of.setdefault(key[0], key)
    return [_pair(probe_set, scorer, key, before[key], after[key]) for key in list(first_of.values())[:number]]


def marked_words(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts as pieces (words, blanks, line feeds), each with whether the other text lacks it here."""
    left, right = _WORDS.findall(before), _WORDS.findall(after)
    sides: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for what, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        sides[0].extend((piece, what != "equal") for piece in left[i:j])
        sides[1].extend((piece, what != "equal") for piece in right[k:m])
    return sides


def pairs_report(
    pairs: Sequence[Pair], checkpoints: Sequence[Checkpoint], choice: Choice, *, cells: int = 120, color: bool = False
) -> str:
    """Pairs side by side. What models wrote is shown as it is, harmful or not, but never acts on the terminal.

    Args:
        pairs: the chosen pairs.
        checkpoints: checkpoints of the comparison; the pairs are of the first and the last.
        choice: how they were chosen.
        cells: width of the terminal.
        color: mark words by colour, else by [-word-] and {+word+}.
    """
    names = [names_of(checkpoints)[i] for i in (0, -1)]
    how = {"worst": f"that score worst in {names[1]}", "changed": "whose score moved furthest", "random": "at random"}
    head = f"Pairs {how[choice]}"
    if any(not pair.same_noise for pair in pairs):
        head += "; the seeds of these runs differ, so answers differ by chance as well"
    side = (cells - 5) // 2
    lines = [paint(head, "bold") if color else head]
    for number, pair in enumerate(pairs, 1):
        lines += ["", _pair_title(number, pair)]
        for message in pair.prompt:
            text = printable(message["content"], lines=True).split("\n")
            lines += [f"  {message['role'] if i == 0 else '':>9} | {line}" for i, line in enumerate(text)]
        left, right = marked_words(pair.before.text, pair.after.text)
        columns = [
            [f"{name}: {pair.scorer} {_score(answer)}", *_wrapped(words, side, signs, color)]
            for name, answer, words, signs in (
                (names[0], pair.before, left, ("[-", "-]", "red")),
                (names[1], pair.after, right, ("{+", "+}", "green")),
            )
        ]
        for i in range(max(map(len, columns))):
            left_line, right_line = (column[i] if i < len(column) else "" for column in columns)
            lines.append(f"  {pad(left_line, side)} | {right_line}".rstrip())
    return "\n".join(lines)


def _answers(checkpoint: Checkpoint, scorer: str, probe_set: str) -> dict[tuple[str, int], dict[str, Any]]:
    scores = read_table(checkpoint.run.scores(checkpoint.round))
    scores = scores.filter((pc.field("scorer") == scorer) & (pc.field("probe_set") == probe_set))
    of = {(row["prompt_id"], row["sample"]): row for row in scores.to_pylist()}
    folder = checkpoint.run.stage_dir(checkpoint.round, "measure")
    columns = ["prompt_id", "sample", "seed", "probe_set", "prompt", "slice", "response"]
    samples = read_table(folder / "samples.parquet", columns).filter(pc.field("probe_set") == probe_set)
    return {
        key: row | {"score": of[key]["score"], "reason": of[key]["reason"]}
        for row in samples.to_pylist()
        if (key := (row["prompt_id"], row["sample"])) in of
    }


def _scored(answers: dict[tuple[str, int], dict[str, Any]]) -> set[tuple[str, int]]:
    return {key for key, row in answers.items() if row["score"] is not None}


def _rank(choice: Choice, before: dict[str, Any], after: dict[str, Any], tail: Tail) -> tuple[float, bool]:
    differ = before["response"] != after["response"]
    if choice == "worst":
        return orientation(tail) * after["score"], differ
    return abs(after["score"] - before["score"]), differ


def _pair(probe_set: str, scorer: str, key: tuple[str, int], before: dict[str, Any], after: dict[str, Any]) -> Pair:
    first, second = (Answer(row["response"] or "", row["score"], row["reason"]) for row in (before, after))
    same_noise = before["seed"] == after["seed"]
    return Pair(probe_set, key[0], before["slice"], before["prompt"], key[1], scorer, first, second, same_noise)


def _pair_title(number: int, pair: Pair) -> str:
    return printable(f"{number}. {pair.probe_set}, {pair.slice}, prompt {pair.prompt_id[:12]}, sample {pair.sample}")


def _score(answer: Answer) -> str:
    return f"{answer.score:.3g}" if answer.score is not None else f"none ({printable(answer.reason or 'no reason')})"


def _wrapped(words: Sequence[tuple[str, bool]], cells: int, signs: tuple[str, str, str], color: bool) -> list[str]:
    """Pieces as lines of at most ``cells`` cells, with adjacent changed words marked together."""
    lines: list[list[tuple[str, bool]]] = [[]]
    for piece, changed in words:
        if piece == "\n":
            lines.append([])
            continue
        text = " " if piece.strip(" \t") == "" else printable(piece)
        for part in _split(text, cells - len(signs[0] + signs[1])):
            if lines[-1] and width(_marked([*lines[-1], (part, changed)], signs, color)) > cells:
                lines.append([])
            if part != " " or lines[-1]:
                lines[-1].append((part, changed))
    return [_marked(line, signs, color) for line in lines]


def _marked(line: Sequence[tuple[str, bool]], signs: tuple[str, str, str], color: bool) -> str:
    opening, closing, style = signs
    while line and line[-1][0] == " ":
        line = line[:-1]
    # A blank between two words that changed belongs to the change.
    joined = [
        (text, changed or (text == " " and i > 0 and line[i - 1][1] and line[i + 1][1]))
        for i, (text, changed) in enumerate(line)
    ]
    text = ""
    for changed, group in groupby(joined, key=lambda piece: piece[1]):
        words = "".join(word for word, _ in group)
        core = words.strip(" ")
        if changed and core:
            # Blanks at the ends of a change stay outside of its marks.
            before, after = words.split(core)
            words = before + (paint(core, style) if color else f"{opening}{core}{closing}") + after
        text += words
    return text


def _split(text: str, cells: int) -> list[str]:
    """A text in parts of at most ``cells`` cells."""
    parts = [""]
    for character in text:
        if width(parts[-1] + character) > cells:
            parts.append("")
        parts[-1] += character
    return parts
