from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.constitution import parse_constitution
from pipeline.inputs.labelled import load_labelled

CONSTITUTION = parse_constitution("name: kind\nBe kind.\n\nname: plain\nBe plain.", "c.txt")
GOOD = {"prompt": "Hi?", "response": "Go away.", "principle": "kind", "faulty": True}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "labels.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_the_format(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    other = GOOD | {"prompt": turns, "principle": "plain", "faulty": False, "facts": ["100 C"]}
    found = load_labelled(write(tmp_path, GOOD, "", other), CONSTITUTION)
    one, two = found.items
    assert (one.prompt, one.response, one.principle.id, one.faulty, one.facts) == (
        [{"role": "user", "content": "Hi?"}],
        "Go away.",
        "kind",
        True,
        (),
    )
    assert (two.prompt, two.principle.text, two.faulty, two.facts) == (turns, "Be plain.", False, ("100 C",))
    assert one.id != two.id and len(found.sha256) == 64


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], r"labels\.jsonl:1: not valid JSON \(.*column 2\)"),
        ([GOOD, ["x"]], r"labels\.jsonl:2: must be an object"),
        ([GOOD | {"fault": 1}], "unknown key `fault`; the keys are facts, faulty,"),
        ([GOOD | {"response": " "}], "`response` must be a non-empty text"),
        ([GOOD | {"faulty": "yes"}], "`faulty` must be true or false"),
        (
            [GOOD | {"principle": "mild"}],
            r"no principle `mild` in the constitution\.\nThe principles of .* are kind, plain\.",
        ),
        ([GOOD | {"principle": "kindd"}], "no principle `kindd`; did you mean `kind`?"),
        ([GOOD | {"principle": "mild", "response": str(i)} for i in range(15)], "and 5 more."),
        ([GOOD | {"facts": "100 C"}], "`facts` must be a list of texts"),
        ([GOOD | {"prompt": [{"role": "assistant", "content": "x"}]}], "`prompt` must be a text, or a list"),
        ([GOOD | {"prompt": []}], "`prompt` must be a text, or a list"),
        ([GOOD, GOOD], "appears twice for the same principle"),
        ([""], "holds no labelled answer"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_labelled(write(tmp_path, *rows), CONSTITUTION)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*GOOD, "facts", "role", "content"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "facts"]), json_values))
def test_any_row_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]) -> None:
    path = write(tmp_path_factory.mktemp("labels"), GOOD | row)
    try:
        (found,) = load_labelled(path, CONSTITUTION).items
    except InputError as error:
        assert str(error).startswith(f"{path}")
    else:
        assert found.prompt[-1]["role"] == "user" and isinstance(found.faulty, bool)
