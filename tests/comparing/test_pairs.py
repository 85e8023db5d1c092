"""Counterfactual pairs: which are chosen, which words are marked, and that model text stays text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_runs import draw_scores, write_run
from hypothesis import given
from hypothesis import strategies as st

from pipeline.comparing.comparison import SideBySide, compare_checkpoints
from pipeline.comparing.pairs import Answer, Pair, choose_pairs, marked_words, pairs_report, read_choice
from pipeline.errors import InputError
from pipeline.report.checkpoints import Checkpoint, find_checkpoints
from pipeline.report.terminal import width
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import SCORES, read_table, to_table, write_table

CHECKPOINTS = [Checkpoint(RunDir(Path("runs/a")), round_) for round_ in (0, 2)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SideBySide:
    run = write_run(tmp_path_factory.mktemp("runs") / "a")
    return compare_checkpoints(find_checkpoints([f"{run.path}:0", f"{run.path}:2"]))


def pair(before: str, after: str, *, prompt: str = "why ?") -> Pair:
    asked = [{"role": "user", "content": prompt}]
    return Pair("probe", "p" * 64, "s0", asked, 1, "harm", Answer(before, 1.0, None), Answer(after, 2.0, None), True)


def test_the_worst_are_those_of_the_last_checkpoint_one_a_prompt(found: SideBySide) -> None:
    chosen = choose_pairs(found, "worst", 3)
    scores = draw_scores(2)["harm"]["probe"]
    worst = scores.max(axis=1).argsort()[::-1][:3]
    assert [one.prompt_id for one in chosen] == [f"probe-{number:04d}" for number in worst]
    assert [one.after.score for one in chosen] == sorted(scores.max(axis=1), reverse=True)[:3]
    assert [one.sample for one in chosen] == [int(scores[number].argmax()) for number in worst]
    assert all(one.same_noise for one in chosen)


def test_the_most_changed_and_the_bad_end_of_another_score(found: SideBySide) -> None:
    first = choose_pairs(found, "changed", 1)[0]
    moved = abs(draw_scores(2)["harm"]["probe"] - draw_scores(0)["harm"]["probe"])
    assert first.before.score is not None and first.after.score is not None
    assert abs(first.after.score - first.before.score) == pytest.approx(moved.max())
    longest = choose_pairs(found, "worst", 1, "length")[0]
    assert longest.after.score == draw_scores(2)["length"]["probe"].max()
    with pytest.raises(InputError, match="--scorer nothing: no such score; there are calm, harm, length"):
        choose_pairs(found, "worst", 1, "nothing")


def score_anew(run: RunDir, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite every row of every round's scores."""
    for path in run.path.glob("round-*/measure/scores.parquet"):
        write_table(path, [to_table([change(row) for row in read_table(path).to_pylist()], SCORES)], SCORES)


def test_a_headline_that_one_run_lacks_is_named_and_not_called_an_option(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", rounds=1)
    score_anew(two, lambda row: row | {"scorer": "toxicity" if row["scorer"] == "harm" else row["scorer"]})
    both = compare_checkpoints(find_checkpoints([f"{one.path}:0", f"{two.path}:0"]))
    with pytest.raises(InputError) as refusal:
        choose_pairs(both, "worst", 2)
    assert str(refusal.value) == (
        "--pairs: harm, the headline score of one:0, was not measured in every checkpoint; name a score with --scorer "
        "(there are calm, length)."
    )
    assert len(choose_pairs(both, "worst", 2, "calm")) == 2


def test_pairs_are_of_the_first_probe_set_with_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    on_probe = {("calm", "probe"): {"score": None}}
    score_anew(run, lambda row: row | on_probe.get((row["scorer"], row["probe_set"]), {}))
    checkpoints = find_checkpoints([f"{run.path}:0", f"{run.path}:2"])
    for everything in (False, True):
        chosen = choose_pairs(compare_checkpoints(checkpoints, everything=everything), "worst", 2, "calm")
        assert {one.probe_set for one in chosen} == {"other"}
    score_anew(run, lambda row: row | ({"score": None} if row["scorer"] == "calm" else {}))
    with pytest.raises(InputError, match="no sample has a score of calm under both run:0 and run:2; name another"):
        choose_pairs(compare_checkpoints(checkpoints), "worst", 2, "calm")


def test_random_pairs_are_the_same_every_time(found: SideBySide) -> None:
    some, again = (choose_pairs(found, "random", 10) for _ in range(2))
    assert some == again and len({one.prompt_id for one in some}) == 10
    assert len(choose_pairs(found, "random", 10**6)) == 60


def test_pairs_of_other_seeds_say_so(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, rounds=1, seed=seed) for seed, name in enumerate("ab"))
    checkpoints = find_checkpoints([str(a.path), str(b.path)])
    pairs = choose_pairs(compare_checkpoints(checkpoints), "random", 1)
    assert not pairs[0].same_noise
    assert "the seeds of these runs differ" in pairs_report(pairs, checkpoints, "random")


words = st.lists(st.sampled_from(["a", "b", "cat", " ", "  ", "\n", "\t", "漢字", "\x1b[31m"]), max_size=30).map(
    "".join
)


@given(words, words)
def test_the_pieces_are_the_texts_and_what_is_not_marked_is_in_both(before: str, after: str) -> None:
    left, right = marked_words(before, after)
    assert "".join(piece for piece, _ in left) == before
    assert "".join(piece for piece, _ in right) == after
    assert [piece for piece, marked in left if not marked] == [piece for piece, marked in right if not marked]
    assert (before == after) == (not any(marked for _, marked in left + right))


def test_changed_words_are_marked_where_they_stand() -> None:
    text = pairs_report([pair("no , i will not help .", "yes , i will help .")], CHECKPOINTS, "worst")
    assert "[-no-] , i will [-not-] help ." in text and "{+yes+} , i will help ." in text
    painted = pairs_report([pair("one two", "one six")], CHECKPOINTS, "worst", color=True)
    assert "one \x1b[31mtwo\x1b[0m" in painted and "one \x1b[32msix\x1b[0m" in painted
    assert "[-" not in painted
    together = pairs_report([pair("go", "go far away now")], CHECKPOINTS, "worst")
    assert "go {+far away now+}" in together


@given(words, words, st.integers(60, 200))
def test_lines_fit_the_terminal_and_lose_nothing(before: str, after: str, cells: int) -> None:
    lines = pairs_report([pair(before, after)], CHECKPOINTS, "worst", cells=cells).splitlines()
    table = lines[5:]
    assert all(width(line) <= cells for line in table)
    shown = "".join(re.split(r" \|(?: |$)", line)[0] for line in table)
    for mark in ("[-", "-]"):
        shown = shown.replace(mark, "")
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", before.replace("\x1b", "\\x1b"))


def test_what_a_model_wrote_is_never_obeyed() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202etxt.exe\u2028\r\b done"
    text = pairs_report([pair(evil, "fine", prompt=evil)], CHECKPOINTS, "worst")
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "\\x1b[2J" in text and "\\u202e" in text


def test_what_was_asked_for_is_read() -> None:
    assert read_choice(["worst", "5"]) == ("worst", 5)
    for given_ in (["best", "5"], ["worst", "0"], ["worst", "-1"], ["worst", "five"]):
        with pytest.raises(InputError, match="as in --pairs worst 5"):
            read_choice(given_)
