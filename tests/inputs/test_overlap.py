import random
import time
import unicodedata
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.overlap import Overlap, ProbeIndex, overlap_report, shingles, words
from pipeline.inputs.prompts import Prompt, prompt_id


@dataclass(frozen=True)
class Said:
    id: str
    messages: tuple[dict[str, str], ...]


def said(text: str, name: str = "t") -> Said:
    return Said(name, ({"role": "user", "content": text},))


def numbered(texts: list[str]) -> list[Said]:
    return [said(text, f"{number:04}") for number, text in enumerate(texts)]


def similarity(one: str, other: str) -> float:
    """By the definition; the index's answer is compared with it."""
    sets = []
    for text in (one, other):
        split = text.split()
        sets.append({" ".join(split[i : i + 3]) for i in range(max(1, len(split) - 2))} if split else set())
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union) if union else 0.0


def similarity_found(one: str, other: str) -> float:
    match = ProbeIndex({"p": [said(other)]}, 1e-9).nearest(said(one))
    return match.similarity if match else 0.0


# Two or three words and few of them: shared shingles, repeated ones and equal prompts are then common.
FEW_WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12).map(" ".join)
THRESHOLDS = st.sampled_from([1e-9, 0.2, 1 / 3, 0.5, 0.6, 0.8, 1.0])


@given(FEW_WORDS, st.lists(FEW_WORDS, max_size=12), st.lists(FEW_WORDS, max_size=4), THRESHOLDS)
def test_it_finds_what_comparing_with_every_probe_finds(text, first, second, threshold):
    probes = [(similarity(text, probe), "first", f"{n:04}") for n, probe in enumerate(first)]
    probes += [(similarity(text, probe), "second", f"{n:04}") for n, probe in enumerate(second)]
    best = min(probes, key=lambda probe: (-probe[0], *probe[1:]), default=(0.0, "", ""))
    match = ProbeIndex({"second": numbered(second), "first": numbered(first)}, threshold).nearest(said(text))
    if best[0] < threshold:
        assert match is None
    else:
        assert match is not None
        assert (match.similarity, match.probe_set, match.probe_id) == best
        assert match.prompt_text == text
        assert match.probe_text == {"first": first, "second": second}[match.probe_set][int(match.probe_id)]


@given(st.data(), st.lists(FEW_WORDS, min_size=2, max_size=12), FEW_WORDS)
def test_the_order_of_the_probes_does_not_matter(data, probes, text):
    shuffled = data.draw(st.permutations(numbered(probes)))
    assert ProbeIndex({"p": shuffled}, 0.1).nearest(said(text)) == ProbeIndex({"p": numbered(probes)}, 0.1).nearest(
        said(text)
    )


@given(FEW_WORDS, FEW_WORDS)
def test_similarity_is_symmetric(one, other):
    assert similarity_found(one, other) == similarity_found(other, one) == similarity(one, other)


LETTERS = st.text("abcxyzäöüßñéσςΔжЩ0189+$", min_size=1, max_size=5)


@given(
    st.lists(LETTERS, min_size=1, max_size=8),
    st.lists(
        st.sampled_from([" ", "  ", "\n", ", ", "... ", "?! ", " - ", "\u00a0", "\t", ' "', "。", " `"]), min_size=9
    ),
    st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]),
)
def test_case_punctuation_white_space_and_form_do_not_matter(parts, between, case, form):
    written = "".join(f"{gap}{part}" for gap, part in zip(between, parts, strict=False)) + between[-1]
    written = unicodedata.normalize(form, case(written))
    assert words(written) == words(" ".join(parts))
    assert similarity_found(written, " ".join(parts)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Don't you?", "dont  YOU"),
        ("It’s “fine” — really…", "it's 'fine', really"),
        ("ＦＵＬＬ width", "full WIDTH!"),
        ("zero\u200bwidth and \u202eturned\u202c", "zerowidth and turned"),
        ("**bold** and `code`", "bold and code"),
        ("Straße in der ﬁrma", "STRASSE in der firma"),
    ],
)
def test_the_same_words(one, other):
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("what is 5+3", "what is 5-3"),
        ("it costs $5", "it costs 5"),
        ("good morning 😀", "good morning 😡"),
        ("कि", "का"),
    ],
)
def test_other_words(one, other):
    assert words(one) != words(other)


def test_scripts_without_spaces_are_compared_by_character():
    assert words("我想学做饭。テスト") == ["我", "想", "学", "做", "饭", "テ", "ス", "ト"]
    assert similarity_found("请告诉我怎么做一个好吃的苹果派", "请告诉我怎么做一个好吃的苹果派吧") == 13 / 14


def test_shingles_of_long_short_and_wordless_text():
    assert shingles("a b c d") == {("a", "b", "c"), ("b", "c", "d")}
    assert shingles("a b") == {("a", "b")}
    assert shingles("?!") == set()
    assert similarity_found("why not", "why not now") == 0
    assert ProbeIndex({"p": [said("!!!")]}, 1e-9).nearest(said("?")) is None


def test_nothing_is_like_no_probes():
    assert ProbeIndex({}).nearest(said("a b c")) is None
    assert ProbeIndex({"empty": []}).nearest(said("a b c")) is None


@pytest.mark.parametrize(("n", "noticed"), [(28, False), (29, True)])
def test_one_word_of_n_exchanged(n, noticed):
    text = [f"w{i}" for i in range(n)]
    match = ProbeIndex({"p": [said(" ".join(text))]}).nearest(said(" ".join([*text[:10], "other", *text[11:]])))
    assert (match is not None) == noticed
    if match:
        assert match.similarity == (n - 5) / (n + 1)


def test_the_threshold_itself_is_reached():
    match = ProbeIndex({"p": [said("a b c d e f")]}, 0.8).nearest(said("a b c d e f g"))  # 4 of 5
    assert match is not None and match.similarity == 0.8


def test_user_turns_count_and_nothing_else():
    turns = [("system", "be kind"), ("user", "one two"), ("assistant", "yes"), ("user", "three four")]
    messages = tuple({"role": role, "content": content} for role, content in turns)
    probe = Prompt(prompt_id(messages), messages, "all", {})
    match = ProbeIndex({"p": [probe]}).nearest(said("One two three four."))
    assert match == Overlap("t", probe.id, "p", 1.0, "One two three four.", "one two\n\nthree four")
    assert ProbeIndex({"p": [probe]}, 0.1).nearest(said("be kind yes")) is None


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_threshold_that_makes_no_sense(threshold):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        ProbeIndex({}, threshold)


@pytest.mark.parametrize("shape", ["apart", "shared_preamble"])
def test_many_prompts_take_seconds(shape):
    """A tenth of the training prompts that are meant; what all probes share must not make it quadratic."""
    draw = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3000)]
    preamble = [f"p{i}" for i in range(100 if shape == "shared_preamble" else 0)]
    texts = [" ".join([*preamble, *draw.choices(vocabulary, k=25)]) for _ in range(15_000)]
    index = ProbeIndex({"p": numbered(texts[:5000])})
    began = time.process_time()
    assert not any(index.nearest(said(text)) for text in texts[5000:])
    assert time.process_time() - began < 20
    match = index.nearest(said(texts[3]))
    assert match is not None and match.probe_id == "0003"


def overlap(similarity: float, prompt: str, probe: str, probe_set: str = "p", name: str = "t") -> Overlap:
    return Overlap(name, "b", probe_set, similarity, prompt, probe)


def test_the_report_counts_by_set_and_shows_the_most_similar():
    overlaps = [
        overlap(0.9, "ask one", "ask two", "z"),
        overlap(1.0, "Ask\nthree", "ask three", "a", "long-id"),
        overlap(0.8, "not shown", "not shown", "a"),
    ]
    assert overlap_report(overlaps, shown=2).split("\n") == [
        "3 left out as near-duplicates of probe prompts (a 2, z 1)",
        "the most similar (share of 3-word sequences in common):",
        "  1.00  prompt long-id  Ask three",
        "        probe  b        ask three",
        "  0.90  prompt t  ask one",
        "        probe  b  ask two",
    ]
    assert overlap_report([]) == ""


def test_long_texts_are_cut_around_their_difference():
    same = "word " * 100
    lines = overlap_report([overlap(0.9, f"{same}HERE {same}", f"{same}THERE {same}")], width=80).split("\n")
    assert [len(line) for line in lines[2:]] == [80, 80]
    assert "HERE" in lines[2] and "THERE" in lines[3]
    assert lines[2].index("HERE") == lines[3].index("THERE")
    assert all(line.endswith("…") and "  …" in line for line in lines[2:])
    added = overlap_report([overlap(0.9, same, f"{same}AND MORE")], width=80)
    assert "AND MORE" in added


@given(st.text(), st.text(), st.text(min_size=1), st.integers(1, 120))
def test_no_text_can_steer_the_terminal(prompt, probe, probe_set, width):
    lines = overlap_report([overlap(0.9, prompt, probe, probe_set)], width=width).split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert all(len(line) <= max(width, 38) for line in lines[2:])  # a head of 18, and at least 20 of the text


def test_escapes_are_readable():
    shown = overlap_report([overlap(0.9, "a\x1b[31mred \u202eback", "\x07bell \ud800 end")])
    assert r"a\x1b[31mred \u202eback" in shown
    assert r"\x07bell \ud800 end" in shown
