r"""A constitution: the principles that critiques are made from, as plain text that a person edits.

The format::

    # A line whose first character is `#` is a comment. A `#` further on is text.

    The answer should not be rude.

    name: no-flattery
    weight: 2
    applies_to: opinions, feedback
    critique: Point out every place where the answer praises the person
      instead of judging what they wrote.
    revise: Write the answer again without the praise.

- A paragraph is a principle; empty lines separate them. Lines are joined by one space, and other runs of white
  space inside a text become one space too. Indentation is ignored.
- A principle is plain text, one sentence or more, which the templates wrap; or a pair of ``critique:`` and
  ``revise:`` texts, which are used as they are.
- Above it there may be ``name:`` (letters, digits, ``-``, ``_``, ``.``), ``weight:`` (a positive number, 1 by
  default: how often it is drawn relative to the others) and ``applies_to:`` (names of slices of the prompts,
  separated by commas; all if empty), one line each.
- A key is one word and a colon at the start of a line. Any other start of a line is text, so prose may contain
  colons. A word that is nearly a key (``wieght:``) is an error, and so is any one-word key directly under a header
  line: no typo silently becomes part of a principle.
- A backslash at the start of a line makes the line text: ``\# not a comment``, ``\name: not a key``,
  ``\\ one backslash``.
- Braces are text: principles are data for the templates, never templates.
"""

from pipeline.inputs.constitution.document import (
    Constitution,
    draw_principles,
    load_constitution,
    parse_constitution,
)
from pipeline.inputs.constitution.parser import Principle

__all__ = ["Constitution", "Principle", "draw_principles", "load_constitution", "parse_constitution"]
