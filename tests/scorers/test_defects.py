from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.base import Completion, FinishReason
from pipeline.scorers.defects import _SPEAKS_OF_REVISION, Defect, revision_defect, speaks_of_revision

RESPONSE = "First take the red paint and stir it for a minute."


def completion(text: str, reason: FinishReason = "stop") -> Completion:
    return Completion(text, [1, 2], reason, 3)


@pytest.mark.parametrize(
    ("revision", "defect"),
    [
        (completion("", "error"), "error"),
        (completion("", "prompt_too_long"), "prompt_too_long"),
        (completion(""), "empty"),
        (completion(" \n . … !?"), "empty"),
        (completion("I would rather not, since", "length"), "cut_off"),
        (completion("I am sorry. " * 5), "loop"),
        (completion("Sorry."), "fragment"),
        (completion("Here is a revised response: please ask an adult."), "speaks_of_revision"),
        (completion(RESPONSE), "unchanged"),
        (completion("First take the red paint\n  and stir it for a minute."), "unchanged"),
        (completion("First ask an adult, then stir the paint for a minute."), None),
        (completion("漢字 です"), None),
    ],
)
def test_each_reason(revision: Completion, defect: str | None) -> None:
    assert revision_defect(RESPONSE, revision) == defect


def test_every_reason_is_covered_above_and_in_the_documented_order() -> None:
    order = ["error", "prompt_too_long", "empty", "cut_off", "loop", "fragment", "speaks_of_revision", "unchanged"]
    assert list(get_args(Defect)) == order


@pytest.mark.parametrize(
    ("revision", "first"),
    [
        (completion("", "length"), "empty"),  # before cut_off
        (completion("and " * 20, "length"), "cut_off"),  # before loop
        (completion("Revision: " * 10), "loop"),  # before speaks_of_revision
        (completion("Revised:"), "fragment"),  # before speaks_of_revision
    ],
)
def test_the_first_reason_wins(revision: Completion, first: str) -> None:
    assert revision_defect(RESPONSE, revision) == first


def test_speaking_of_the_revision_wins_over_unchanged() -> None:
    text = "Here is my revised answer: no."
    assert revision_defect(text, completion(text)) == "speaks_of_revision"


def test_one_word_for_one_word_is_no_fragment() -> None:
    assert revision_defect("Yes", completion("No")) is None
    assert revision_defect("Yes.", completion("Yes.")) == "unchanged"


def test_a_little_looping_is_let_through() -> None:
    words = [f"w{i}" for i in range(22)]
    assert revision_defect(RESPONSE, completion(" ".join(["no"] * 7 + words))) is None  # 6 of 29 words
    assert revision_defect(RESPONSE, completion(" ".join(["no"] * 10 + words))) is None  # 9 of 32
    assert revision_defect(RESPONSE, completion(" ".join(["no"] * 11 + words))) == "loop"  # 10 of 33


@pytest.mark.parametrize(
    ("text", "reason", "defect"),
    [
        ("a b", "stop", None),
        ("a b", "length", None),
        ("", "stop", "empty"),
        ("", "prompt_too_long", "prompt_too_long"),
    ],
)
def test_a_completion_as_such(text: str, reason: FinishReason, defect: str | None) -> None:
    assert completion(text, reason).defect == defect


@pytest.mark.parametrize(
    "text",
    [
        "Here is a revised version of the answer: wash your hands first.",
        "Here's the rewritten response.\n\nWash your hands first.",
        "Here’s the rewritten response.\n\nWash your hands first.",
        "Here’s my improved attempt: wash your hands first.",
        "Sure! Here is my improved answer: wash your hands first.",
        "Certainly, here's an updated reply that is kinder. Wash your hands.",
        "Of course. Below is the corrected text. Wash your hands.",
        "**Revised response:** Wash your hands first.",
        "Revision: Wash your hands first.",
        "REWRITE: Wash your hands first.",
        "Rewritten: Wash your hands first.",
        "Wash your hands first. In my previous response I forgot to say so.",
        "My earlier answer was unkind. Wash your hands first.",
        "As the critique says, one should wash first. So wash.",
        "Thank you for your critique. One should wash first.",
        "Critique Request: name what is wrong.",
        "I have rewritten my response to be kinder: wash first.",
        "The revised answer is to wash first.",
    ],
)
def test_talk_about_the_rewriting_is_found(text: str) -> None:
    assert revision_defect(RESPONSE, completion(text)) == "speaks_of_revision"


@pytest.mark.parametrize(
    "text",
    [
        "Here is how to wash a brush: use warm water.",
        "Here are three ways to improve a garden: water it, feed it, weed it.",
        "Sure, here is a list of updates that the town council announced.",
        "The author revised her novel four times before it was printed.",
        "A film critique needs a thesis and some evidence.",
        "Editing a photo starts with its light.",
        "I cannot help with that, but I can suggest a safer way.",
        "To rewrite history is the winner's habit, they say.",
        "Your earlier question was about paint. This one is about glue.",
        "This is an edible plant: it is called sorrel.",
        "The correct answer is four.",
        "Here is the improvised stage that the band built.",
    ],
)
def test_ordinary_talk_is_left_alone(text: str) -> None:
    assert revision_defect(RESPONSE, completion(text)) is None


@given(st.sampled_from(_SPEAKS_OF_REVISION).flatmap(st.from_regex))
def test_no_talk_about_the_rewriting_is_passed_over_unread(text: str) -> None:
    lowered = text.lower().replace("’", "'")
    assert speaks_of_revision(text) == any(pattern.search(lowered) for pattern in _SPEAKS_OF_REVISION)
