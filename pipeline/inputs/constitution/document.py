"""Constitutions: reading them, which principles apply, drawing among them."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import InputError
from pipeline.inputs.constitution.parser import Principle, parse
from pipeline.inputs.text_files import read_text


class Urn(NamedTuple):
    """Principles to draw from, and the sums of the weights up to and with each of them."""

    principles: tuple[Principle, ...]
    bounds: tuple[float, ...]


@dataclass(frozen=True)
class Constitution:
    r"""Principles in the order of the file, with its text (line ends as ``\n``) and the text's SHA-256."""

    name: str
    principles: tuple[Principle, ...]
    source_text: str
    sha256: str

    _urns: dict[str, Urn] = field(default_factory=dict, repr=False, compare=False)

    def urn(self, slice_name: str) -> Urn:
        """The principles that apply to prompts of one slice."""
        found = self._urns.get(slice_name)
        if found is None:
            found = _urn(p for p in self.principles if not p.applies_to or slice_name in p.applies_to)
            self._urns[slice_name] = found
        return found


def load_constitution(path: Path | str) -> Constitution:
    """Read a constitution file.

    Raises:
        InputError: the file cannot be read or has faults; the message names each with file, line and column.
    """
    path = Path(path)
    return parse_constitution(read_text(path, "constitution"), str(path))


def parse_constitution(text: str, name: str) -> Constitution:
    """Read a constitution from its text.

    Args:
        text: text in the format at the head of this package.
        name: its name in error messages (the file's path); the last part without suffix names the constitution.

    Raises:
        InputError: the text has faults; the message has one line per fault, each with line and column.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    principles, faults = parse(text)
    if faults:
        raise InputError("\n".join(f"{name}:{f.line}:{f.column}: {f.message}" for f in faults))
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return Constitution(Path(name).stem, tuple(principles), text, digest)


def draw_principles(
    constitution: Constitution, n: int, rng: np.random.Generator, replace: bool, slice_name: str
) -> list[Principle]:
    """Draw ``n`` of the principles for a slice, with probabilities proportional to their weights.

    Each draw takes one ``rng.random()``. Without replacement a principle is drawn again only after all others of
    the slice have been drawn: when none is left, the urn is filled again.

    Raises:
        InputError: no principle applies to the slice.
    """
    full = constitution.urn(slice_name)
    if not full.principles:
        raise InputError(
            f"{constitution.name}: no principle applies to the slice `{slice_name}`; add one without "
            "`applies_to:`, or name the slice in one."
        )
    drawn: list[Principle] = []
    urn = full
    for left in range(n, 0, -1):
        index = bisect_right(urn.bounds, rng.random() * urn.bounds[-1])
        drawn.append(urn.principles[min(index, len(urn.principles) - 1)])
        if left > 1 and not replace:
            urn = _urn(p for p in urn.principles if p is not drawn[-1])
            urn = urn if urn.principles else full
    return drawn


def _urn(principles: Iterable[Principle]) -> Urn:
    inside = tuple(principles)
    return Urn(inside, tuple(accumulate(p.weight for p in inside)))
