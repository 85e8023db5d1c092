"""Ways in which self-trained models fall apart: loops, fragments, answers that do not end, and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.scorers.base import Sample, Score, Worse
from pipeline.scorers.defects import is_fragment, is_loop, speaks_of_revision
from pipeline.scorers.language import switches_language

KINDS = ("loop", "fragment", "cut_off", "language_switch", "rewrite_talk")
"""The kinds, in the order of their columns."""


class Degeneration:
    """Five scores of 0 or 1; high is bad.

    * ``degeneration.loop``: at least 30% of the words only repeat the block before them (``scorers.text``).
    * ``degeneration.fragment``: a single word, or nothing.
    * ``degeneration.cut_off``: did not end before the token limit. A low limit makes it common from the start.
    * ``degeneration.language_switch``: in a different language or script from the prompt, or in two (``language``).
    * ``degeneration.rewrite_talk``: talks about its own revision or critique (``scorers.defects``).

    Boilerplate, the sixth kind, only shows across many answers: see ``round-NN/degeneration.json``.
    """

    columns: Mapping[str, Worse] = {f"degeneration.{kind}": "high" for kind in KINDS}

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One 0 or 1 per sample and kind."""
        found = [
            degenerations(sample.prompt[-1]["content"] if sample.prompt else "", sample.response, sample.finish_reason)
            for sample in samples
        ]
        return {f"degeneration.{kind}": [Score(float(one[kind])) for one in found] for kind in KINDS}


def degenerations(prompt: str, response: str, finish_reason: str) -> dict[str, bool]:
    """Which kinds an answer shows."""
    return {
        "loop": is_loop(response),
        "fragment": is_fragment(response),
        "cut_off": finish_reason == "length",
        "language_switch": switches_language(prompt, response),
        "rewrite_talk": speaks_of_revision(response),
    }
