import subprocess
import sys
from dataclasses import fields, replace

import pytest

from pipeline.errors import InputError
from pipeline.inputs.recipe_fields import Range, Recipe, find_problems

GOOD = Recipe(constitution="constitutions/harmless.txt")


def test_import_is_light():
    code = (
        "import sys, pipeline.inputs.recipe\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'numpy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


GROUPS = ["run", "prompts", "sampling", "refine", "engines", "measure", "judge", "alarms"]


def test_every_field_has_help_and_a_group():
    for item in fields(Recipe):
        assert item.metadata["help"].endswith("."), item.name
        assert item.metadata["group"] in GROUPS, item.name


def test_groups_are_contiguous_so_that_help_prints_each_once():
    groups = [item.metadata["group"] for item in fields(Recipe)]
    changes = [group for i, group in enumerate(groups) if i == 0 or groups[i - 1] != group]
    assert changes == GROUPS


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("top_p", 0.0, "must be above 0 and at most 1, found 0.0"),
        ("top_p", 1.01, "must be above 0 and at most 1, found 1.01"),
        ("temperature", -0.1, "must be at least 0, found -0.1"),
        ("num_rounds", -1, "must be at least 0, found -1"),
        ("chunk_rows", 0, "must be at least 1, found 0"),
        ("max_prompts", 0, "must be at least 1, found 0"),
        ("probe_max_new_tokens", 0, "must be at least 1, found 0"),
        ("helpful_fraction", 1.0, "must be at least 0 and at most 0.99, found 1.0"),
        ("helpful_fraction", 0.5, "needs `helpful_prompts`"),
        ("helpful_prompts", "helpful.jsonl", "needs `helpful_fraction`"),
        ("constitution", "", "must name a file"),
        ("scorers", ["kl", "kl"], "names `kl` twice"),
        ("scorers", ["kl", "refusl"], "holds `refusl`, but there is no scorer `refusl`; did you mean `refusal`?"),
        ("scorers", ["choice"], "holds `choice`, but `choice` needs its argument; write `choice:FILE`"),
        ("scorers", ["judge"], "`judge` needs its argument; write `judge:RUBRIC`"),
        ("second_judge", "base", "needs a first judge; name one as `judge`"),
        ("judge_votes", -1, "must be at least 0"),
        ("second_judge_share", 0, "must be above 0"),
        ("probe_sets", ["prompts.jsonl"], "must be `name=source`"),
        ("probe_sets", ["a="], "must be `name=source`"),
        ("probe_sets", ["../a=x"], "must be `name=source`"),
        ("probe_sets", ["a=x", "a=y"], "names `a` twice"),
        ("policy_endpoints", ["http://a:8000/v1"], "and `policy_engine: server` need each other"),
        ("critic", "http://host:none/v1", "must be an address such as"),
        ("reviser", "http://a/v1#m, http://b/v1#n", "must name the same model"),
        ("judge", "https://me:secret@host/v1", "must not contain a password"),
        ("api_keys", ["sk-1"], "never the key itself"),
        ("max_failed_rows", 1.5, "must be at least 0 and at most 1, found 1.5"),
        ("request_timeout", 0.0, "must be above 0, found 0.0"),
    ],
)
def test_a_bad_value_is_named_with_its_range(key, value, message):
    with pytest.raises(InputError) as raised:
        replace(GOOD, **{key: value})
    assert str(raised.value).startswith(f"`{key}` ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [
        {"top_p": 1.0, "temperature": 0.0, "num_rounds": 0, "max_prompts": None},
        {"helpful_fraction": 0.5, "helpful_prompts": "helpful.jsonl"},
        {"probe_sets": ["in_distribution=sandbox:probe:1000", "off-1=data.jsonl?a=b"]},
        {"policy_engine": "server", "policy_endpoints": ["http://a:8000/v1", "http://b:8000/v1"]},
        {"critic": "https://api.example.org/v1#judge", "api_keys": ["api.example.org=THE_KEY"]},
    ],
)
def test_good_values_are_kept(values):
    recipe = replace(GOOD, **values)
    assert {key: getattr(recipe, key) for key in values} == values


def test_every_bad_key_is_named_at_once():
    assert list(find_problems({"top_p": 2.0, "chunk_rows": 0, "scorers": ["kl"]})) == ["chunk_rows", "top_p"]


def test_lists_are_not_shared():
    other = Recipe(constitution="x")
    other.scorers.append("gold")
    assert "gold" not in GOOD.scorers


@pytest.mark.parametrize(
    ("range", "inside", "outside", "words"),
    [
        (Range(0, 1), [0, 0.5, 1], [-1e-9, 1.1, float("nan")], "at least 0 and at most 1"),
        (Range(0, 1, above=True), [1e-9, 1], [0, 2], "above 0 and at most 1"),
        (Range(1), [1, 1e9], [0], "at least 1"),
    ],
)
def test_range(range, inside, outside, words):
    assert all(range.holds(value) for value in inside)
    assert not any(range.holds(value) for value in outside)
    assert str(range) == words
