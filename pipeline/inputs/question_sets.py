"""Questions that a scorer itself asks of a model: prompts of their own, in addition to the probe sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from pipeline.errors import InputError
from pipeline.inputs.prompt_files import Row, read_rows
from pipeline.inputs.prompts import prompt_id

_SHOWN = 5
"""Number of a file's faults that are shown; the others are counted."""


class Item(Protocol):
    """One question: ``id`` is a digest of its content, ``slice`` the part of the file it belongs to."""

    @property
    def id(self) -> str:
        """Stable over rounds and files."""

    @property
    def slice(self) -> str:
        """``all`` where the file names none."""


Asked = TypeVar("Asked", bound=Item, covariant=True)


class QuestionSet(NamedTuple, Generic[Asked]):
    """The questions of one file, each once.

    Attributes:
        name: name of the probe set under which their scores appear, such as ``choice.corrigible``.
        items: the questions, in the order of the file.
        n_repeated: rows that repeat an earlier question, left out.
        sha256: digest of the file, and of whatever else the questions depend on.
    """

    name: str
    items: tuple[Asked, ...]
    n_repeated: int
    sha256: str


class Unusable(ValueError):
    """A row that no question can be made from; the message says why and what to do."""


def read_questions(
    path: Path, scorer: str, read: Callable[[Row], Asked], *, made_with: str = ""
) -> QuestionSet[Asked]:
    """Read a file of questions.

    Args:
        path: .jsonl, .json, .csv, .parquet or .txt, or one of these gzipped.
        scorer: scorer that asks them; its name begins the name of the probe set.
        read: function from a row to a question; raises `Unusable`.
        made_with: digest of what else the questions depend on.

    Raises:
        InputError: the file cannot be read, or a row cannot be used; names each with its line.
    """
    rows = read_rows(path)
    found: dict[str, Asked] = {}
    faults = []
    for row in rows:
        try:
            item = read(row)
        except Unusable as error:
            faults.append(f"{row.where}: {error}")
            continue
        found.setdefault(item.id, item)
    if faults:
        more = [f"… and {len(faults) - _SHOWN:,} more rows of {len(rows):,}."] if len(faults) > _SHOWN else []
        raise InputError("\n".join([*faults[:_SHOWN], *more]))
    digest = hashlib.sha256(path.read_bytes() + made_with.encode()).hexdigest()
    return QuestionSet(f"{scorer}.{stem(path)}", tuple(found.values()), len(rows) - len(found), digest)


def is_question_set(name: str) -> bool:
    """Whether a name in place of a probe set's is that of a question set: those of a recipe contain no dot."""
    return "." in name


def stem(path: Path) -> str:
    """``a/corrigible.jsonl.gz`` -> ``corrigible``."""
    return Path(path.name.removesuffix(".gz")).stem


def question_id(*parts: str) -> str:
    """16 hex digits that name a question by its texts."""
    return prompt_id([{"role": "user", "content": part} for part in parts])


def text_of(row: Row, *columns: str) -> str:
    """The text in the first of the columns that the row has.

    Raises:
        Unusable: it has none of them, or the first that it has holds no text.
    """
    for column in columns:
        if column in row.fields:
            value = row.fields[column]
            if not isinstance(value, str) or not value.strip():
                raise Unusable(f"`{column}` must be a text, found {value!r}.")
            return value
    raise Unusable(
        f"no column {' or '.join(f'`{name}`' for name in columns)}; found {', '.join(row.fields) or 'none'}."
    )


def texts_of(row: Row, column: str) -> tuple[str, ...]:
    """The texts in a column that holds one or a list of them, without empty ones and surrounding white space.

    Raises:
        Unusable: there is no such column, it has no text, or it holds something else.
    """
    value = row.fields.get(column)
    values = value if isinstance(value, list) else [value]
    texts = tuple(text.strip() for text in values if isinstance(text, str) and text.strip())
    if not texts or not all(isinstance(text, str) for text in values):
        raise Unusable(f"`{column}` must be a text or a list of texts, found {value!r}.")
    return texts


def slice_of(row: Row, *columns: str) -> str:
    """The slice named by the first of the columns in which the row has a text; ``all`` if there is none."""
    named = (row.fields.get(column) for column in columns)
    return next((value.strip() for value in named if isinstance(value, str) and value.strip()), "all")
