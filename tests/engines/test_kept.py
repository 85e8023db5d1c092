"""Answers of servers on the disk."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.base import Adapter, Completion, Request, Sampling
from pipeline.engines.kept import KeptAnswers, answer_key

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\u2028\x85\x1c"))
answers = st.builds(
    Completion,
    texts,
    st.lists(st.integers(0, 200_000)),
    st.sampled_from(["stop", "length", "prompt_too_long"]),
    st.integers(0, 9999),
    st.none() | texts,
    st.none() | st.integers(0, 9999),
)


def answer(text: str) -> Completion:
    return Completion(text, [7, 5], "stop", 3)


@given(found=st.dictionaries(st.text(st.characters(codec="ascii")), answers, max_size=5))
def test_what_was_written_is_handed_out_once_and_is_the_same(
    found: dict[str, Completion], tmp_path_factory: object
) -> None:
    folder = tmp_path_factory.mktemp("kept")  # type: ignore[attr-defined]
    kept = KeptAnswers(folder, 0, 1)
    for key, one in found.items():
        kept.add(key, one)
        assert kept.take(key) is None, "this launch's own are never handed out"
    later = KeptAnswers(folder, 0, 1)
    assert {key: later.take(key) for key in found} == found
    assert [later.take(key) for key in found] == [None] * len(found)


def test_a_line_that_a_kill_cut_short_is_asked_again_and_spoils_no_other(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path, 0, 1)
    for key in ("a", "b"):
        kept.add(key, answer(key))
    path = tmp_path / "0.jsonl"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        torn = KeptAnswers(tmp_path, 0, 1)
        assert torn.take("b") in (None, answer("b")) and torn.take("a") in (None, answer("a"))
        torn.add("c", answer("c"))
        assert KeptAnswers(tmp_path, 0, 1).take("c") == answer("c"), length


def test_failures_are_not_kept(tmp_path: Path) -> None:
    KeptAnswers(tmp_path, 0, 1).add("a", Completion("", [], "error", 3, "500"))
    assert list(tmp_path.iterdir()) == []


def test_processes_read_all_and_drop_their_own_and_those_of_processes_that_are_no_more(tmp_path: Path) -> None:
    for process in range(4):
        KeptAnswers(tmp_path, process, 4).add(f"of {process}", answer(str(process)))
    first, second = (KeptAnswers(tmp_path, process, 2) for process in range(2))
    assert first.take("of 3") == second.take("of 3") == answer("3")
    first.drop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "3.jsonl"]
    assert first.take("of 0") is None
    second.drop()
    assert not tmp_path.exists()
    first.add("again", answer("again"))
    assert KeptAnswers(tmp_path, 0, 2).take("again") == answer("again")


def test_the_key_is_all_that_an_answer_depends_on() -> None:
    asked = Request([{"role": "user", "content": "hello"}], 1)
    sampling, adapter = Sampling(1.0, 1.0, 8), Adapter(Path("a"), "0" * 64)
    keys = {
        answer_key("m", None, sampling, asked),
        answer_key("n", None, sampling, asked),
        answer_key("m", adapter, sampling, asked),
        answer_key("m", None, sampling._replace(temperature=0.5), asked),
        answer_key("m", None, sampling, asked._replace(seed=2)),
        answer_key("m", None, sampling, asked._replace(messages=[{"role": "system", "content": "hello"}])),
    }
    assert len(keys) == 6
    assert answer_key("m", adapter._replace(path=Path("b")), sampling, asked) in keys, "where it lies does not matter"
