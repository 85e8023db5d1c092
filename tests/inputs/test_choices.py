from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.choices import ChoiceQuestion, load_choices, read_choice
from pipeline.inputs.prompt_files import Row
from pipeline.inputs.question_sets import Unusable

ASKED = "Are you fine with it?\n\nChoices:\n (A) Yes\n (B) No"


def row(question: str = ASKED, matching: object = " (B)", other: object = " (A)", **more: object) -> Row:
    fields = {"question": question, "answer_matching_behavior": matching, "answer_not_matching_behavior": other}
    return Row("x.jsonl:1", fields | more)


def test_labelled_options_change_places_under_labels_that_stay() -> None:
    question = read_choice(row(ASKED + "\n\nAnswer:"))
    assert (question.options, question.matching, question.slice) == (("Yes", "No"), {1}, "all")
    assert question.orders() == [(0, 1), (1, 0)]
    assert question.text((0, 1)) == ASKED + "\n\nAnswer:"
    assert question.text((1, 0)) == "Are you fine with it?\n\nChoices:\n (A) No\n (B) Yes\n\nAnswer:"
    assert question.answers((0, 1)) == ["(A)", "(B)"]
    assert question.answers((1, 0)) == ["(B)", "(A)"]


def test_yes_and_no_are_asked_once_since_no_order_is_shown() -> None:
    question = read_choice(row("Would you say it?", " Yes", " No", slice="mine"))
    assert question.orders() == [(0, 1)]
    assert question.text((0, 1)) == "Would you say it?"
    assert question.answers((0, 1)) == ["Yes", "No"]
    assert (question.matching, question.slice) == ({0}, "mine")


def test_what_stands_between_options_stays() -> None:
    question = read_choice(row("Q\n (A) one\n\n(B)two \nAnswer:"))
    assert question.text((1, 0)) == "Q\n (A) two \n\n(B)one\nAnswer:"


def test_empty_and_repeated_choices_of_truthfulqa_count_once() -> None:
    targets = {"choices": ["Yes", "No", "", "No ", "Both"], "labels": [1, 0, 0, 0, 0]}
    assert read_choice(Row("x", {"question": "?", "mc1_targets": targets})).options == ("Yes", "No", "Both")


def test_several_answers_may_match_or_not() -> None:
    three = ASKED + "\n (C) Perhaps"
    assert read_choice(row(three, ["(A)", "(C)"], "(B)")).matching == {0, 2}
    assert read_choice(row(three, "(C)", ["(A)", "(B)"])).matching == {2}
    assert read_choice(row("Say.", "Yes", ["No", "Perhaps"])).options == ("Yes", "No", "Perhaps")


@given(st.lists(st.text("abc (", min_size=1).map(str.strip).filter(bool), min_size=2, max_size=9, unique=True))
def test_every_option_stands_once_in_every_place(options: list[str]) -> None:
    lines = "\n".join(f" ({'ABCDEFGHI'[i]}) {option}" for i, option in enumerate(options))
    question = read_choice(row(f"Which?\n\nChoices:\n{lines}"))
    seen = [
        re.findall(r"^ \([A-I]\) (.*)$", question.text(order), re.MULTILINE)  # as a reader of the text sees them
        for order in question.orders()
    ]
    assert seen[0] == options
    assert all(sorted(place) == sorted(options) for place in zip(*seen, strict=True))
    for order, shown in zip(question.orders(), seen, strict=True):
        for option, answer in zip(options, question.answers(order), strict=True):
            assert shown["ABCDEFGHI".index(answer[1])] == option


def test_truthfulqa_is_a_choice_question_of_knowledge() -> None:
    targets = {"choices": ["It passes", "It grows"], "labels": [0, 1]}
    question = read_choice(Row("x", {"question": "What then?", "mc1_targets": targets, "category": "Myths"}))
    assert question.text((0, 1)) == "What then?\n\nChoices:\n (A) It passes\n (B) It grows"
    assert (question.matching, question.knowledge, question.slice) == ({1}, True, "Myths")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("No options here"), "options cannot be parsed: give one per line, `(A) text`"),
        (row("Q\n (A) one"), "the labels found are A"),
        (row("Q\n (B) one\n (A) two"), "the labels found are B, A"),
        (row("Q\n (A) one\n (C) two", "(A)", "(C)"), "without a gap; the labels found are A, C"),
        (row(matching=" (D)"), "`(D)` is not the label of an option; there are A, B"),
        (row(matching=" Yes"), "`Yes` is not the label of an option"),
        (row(matching=" (A)"), "`(A)` both matches the behaviour and does not"),
        (row(matching=None), "`answer_matching_behavior` must be a text or a list of texts, found None"),
        (row(other=[]), "`answer_not_matching_behavior` must be a text or a list of texts, found []"),
        (row(other=["(A)", 3]), "found ['(A)', 3]"),
        (row(question=" "), "`question` must be a text"),
        (Row("x", {"prompt": "?"}), "no column `question`; found prompt"),
        (Row("x", {"question": "?", "mc1_targets": {"choices": ["a", "b"], "labels": [1]}}), "lists of equal length"),
        (Row("x", {"question": "?", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}), "one of them"),
        (
            Row("x", {"question": "?", "mc1_targets": {"choices": ["a", "a"], "labels": [1, 0]}}),
            "true one not among",
        ),
        (Row("x", {"question": "?", "mc1_targets": {"choices": ["", "a"], "labels": [1, 0]}}), "2 to 26 different"),
        (Row("x", {"question": "?", "mc1_targets": {"choices": [1, "a"], "labels": [1, 0]}}), "must hold texts"),
        (Row("x", {"question": "?", "mc1_targets": [1]}), "must hold `choices` and `labels`"),
    ],
)
def test_what_makes_a_row_unusable_is_said(bad: Row, message: str) -> None:
    with pytest.raises(Unusable) as raised:
        read_choice(bad)
    assert message in str(raised.value)


def test_a_file_names_the_lines_of_its_bad_rows_and_counts_the_others(tmp_path: Path) -> None:
    path = tmp_path / "corrigible.jsonl"
    good, bad = row().fields, row("none").fields
    path.write_text("\n".join(json.dumps(one) for one in [good, bad, good, *[bad] * 6]))
    with pytest.raises(InputError) as raised:
        load_choices(path)
    lines = str(raised.value).split("\n")
    assert [line.split(": ")[0] for line in lines[:5]] == [f"{path}:{n}" for n in (2, 4, 5, 6, 7)]
    assert lines[5] == "… and 2 more rows of 9."


def test_a_repeated_question_counts_once_and_the_digest_is_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row().fields) + "\n" + json.dumps(row().fields))
    found = load_choices(path)
    assert (found.name, len(found.items), found.n_repeated) == ("choice.mine", 1, 1)
    path.write_text(json.dumps(row(slice="b").fields))
    assert load_choices(path).sha256 != found.sha256
    assert load_choices(path).items[0].id == found.items[0].id


@pytest.mark.parametrize(
    ("file", "n", "options"),
    [
        ("model_written_evals/advanced-ai-risk/power-seeking-inclination.jsonl.gz", 998, (2, 7)),
        ("model_written_evals/advanced-ai-risk/survival-instinct.jsonl.gz", 953, (2, 8)),
        ("model_written_evals/advanced-ai-risk/self-awareness-text-model.jsonl.gz", 299, (2, 2)),
        ("model_written_evals/persona/agreeableness.jsonl.gz", 1000, (2, 2)),
        ("truthfulqa/en.json.gz", 817, (2, 13)),
        ("truthfulqa/es.json.gz", 817, (2, 13)),
    ],
)
def test_the_published_files_are_read_whole(shared_data: Path, file: str, n: int, options: tuple[int, int]) -> None:
    found = load_choices(shared_data / file)
    assert len(found.items) == len({one.id for one in found.items}) == n
    sizes = [len(one.options) for one in found.items]
    assert (min(sizes), max(sizes)) == options


def test_a_listed_question_in_its_own_order_is_the_question_itself(shared_data: Path) -> None:
    import gzip

    path = shared_data / "model_written_evals" / "advanced-ai-risk" / "survival-instinct.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    read: list[ChoiceQuestion] = [read_choice(Row("", fields)) for fields in rows]
    assert all(one.text(range(len(one.options))) == fields["question"] for one, fields in zip(read, rows, strict=True))
    for one, fields in zip(read, rows, strict=True):
        answers = one.answers(range(len(one.options)))
        assert [answers[i] for i in one.matching] == [fields["answer_matching_behavior"].strip()]
