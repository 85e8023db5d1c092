from __future__ import annotations

import random
import time

from pipeline.report.boilerplate import SHOWN, in_words, rising_phrases, split_words

WORDS = [f"word{i}" for i in range(300)]


def answers(seed: int, n: int = 300, samples: int = 2, *, phrase: str = "", share: float = 0.0) -> dict:
    rng = random.Random(seed)
    found = {}
    for i in range(n):
        for k in range(samples):
            text = " ".join(rng.choices(WORDS, k=30))
            found[f"p{i}", k] = f"{text} {phrase}" if rng.random() < share else text
    return found


def test_a_planted_phrase_is_found_once_and_whole() -> None:
    phrase = "I hope that this helps you today!"
    found = rising_phrases(answers(0, phrase=phrase, share=0.02), answers(1, phrase=phrase, share=0.3))
    assert len(found) == 1
    assert found[0].text in in_words(phrase)
    assert len(found[0].text.split()) >= 3
    assert found[0].before < 0.05 and 0.25 < found[0].after < 0.36
    assert found[0].p_value < 1e-10


def test_two_phrases_of_other_answers_are_two() -> None:
    after = answers(1, phrase="as a kind assistant", share=0.3) | {
        (f"p{i}", 0): "wholly other words, in the name of love" for i in range(40)
    }
    found = rising_phrases(answers(0), after)
    assert sorted("love" in one.text or "words" in one.text for one in found) == [False, True]


def test_nothing_rises_between_rounds_that_are_alike() -> None:
    phrase = "let me know if you need more"
    wrong = 0
    for seed in range(30):
        same = [answers(seed * 2 + i, n=150, phrase=phrase, share=0.3) for i in range(2)]
        wrong += bool(rising_phrases(*same))
    assert wrong <= 4  # the one phrase that there is, at 5%


def test_many_rare_phrases_are_no_discoveries() -> None:
    # Phrases of 0.5 to 3% that nothing changed: some rise by a point, and more than most of the others.
    rng = random.Random(1)
    phrases = [(" ".join(rng.choices(WORDS, k=4)), rng.uniform(0.005, 0.03)) for _ in range(300)]
    wrong = 0
    for _ in range(6):
        same = [
            {
                (f"p{i}", 0): " . ".join([f"x{i}", *(p for p, share in phrases if rng.random() < share)])
                for i in range(250)
            }
            for _ in range(2)
        ]
        wrong += len(rising_phrases(*same))
    assert wrong <= 2


def test_what_falls_is_not_reported() -> None:
    phrase = "I hope that this helps you"
    assert rising_phrases(answers(0, phrase=phrase, share=0.4), answers(1, phrase=phrase, share=0.1)) == []


def test_a_phrase_in_a_few_prompts_is_no_boilerplate() -> None:
    after = answers(1) | {(f"p{i}", k): "said again and again and again" for i in range(6) for k in range(2)}
    assert rising_phrases(answers(0), after) == []


def test_empty_and_other_prompts() -> None:
    assert rising_phrases({}, {}) == []
    assert rising_phrases({("a", 0): "one two three"}, {("b", 0): "one two three"}) == []
    assert rising_phrases({("a", 0): ""}, {("a", 0): ""}) == []


def test_no_more_than_a_screenful() -> None:
    rng = random.Random(0)
    phrases = [" ".join(rng.choices(WORDS, k=4)) for _ in range(40)]
    after = {(f"p{i}", 0): f"{phrases[i % 40]} x{i}" for i in range(1200)}
    before = {(f"p{i}", 0): f"y{i} z{i}" for i in range(1200)}
    assert len(rising_phrases(before, after)) == SHOWN


def test_words_are_told_apart() -> None:
    assert split_words("It’s OK, isn't it? 3.5%") == ["it's", "ok", ",", "isn't", "it", "?", "3", ".", "5", "%"]


def test_speed() -> None:
    sides = [answers(seed, n=500, samples=4) for seed in range(2)]
    started = time.process_time()
    rising_phrases(*sides)
    assert time.process_time() - started < 10  # 120,000 words: measured at 0.7 s
