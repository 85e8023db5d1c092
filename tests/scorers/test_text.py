from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.scorers.base import Sample
from pipeline.scorers.text import Length, Loops, looping_share

WORDS = [f"w{i}" for i in range(60)]


def share_by_definition(words: list[str]) -> float:
    """For every period the longest run of words that are those of a period before, if it stands three times."""
    longest = 0
    for period in range(1, len(words)):
        run = 0
        for i in range(period, len(words)):
            run = run + 1 if words[i] == words[i - period] else 0
            if run >= max(2 * period, 6):
                longest = max(longest, run)
    return longest / len(words) if words else 0.0


@given(
    st.lists(st.sampled_from("abcd"), max_size=12),
    st.lists(st.sampled_from("abcd"), max_size=5),
    st.integers(0, 6),
    st.lists(st.sampled_from("abcdefgh"), max_size=12),
)
def test_the_share_is_that_of_the_definition(
    before: list[str], block: list[str], times: int, after: list[str]
) -> None:
    words = [*before, *block * times, *after]
    share = share_by_definition(words)
    assert looping_share(" ".join(words)) == share
    for floor in (0.1, 0.3, 0.6):
        assert looping_share(" ".join(words), floor) == share or share < floor


@given(
    st.lists(st.sampled_from(WORDS[:30]), min_size=1, max_size=8, unique=True),
    st.integers(3, 8),
    st.lists(st.sampled_from(WORDS[30:45]), max_size=15, unique=True),
    st.lists(st.sampled_from(WORDS[45:]), max_size=15, unique=True),
)
def test_a_planted_loop_is_found_with_its_share(
    block: list[str], times: int, before: list[str], after: list[str]
) -> None:
    # Distinct words around it, so nothing else loops; all standings but the first count.
    repeated = len(block) * (times - 1)
    assume(repeated >= 6)
    words = [*before, *block * times, *after]
    assert looping_share(" ".join(words)) == pytest.approx(repeated / len(words))


@given(
    st.lists(st.sampled_from(WORDS[:20]), min_size=1, max_size=12, unique=True),
    st.lists(st.sampled_from(WORDS[20:]), min_size=12, max_size=20, unique=True),
)
def test_twice_is_no_loop(block: list[str], after: list[str]) -> None:
    assert looping_share(" ".join([*block, *block, *after])) == 0


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=8), unique=True, max_size=80))
def test_distinct_words_do_not_loop(words: list[str]) -> None:
    assert looping_share(" ".join(words)) == 0


@given(st.text(max_size=300))
def test_it_is_a_share(text: str) -> None:
    assert 0 <= looping_share(text) < 1


@pytest.mark.parametrize(
    "text",
    [
        "Add the flour and stir well. Add the eggs and stir well. Add the milk and stir well. Add salt and stir well.",
        "One egg, two eggs, three eggs, four eggs, five eggs, six eggs, seven eggs, eight eggs, nine eggs, ten eggs.",
        "Step one: open the box. Step two: open the bag. Step three: open the tin. Step four: open the jar.",
        "No, no, no! That is very, very, very kind of you.",
        "ha ha ha ha that is funny",
        "I had had it, and that that is is that that is not is not is that it it is",
    ],
)
def test_repetition_that_is_not_back_to_back_or_short_is_no_loop(text: str) -> None:
    assert looping_share(text) == 0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("and " * 10, 9 / 10),
        ("I am sorry. " * 4, 9 / 12),
        ("a b " * 4 + "c", 6 / 9),
        ("x y z a b c a b c a b c a b c", 9 / 15),
        ("a b c a b c a b c a b", 8 / 11),  # cut off in the middle of the block
        ("go " * 7 + "so " * 9, 8 / 16),  # the longest of two
        ("", 0),
        ("   \n ", 0),
        ("word", 0),
    ],
)
def test_known_loops(text: str, share: float) -> None:
    assert looping_share(text) == pytest.approx(share)


def test_long_texts_take_no_time() -> None:
    import time

    words = " ".join(f"{i * 7919 % 503}" for i in range(2_000))
    started = time.process_time()
    looping_share(words)
    assert time.process_time() - started < 0.5


def test_scores_are_in_order() -> None:
    samples = [Sample([], "a b c", [1, 2, 3, 4]), Sample([], "go " * 10, []), Sample([], "", [5])]
    assert [score.value for score in Length()(samples)["length"]] == [4, 0, 1]
    assert [score.value for score in Loops()(samples)["loops"]] == [0, 0.9, 0]
    assert (Length.columns, Loops.columns) == ({"length": "both"}, {"loops": "high"})
