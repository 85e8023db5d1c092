"""Finds training prompts that are nearly a probe prompt, by the share of word triples that the two have in common."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.errors import InputError

SHINGLE_WORDS = 3

_LEAST_TEXT = 20
"""Characters of a text that are always shown, however narrow the line."""


class Asked(Protocol):
    """The parts of a prompt that matter for comparing it."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def messages(self) -> Sequence[Mapping[str, str]]:
        """Its turns, with ``role`` and ``content``."""


@dataclass(frozen=True)
class Overlap:
    """A training prompt and the probe prompt that it is too similar to; the texts are the user turns, as written.

    ``similarity`` is the Jaccard index of their shingles, in (0, 1]. It is 1 for prompts that differ only in case and
    punctuation.
    """

    prompt_id: str
    probe_id: str
    probe_set: str
    similarity: float
    prompt_text: str
    probe_text: str


class ProbeIndex:
    """The shingles of every probe prompt, to find the one most similar to a given prompt.

    Shingles are `SHINGLE_WORDS` consecutive words (see `words`) of all user turns joined; a shorter prompt is one
    shingle as a whole. The search is exact: it finds what comparing with every probe prompt would find.

    It does not see paraphrases, translations, letters of another script that look alike (Cyrillic for Latin, say), or
    differences in system or assistant turns alone. Exchanging one word in the middle of n leaves a similarity of
    (n - 5) / (n + 1), so with a threshold of 0.8 it is noticed from 29 words on.
    """

    def __init__(self, probe_sets: Mapping[str, Iterable[Asked]], threshold: float = 0.8) -> None:
        """Index the probe sets by name.

        Args:
            probe_sets: prompts of each probe set by its name.
            threshold: similarity in (0, 1] from which a prompt counts as nearly a probe prompt.

        Raises:
            InputError: the threshold is outside this range.
        """
        if not 0 < threshold <= 1:
            raise InputError(
                f"near_duplicate: prompts cannot be left out from a similarity of {threshold}; give a number above 0 "
                "and at most 1."
            )
        self.threshold = threshold
        # Sorted, so that the first of several equally similar ones does not depend on the order of a file.
        self._probes = sorted(
            ((name, probe.id, _spoken(probe)) for name, probes in probe_sets.items() for probe in probes),
            key=lambda probe: probe[:2],
        )
        holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        sizes = []
        for number, (_, _, text) in enumerate(self._probes):
            found = shingles(text)
            sizes.append(len(found))
            for shingle in found:
                holders[shingle].append(number)
        self._sizes = np.array(sizes, dtype=np.int64)
        # Shingles that occur in the same probes are counted together: a preamble shared by all prompts costs one step.
        groups: dict[tuple[int, ...], int] = {}
        self._group_of = {
            shingle: groups.setdefault(tuple(numbers), len(groups)) for shingle, numbers in holders.items()
        }
        self._holders = [np.array(numbers, dtype=np.int64) for numbers in groups]

    def nearest(self, prompt: Asked) -> Overlap | None:
        """Find the probe prompt most similar to ``prompt``; None where none reaches the threshold.

        Of several equally similar ones, the first by name of the set, then by id. A prompt without any word is similar
        to none.
        """
        text = _spoken(prompt)
        found = shingles(text)
        known = [self._group_of[shingle] for shingle in found if shingle in self._group_of]
        # The union is no smaller than the prompt's own set, so no probe can be more similar than this.
        if not known or len(known) / len(found) < self.threshold:
            return None
        common = np.zeros(len(self._probes), dtype=np.int64)
        for group, count in Counter(known).items():
            common[self._holders[group]] += count
        similarity = common / (len(found) + self._sizes - common)
        best = int(similarity.argmax())
        if similarity[best] < self.threshold:
            return None
        probe_set, probe_id, probe_text = self._probes[best]
        return Overlap(prompt.id, probe_id, probe_set, float(similarity[best]), text, probe_text)


def words(text: str) -> list[str]:
    """Words in the form in which they are compared: NFKC, case-folded, without punctuation and invisible characters.

    Apostrophes join (``don't`` is ``dont``), other punctuation separates. Symbols (``+``, ``$``, emoji) are kept. Each
    Chinese character or Japanese kana is a word, since no spaces separate them; Thai, Lao, Khmer and Burmese have no
    spaces either and are compared by the phrase.
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_CHARACTERS).split()


def shingles(text: str) -> set[tuple[str, ...]]:
    """All sequences of `SHINGLE_WORDS` consecutive words; fewer words make one shingle, no words none."""
    spoken = words(text)
    if len(spoken) < SHINGLE_WORDS:
        return {tuple(spoken)} if spoken else set()
    return set(zip(*(spoken[start:] for start in range(SHINGLE_WORDS)), strict=False))


def overlap_report(overlaps: Collection[Overlap], *, shown: int = 5, width: int = 119) -> str:
    """Report how many prompts were left out for each probe set, and show the most similar pairs.

    Args:
        overlaps: results of `ProbeIndex.nearest`.
        shown: number of pairs to show, one text above the other.
        width: characters per line. A text is cut to it, around the first character in which the two differ.

    Returns:
        The lines; empty where there is no overlap. Control, bidirectional and other characters that do not print are
        written as escapes, so that no prompt can steer the terminal.
    """
    if not overlaps:
        return ""
    counts = Counter(overlap.probe_set for overlap in overlaps)
    counted = ", ".join(f"{_printable(name)} {counts[name]:,}" for name in sorted(counts))
    pairs = sorted(overlaps, key=lambda overlap: (-overlap.similarity, overlap.prompt_id))[:shown]
    lines = [
        f"{len(overlaps):,} left out as near-duplicates of probe prompts ({counted})",
        f"the most similar (share of {SHINGLE_WORDS}-word sequences in common):",
    ]
    for pair in pairs:
        texts = (_printable(pair.prompt_text), _printable(pair.probe_text))
        heads = (f"  {pair.similarity:.2f}  prompt {pair.prompt_id}  ", f"        probe  {pair.probe_id}  ")
        head_width = max(map(len, heads))
        room = max(width - head_width, _LEAST_TEXT)
        start = 0
        if max(map(len, texts)) > room:
            differs = (place for place, (one, other) in enumerate(zip(*texts, strict=False)) if one != other)
            start = max(0, next(differs, min(map(len, texts))) - room // 2)
        lines += [head.ljust(head_width) + _cut(text, start, room) for head, text in zip(heads, texts, strict=True)]
    return "\n".join(lines)


def _spoken(prompt: Asked) -> str:
    return "\n\n".join(message["content"] for message in prompt.messages if message["role"] == "user")


def _printable(text: str) -> str:
    one_line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in one_line)


def _cut(text: str, start: int, room: int) -> str:
    if start:
        text = "…" + text[start + 1 :]
    return text if len(text) <= room else text[: room - 1] + "…"


class _Characters(dict[int, str]):
    """What becomes of each character, for `str.translate`; computed when one is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = become = self._become(chr(code))
        return become

    @staticmethod
    def _become(character: str) -> str:
        category = unicodedata.category(character)
        if character in "'’‘ʼ" or category == "Cf":
            return ""
        if category[0] == "P" or category in ("Cc", "Sk"):
            return " "
        if unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA LETTER", "KATAKANA LETTER")):
            return f" {character} "
        return character


_CHARACTERS = _Characters()
