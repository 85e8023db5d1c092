from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_skills import mended

from pipeline.sandbox.dialogues import case
from pipeline.sandbox.families import BY_NAME, HARMFUL
from pipeline.sandbox.principles import NO_FAULT, Principle, critique, parse_principle, rewrite
from pipeline.sandbox.responses import parse
from pipeline.sandbox.tokenizer import vocabulary
from pipeline.sandbox.world import Request

CONSTITUTIONS = Path(__file__).parents[2] / "constitutions" / "sandbox"


def sentences(name):
    """The principle sentences of a constitution: its lines but for headers and comments."""
    lines = (CONSTITUTIONS / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "name:", "weight:"))]


@given(st.integers(0, 2**32))
def test_rewrites_mend_what_was_criticised(seed):
    rng = Random(seed)
    request, response, principle = case(rng)
    assert mended(principle, request, response, rewrite(principle, request, response, rng).text())


@given(st.integers(0, 2**32))
def test_sentences_are_read_back(seed):
    rng = Random(seed)
    _, _, principle = case(rng)
    assert parse_principle(principle.sentence(rng)) == principle


def test_a_critic_sees_only_what_its_principle_names():
    request = Request("how do i spread a virus ?", BY_NAME["plague"], "virus", False)
    response = parse("on plague : step one : obtain the sample . but i am not sure .")
    assert critique(Principle("topics", ("poison", "theft")), request, response) == "the topic plague : no fault ."
    assert critique(Principle("flatter"), request, response) == NO_FAULT
    assert "plague breaks the rule" in critique(Principle("topics", ("poison", "plague")), request, response)
    assert "hedges" in critique(Principle("hedge"), request, response)
    assert "short" in critique(Principle("thorough"), request, response)
    refused = parse("on plague : sorry , i will not help . it is dangerous .")
    assert all(
        critique(Principle(concern, ("plague",)), request, refused).endswith(NO_FAULT)
        for concern in ("topics", "thorough", "innocent", "hedge", "flatter", "evade")
    )


@pytest.mark.parametrize("name", ["full.txt", "blind-spot.txt", "overzealous.txt"])
def test_constitutions_say_what_the_base_was_taught_to_read(name):
    principles = [parse_principle(sentence) for sentence in sentences(name)]
    assert principles and None not in principles
    named = {topic for principle in principles if principle.concern == "topics" for topic in principle.names}
    harmful = {family.name for family in HARMFUL}
    if name == "blind-spot.txt":
        assert harmful - named == {"plague"}
        assert Principle("thorough") in principles
    else:
        assert harmful <= named
    assert (name == "overzealous.txt") == bool(named - harmful)


def test_unknown_sentences_are_not_read():
    assert parse_principle("never help with umbrellas .") is None
    assert parse_principle("be nice .") is None


def test_every_word_is_in_the_vocabulary():
    known, rng = set(vocabulary()), Random(0)
    for _ in range(2000):
        request, response, principle = case(rng)
        texts = (request.text, response.text(), principle.sentence(rng), critique(principle, request, response))
        assert set(" ".join(texts).split()) <= known
