"""What a recipe may list under ``scorers``: a name, or ``name:argument``, such as ``choice:questions.jsonl``."""

from __future__ import annotations

import difflib
from typing import NamedTuple

PLAIN = ("gold", "refusal", "length", "loops", "kl", "nll_base", "diversity", "likelihood", "degeneration")
"""The scorers without an argument."""

WITH_ARGUMENT = {
    "choice": "FILE",
    "sycophancy": "FILE",
    "nll_reference": "FILE",
    "judge": "RUBRIC",
    "over_refusal": "SLICES",
    "under_refusal": "SLICES",
    "classifier": "MODEL",
}
"""The scorers that need an argument, and what it is."""

MAY_TAKE = {"refusal": "WEIGHTS"}
"""The scorers that may take an argument, and what it is."""


class ScorerName(NamedTuple):
    """An entry of ``scorers``: the scorer, and its argument if it has one."""

    name: str
    argument: str | None


def split_name(entry: str) -> ScorerName:
    """``choice:a.jsonl`` is ``("choice", "a.jsonl")``, ``kl`` is ``("kl", None)``; only the first colon counts."""
    name, colon, argument = entry.partition(":")
    return ScorerName(name, argument if colon else None)


def name_problem(entry: str) -> str | None:
    """What is wrong with an entry of ``scorers``, or None."""
    name, argument = split_name(entry)
    if name in MAY_TAKE and argument != "":
        return None
    if name in PLAIN:
        return None if argument is None else f"holds `{entry}`, but `{name}` takes no argument; write `{name}`"
    if name in WITH_ARGUMENT:
        wanted = f"{name}:{WITH_ARGUMENT[name]}"
        return None if argument else f"holds `{entry}`, but `{name}` needs its argument; write `{wanted}`"
    near = difflib.get_close_matches(name, [*PLAIN, *WITH_ARGUMENT], 1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are {describe_names()}"
    return f"holds `{entry}`, but there is no scorer `{name}`; {hint}"


def describe_names() -> str:
    """Every scorer as it is written in a recipe."""
    return ", ".join([*PLAIN, *(f"{name}:{what}" for name, what in WITH_ARGUMENT.items())])
