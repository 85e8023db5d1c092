from dataclasses import MISSING, dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from pipeline.inputs.recipe_values import Unreadable, convert, describe_type, read_specs


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Fields:
    required: str
    whole: int = 1
    number: float = 1
    switch: bool = False
    maybe_switch: bool | None = None
    maybe_whole: int | None = None
    maybe_text: str | None = None
    choice: Literal["a", "b"] = "a"
    chosen: str = field(default="x", metadata={"choices": ["x", "y"]})
    colour: Colour | str = "red"
    words: list[str] = field(default_factory=list)
    maybe_words: list[str] | None = None
    choices: list[Literal["a", "b"]] = field(default_factory=list)
    whole_or_text: int | str | None = "auto"
    mapping: dict[str, Any] | str | None = None
    plain_mapping: dict | None = None
    text_or_words: str | list[str] | None = None
    unset_by_word: str | None = "none"
    flag_or_text: str | None = field(default=None, metadata={"const": True})
    false_or_text: str | Literal[False] | None = None
    unreadable: Colour | None = field(default=None, init=False)


SPECS = read_specs(Fields)


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("whole", "-3", -3),
        ("number", "1e-1", 0.1),
        ("number", "3", 3.0),
        ("switch", "No", False),
        ("switch", "on", True),
        ("maybe_switch", "null", None),
        ("maybe_switch", "false", False),
        ("maybe_whole", "None", None),
        ("maybe_whole", "7", 7),
        ("maybe_text", "none", None),
        ("maybe_text", None, None),
        ("maybe_text", "no", "no"),
        ("required", "none", "none"),
        ("required", "0123", "0123"),
        ("required", "2024-01-01", "2024-01-01"),
        ("required", "", ""),
        ("choice", "b", "b"),
        ("chosen", "y", "y"),
        ("colour", "blue", "blue"),
        ("words", ["1", "x y"], ["1", "x y"]),
        ("words", [], []),
        ("words", "one", ["one"]),
        ("words", "none", []),
        ("maybe_words", "none", None),
        ("choices", ["b", "a"], ["b", "a"]),
        ("whole_or_text", "64", 64),
        ("whole_or_text", "auto", "auto"),
        ("mapping", {"a": 1}, {"a": 1}),
        ("mapping", '{"a": [1.5, null]}', {"a": [1.5, None]}),
        ("mapping", "ds.json", "ds.json"),
        ("plain_mapping", '{"a": 1}', {"a": 1}),
        ("text_or_words", "wandb", "wandb"),
        ("text_or_words", ["wandb", "tensorboard"], ["wandb", "tensorboard"]),
        ("unset_by_word", "none", "none"),
        ("unset_by_word", None, "none"),
        ("flag_or_text", "true", True),
        ("flag_or_text", "full_shard", "full_shard"),
        ("false_or_text", "false", False),
        ("false_or_text", "space", "space"),
    ],
)
def test_readable(name, raw, value):
    result = convert(raw, SPECS[name])
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("whole", "2.7", "expects an integer, found `2.7`"),
        ("whole", None, "expects an integer, found `null`"),
        ("whole", "none", "expects an integer, found `none`"),
        ("whole", ["1", "2"], "expects an integer, found the list `[1, 2]`"),
        ("whole", {"a": 1}, 'expects an integer, found the mapping `{"a": 1}`'),
        ("number", "abc", "expects a number, found `abc`"),
        ("number", "nan", "expects a number, found `nan`"),
        ("number", "inf", "expects a number, found `inf`"),
        ("switch", "maybe", "expects true or false, found `maybe`"),
        ("maybe_whole", "1.5", "expects an integer or null, found `1.5`"),
        ("required", None, "expects text, found `null`"),
        ("required", ["a"], "expects text, found the list `[a]`"),
        ("choice", "c", "expects one of a, b, found `c`"),
        ("chosen", "z", "expects one of x, y, found `z`"),
        ("colour", "green", "expects one of red, blue, found `green`"),
        ("words", "one two", "`a b` on the command line), found `one two`"),
        ("words", ["a", None], 'found the list `["a", null]`'),
        ("words", [["a"]], "expects a list"),
        ("choices", ["a", "c"], "each one of a, b, found the list `[a, c]`"),
        ("mapping", '{"a": ', "expects a mapping or text or null"),
        ("mapping", '{"a": NaN}', "expects a mapping or text or null"),
        ("plain_mapping", "ds.json", "expects a mapping or null, found `ds.json`"),
    ],
)
def test_unreadable(name, raw, message):
    with pytest.raises(Unreadable) as raised:
        convert(raw, SPECS[name])
    assert message in str(raised.value)


def test_specs_follow_the_dataclass():
    assert SPECS["required"].default is MISSING
    assert (SPECS["number"].default, type(SPECS["number"].default)) == (1.0, float)
    assert SPECS["words"].default == []
    assert "unreadable" not in SPECS
    assert SPECS["whole"].group == "Fields"


def test_types_in_words():
    assert describe_type(SPECS["whole_or_text"]) == "an integer or text or null"
    assert describe_type(SPECS["colour"]) == "one of red, blue"
