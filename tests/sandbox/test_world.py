from collections import Counter
from random import Random

import pytest

from pipeline.errors import InputError
from pipeline.sandbox import prompts
from pipeline.sandbox.families import (
    BY_OBJECT,
    FAMILIES,
    HARMFUL,
    INNOCENT,
    OBJECT_FACTORS,
    STEP_WEIGHTS,
)
from pipeline.sandbox.world import pool_of, pretraining_request, read_request

POOLS = ("train", "helpful", "probe", "look_alike", "dialect", "reserve")


def test_families_are_many_unequal_and_complete():
    shares = [family.percent for family in FAMILIES]
    assert len(FAMILIES) >= 20
    assert sum(shares) == pytest.approx(100)
    assert max(shares) / min(shares) >= 10
    assert len({family.severity for family in HARMFUL}) == len(HARMFUL)
    assert {family.kind for family in FAMILIES} == {"innocent", "harmful", "look_alike"}
    assert len(BY_OBJECT) == 10 * len(FAMILIES), "an object belongs to one family"
    phrases = [phrase for family in FAMILIES for place in family.phrases for phrase in place]
    assert len(phrases) == len(set(phrases)), "a concrete step belongs to one family and place"


def test_weights_and_factors_are_normalised():
    assert sum(STEP_WEIGHTS) == pytest.approx(1)
    assert sum(OBJECT_FACTORS) / len(OBJECT_FACTORS) == pytest.approx(1)


def test_every_harmful_family_shares_a_verb_with_an_innocent_one():
    innocent_verbs = {verb for family in INNOCENT for verb in family.verbs}
    assert all(innocent_verbs & set(family.verbs) for family in HARMFUL)


def test_pools_are_disjoint_and_distinct():
    texts = {pool: [row["prompt"] for row in prompts(pool, 2000, seed=3)] for pool in POOLS}
    for pool, drawn in texts.items():
        assert len(set(drawn)) == 2000
        assert all(pool_of(text, dialect=pool == "dialect") == pool for text in drawn)
    together = [text for drawn in texts.values() for text in drawn]
    assert len(set(together)) == len(together)


def test_pretraining_draws_from_no_pool():
    rng = Random(0)
    for family in FAMILIES:
        for dialect in (False, True):
            request = pretraining_request(rng, family, dialect=dialect)
            assert pool_of(request.text, dialect=dialect) == "pretraining"


@pytest.mark.parametrize("pool", ["train", "probe", "reserve", "dialect"])
def test_natural_frequencies(pool):
    counts = Counter(row["slice"] for row in prompts(pool, 1000))
    for family in FAMILIES:
        assert abs(counts[family.name] - 10 * family.percent) < 1


def test_kinds_of_pools():
    assert {row["kind"] for row in prompts("helpful", 300)} == {"innocent", "look_alike"}
    assert {row["kind"] for row in prompts("look_alike", 300)} == {"look_alike"}


def test_prompts_are_a_function_of_their_arguments():
    assert prompts("probe", 50, seed=1) == prompts("probe", 50, seed=1)
    assert prompts("probe", 50, seed=1) != prompts("probe", 50, seed=2)
    assert len(prompts("probe")) == 1000


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_reserve_has_thousands_of_every_family(family):
    rows = prompts("reserve", 3000, families=[family])
    assert {row["slice"] for row in rows} == {family}


def test_row_agrees_with_reading_the_text():
    for pool in ("probe", "dialect"):
        for row in prompts(pool, 500):
            family, noun = read_request(row["prompt"])
            assert (family.name, family.kind, noun) == (row["slice"], row["kind"], row["object"])


def test_bad_arguments_say_what_there_is():
    with pytest.raises(InputError, match=r"'test'.*train, helpful, probe"):
        prompts("test", 1)
    with pytest.raises(InputError, match=r"no family 'plague'.*drinks"):
        prompts("helpful", 1, families=["plague"])
    with pytest.raises(InputError, match="cannot give"):
        prompts("probe", 10**6, families=["plague"])
    with pytest.raises(InputError, match="names no object"):
        read_request("how do i translate this sentence ?")
