"""Text to typed values, by the type of their field.

A scalar is read according to its field and not by YAML's guesses, so that a file and the command line agree: `1e-4`
is a number, `no` is a word for a text field and false for a switch, and `2.7` is not an integer.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from enum import Enum
from math import isfinite
from operator import getitem
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

BOOLEANS = dict.fromkeys(("yes", "true", "t", "y", "1", "on"), True) | dict.fromkeys(
    ("no", "false", "f", "n", "0", "off"), False
)
CLEARED = ("none", "null")
# The order in which the types of a union are tried: text takes anything, so it comes last.
KINDS: tuple[Any, ...] = (bool, int, float, Literal, Enum, dict, list, str)
WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    dict: "a mapping",
    str: "text",
}


class Spec(NamedTuple):
    """A field: `members` are the types of its union; `default` is `MISSING` if it is required."""

    name: str
    members: tuple[Any, ...]
    default: Any
    help: str
    group: str

    def takes(self, kind: Any) -> bool:
        """Whether a type of this kind (one of `KINDS`, or `NoneType`) is in the union."""
        return any(kind_of(member) is kind for member in self.members)


class Unreadable(ValueError):
    """A value that its field cannot take; the message is `expects ..., found ...`."""


def kind_of(member: Any) -> Any:
    """The one of `KINDS` that an annotation without unions belongs to, else the annotation itself."""
    kind = get_origin(member) or member
    return Enum if isinstance(kind, type) and issubclass(kind, Enum) else kind


def read_specs(cls: type) -> dict[str, Spec]:
    """The fields of a dataclass by name; an integer default of a float field becomes a float."""
    hints = get_type_hints(cls)
    specs = {}
    for item in fields(cls):
        if not item.init:
            continue
        hint, metadata = hints[item.name], item.metadata
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if any(kind_of(member) is Enum for member in members):
            members = tuple(member for member in members if member is not str)
        if "choices" in metadata:
            choices = getitem(Literal, tuple(metadata["choices"]))
            members = tuple(choices if member is str else member for member in members)
        if metadata.get("const") is True and bool not in members:
            members = (bool, *members)  # such a flag of TRL's may be given without a value
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if float in members and type(default) is int:
            default = float(default)
        specs[item.name] = Spec(
            item.name, members, default, metadata.get("help", ""), metadata.get("group", cls.__name__)
        )
    return specs


def convert(raw: Any, spec: Spec) -> Any:
    """The JSON-able value of what was given: text, None (YAML's null), a list of texts, or a mapping.

    Raises:
        Unreadable: the field cannot take it; names the type expected and the value found.
    """
    value: Any = MISSING
    if isinstance(raw, str):
        value = _read_text(raw, spec)
    elif isinstance(raw, dict) and spec.takes(dict):
        value = raw
    elif isinstance(raw, list):
        value = _read_list(raw, spec)
    elif raw is None and spec.takes(NoneType):
        value = _unset(spec)
    if value is MISSING:
        raise Unreadable(f"expects {describe_type(spec)}, found {_show(raw)}")
    return value


def _unset(spec: Spec) -> str | None:
    return "none" if spec.default == "none" else None  # TRL's `report_to` has a word for it and fails on null


def _read_text(text: str, spec: Spec) -> Any:
    if text.lower() in CLEARED:
        if spec.takes(NoneType):
            return _unset(spec)
        if spec.takes(list) and not spec.takes(str):
            return []
    return _read_scalar(text, spec.members)


def _read_list(items: list[Any], spec: Spec) -> Any:
    for member in spec.members:
        if kind_of(member) is list and all(isinstance(item, str) for item in items):
            values = [_read_scalar(item, get_args(member)) for item in items]
            return MISSING if MISSING in values else values
    return MISSING


def _read_scalar(text: str, members: Sequence[Any]) -> Any:
    """The value of `text` as the first of `members`, in the order of `KINDS`, that takes it, or `MISSING`."""
    known = [member for member in members if kind_of(member) in KINDS]
    for member in sorted(known, key=lambda member: KINDS.index(kind_of(member))):
        kind = kind_of(member)
        value: Any = MISSING
        if kind is bool:
            value = BOOLEANS.get(text.lower(), MISSING)
        elif kind in (int, float):
            value = _read_number(text, kind)
        elif kind in (Literal, Enum):
            value = read_choices(member).get(text, MISSING)
        elif kind is dict and text.startswith("{"):
            return _read_json(text)
        elif kind is list and str not in members and text and not re.search(r"\s", text):
            value = _read_scalar(text, get_args(member))
            value = value if value is MISSING else [value]
        elif kind is str:
            value = text
        if value is not MISSING:
            return value
    return MISSING


def _read_number(text: str, kind: type) -> Any:
    try:
        number = kind(text)
    except ValueError:
        return MISSING
    return number if isfinite(number) else MISSING


def _read_json(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except ValueError:
        return MISSING
    return value


def read_choices(member: Any) -> dict[str, Any]:
    """The values of a `Literal` or an enumeration by their spelling."""
    if kind_of(member) is Enum:
        return {choice.value: choice.value for choice in member}
    return {str(value).lower() if isinstance(value, bool) else str(value): value for value in get_args(member)}


def describe_type(spec: Spec) -> str:
    """What a field takes, in words: `an integer or null`."""
    words = []
    for member in spec.members:
        kind = kind_of(member)
        if kind in (Literal, Enum):
            words.append("one of " + ", ".join(read_choices(member)))
        elif kind is list:
            items = get_args(member)[0]
            of = f", each one of {', '.join(read_choices(items))}" if kind_of(items) in (Literal, Enum) else ""
            words.append(f"a list (`[a, b]` in a file, `a b` on the command line){of}")
        elif kind in WORDS:
            words.append(WORDS[kind])
    return " or ".join([*words, "null"] if spec.takes(NoneType) else words)


def _show(raw: Any) -> str:
    if isinstance(raw, list) and all(isinstance(item, str) for item in raw):
        return f"the list `[{', '.join(raw)}]`"
    kind = "the mapping " if isinstance(raw, dict) else "the list " if isinstance(raw, list) else ""
    return f"{kind}`{raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)}`"
