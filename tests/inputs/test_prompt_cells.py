import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.prompt_cells import parse_hh, read_cell

# Words that look like role names are wanted inside the turns; what opens a turn is not.
_pieces = st.sampled_from(["Human: ", "Assistant:", "\n\n", "\n", " ", "Human", ": ", "\n\nHuman", "\n\nuser: "])
_turn = (
    st.lists(st.one_of(_pieces, st.text(max_size=8)), min_size=1, max_size=6)
    .map(lambda pieces: "".join(pieces).strip())
    .filter(lambda t: t and not re.search(r"\n\n(Human|Assistant):", "\n\n" + t))
)
_dialogue = st.lists(_turn, min_size=1, max_size=5).map(
    lambda turns: [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
)


def format_hh(messages):
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in messages)


@given(_dialogue)
def test_hh_text_is_read(messages):
    text = format_hh(messages)
    assert parse_hh(text) == messages
    if len(messages) > 1:
        assert parse_hh(text.lstrip()) == messages


@given(_dialogue)
def test_the_policy_answers_the_last_user_turn(messages):
    dialogue = read_cell(format_hh(messages), "here")
    asked = messages if len(messages) % 2 else messages[:-1]
    assert list(dialogue.messages) == asked
    assert dialogue.drop_reason is None
    assert dialogue.changes == (() if len(messages) % 2 else ("final_answer_removed",))
    assert read_cell(messages, "here") == dialogue


def test_hh_open_ends():
    assert parse_hh("\n\nHuman: hi\n\nAssistant:") == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": ""},
    ]
    assert read_cell("\n\nHuman: hi\n\nAssistant:", "here").messages == ({"role": "user", "content": "hi"},)
    empty_turn = read_cell("\n\nHuman: hi\n\nAssistant:\n\nHuman: so?\n\nAssistant: x", "here")
    assert empty_turn.drop_reason == "empty_earlier_turn"


@pytest.mark.parametrize(
    "text",
    [
        "Human: is this a dialogue?",
        "What does\n\nHuman: mean at the head of a line?",
        "Assistant: I am not one",
        "\n\nHumans: a history",
        "\n\nHuman:without a space",
    ],
)
def test_plain_text_with_role_names_stays_one_turn(text):
    assert parse_hh(text) is None
    assert read_cell(text, "here").messages == ({"role": "user", "content": text.strip()},)


def test_two_answers_in_a_row_are_joined():
    dialogue = read_cell("\n\nHuman: hi\n\nAssistant: wait\n\nAssistant:  there\n\nHuman: so?", "here")
    assert [m["content"] for m in dialogue.messages] == ["hi", "wait\n\nthere", "so?"]
    assert dialogue.changes == ("turns_joined",)


def test_messages_are_kept_word_for_word():
    messages = [
        {"role": "system", "content": " Be kind.\n"},
        {"role": "user", "content": "\n\nHuman: hi ", "name": "x"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    dialogue = read_cell(messages, "here")
    assert dialogue.messages == (messages[0], {"role": "user", "content": "\n\nHuman: hi "})


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (7, "type int"),
        ({"role": "user"}, "type dict"),
        (["a", {"role": "user", "content": "b"}], "type list"),
        (
            [{"from": "human", "value": "b"}],
            "message 1 has the keys from, value; it needs `role` and `content`",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}],
            "message 2 has the role 'tool'",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "content of message 1 is of type list"),
        ("half \ud83d", "character 6 is half of a surrogate pair"),
        ([{"role": "user", "content": "\udc00"}], "character 1 is half of a surrogate pair"),
    ],
)
def test_faults_are_named(cell, fault):
    with pytest.raises(InputError, match="^p.jsonl:17: .*" + fault):
        read_cell(cell, "p.jsonl:17")
