import random
import string
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.recipe import merge_specs
from pipeline.inputs.recipe_fields import Recipe
from pipeline.inputs.recipe_parser import COMMAND_LINE, RENAMED, read_file, read_flags, read_values, suggest
from pipeline.inputs.recipe_values import Spec, kind_of, read_choices, read_specs


@cache
def all_specs() -> dict[str, Spec]:
    """Every field that a recipe may give: ours, ModelConfig's and SFTConfig's."""
    from trl import ModelConfig, SFTConfig

    return merge_specs(*map(read_specs, (Recipe, ModelConfig, SFTConfig)))


@pytest.fixture
def specs() -> dict[str, Spec]:
    return all_specs()


def read(text: str, folder: Path, specs: dict[str, Spec], argv: list[str] | None = None) -> Any:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    entries, _, problems = read_file(path)
    flags, flag_problems = read_flags(argv or [])
    reading = read_values(entries, flags, specs, {})
    found = [*problems, *flag_problems, *reading.problems]
    return reading._replace(problems=[str(problem).replace(f"{folder}/", "") for problem in found])


OURS = read_specs(Recipe)
WORD = st.text("abcdefgxyz/-.", min_size=2, max_size=8).filter(lambda word: word not in ("on", "no", "off", "yes"))


def values_of(spec: Spec) -> st.SearchStrategy[Any]:
    """Values that a person may write into YAML for a field, as Python has them."""
    choices = []
    for member in spec.members:
        kind = kind_of(member)
        if kind is bool:
            choices.append(st.booleans())
        elif kind is int:
            choices.append(st.integers(-(10**6), 10**6))
        elif kind is float:
            choices.append(st.floats(allow_nan=False, allow_infinity=False))
        elif kind is str:
            # Beside another type, or null, some texts are that other type: words then.
            choices.append(st.text(max_size=12) if spec.members == (str,) else WORD)
        elif kind is list:
            item = get_args(member)[0]
            choices.append(st.lists(WORD if item is str else st.sampled_from([*read_choices(item).values()])))
        elif kind is dict:
            choices.append(st.dictionaries(WORD, st.integers() | st.booleans() | WORD, max_size=3))
        elif kind is NoneType:
            choices.append(st.just("none") if spec.default == "none" else st.none())
        elif hasattr(member, "__args__") or hasattr(member, "__members__"):
            choices.append(st.sampled_from([*read_choices(member).values()]))
    return st.one_of(choices)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read(tmp_path, data):
    specs = all_specs()
    names = data.draw(st.lists(st.sampled_from(sorted(specs)), unique=True, max_size=12))
    written = {name: data.draw(values_of(specs[name]), label=name) for name in names}
    reading = read(yaml.safe_dump(written, sort_keys=False), tmp_path, specs)
    assert reading.problems == []
    assert reading.values == written
    assert {name: type(value) for name, value in reading.values.items()} == {
        name: type(value) for name, value in written.items()
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(
        st.sampled_from(["", "# a comment", "top_p: 0.5", "max_prompts: 3", "templates: >\n  a\n  b"]),
        unique=True,
    ),
    bad=st.sampled_from(["temprature: 1", "batch_size: [1, 2]", "critique: perhaps", "chunk_rows:"]),
)
def test_the_line_is_right(tmp_path, before, bad):
    text = "\n".join([*before, bad, "num_rounds: 2"])
    line = text[: text.index(bad)].count("\n") + 1
    (problem,) = read(text, tmp_path, OURS).problems
    assert problem.startswith(f"recipe.yaml:{line}: ")
    assert f"`{bad.partition(':')[0]}`" in problem


def edit(name: str, rng: random.Random) -> str:
    """The name after one typing mistake: a letter dropped, doubled, replaced, or two exchanged."""
    i = rng.randrange(len(name) - 1)
    return rng.choice(
        [
            name[:i] + name[i + 1 :],
            name[:i] + name[i] + name[i:],
            name[:i] + rng.choice(string.ascii_lowercase) + name[i + 1 :],
            name[:i] + name[i + 1] + name[i] + name[i + 2 :],
        ]
    )


def test_a_typo_gets_the_right_suggestion(specs):
    rng = random.Random(0)
    typos = [(name, edit(name, rng)) for name in specs for _ in range(5)]
    typos = [(name, typo) for name, typo in typos if typo not in specs]
    right = sum(f"`{name}`" in suggest(typo, specs) for name, typo in typos)
    assert len(typos) > 700
    assert right / len(typos) > 0.95


def test_old_names_point_to_new_ones(specs):
    assert RENAMED.keys().isdisjoint(specs)
    assert set(RENAMED.values()) <= specs.keys()
    assert suggest("torch_dtype", specs) == "did you mean `dtype`?"


def test_a_name_like_no_other_gets_the_lists():
    assert suggest("zzzzqqqq", OURS) == "--help and --help_all list the valid ones"


def test_all_mistakes_at_once(tmp_path):
    text = "num_rounds: [1, 2]\ntemprature: 1\ntop_p: abc\nbatch_size: 2.7\nbatch_size: 3\nchunk_rows: null\n"
    assert read(text, tmp_path, OURS, ["--critque", "no", "--max-prompts", "many"]).problems == [
        "recipe.yaml:5: `batch_size` is given twice, first on line 4; keep one",
        "recipe.yaml:1: `num_rounds` expects an integer, found the list `[1, 2]`",
        "recipe.yaml:2: unknown key `temprature`; did you mean `temperature`?",
        "recipe.yaml:3: `top_p` expects a number, found `abc`",
        "recipe.yaml:4: `batch_size` expects an integer, found `2.7`",
        "recipe.yaml:6: `chunk_rows` expects an integer, found `null`",
        "command line: unknown flag `--critque`; did you mean `--critique`?",
        "command line: `--max-prompts` expects an integer or null, found `many`",
    ]


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (["--num_rounds", "9"], {"num_rounds": 9}),
        (["--num-rounds", "9"], {"num_rounds": 9}),
        (["--num-rounds=9"], {"num_rounds": 9}),
        (["--critique"], {"critique": True}),
        (["--critique", "false", "--num_rounds", "1"], {"critique": False, "num_rounds": 1}),
        (["--scorers", "gold", "kl"], {"scorers": ["gold", "kl"]}),
        (["--scorers", "gold"], {"scorers": ["gold"]}),
        (["--keep_dropped", "none"], {"keep_dropped": []}),
        (["--max_prompts", "none"], {"max_prompts": None}),
        (["--templates", "a b"], {"templates": "a b"}),
        (["--probe_sets", "a=x y.jsonl"], {"probe_sets": ["a=x y.jsonl"]}),
        (["--templates=--odd"], {"templates": "--odd"}),
        (["--templates="], {"templates": ""}),
        (["--few_shot", "a=b"], {"few_shot": "a=b"}),
    ],
)
def test_flags(tmp_path, argv, values):
    reading = read("", tmp_path, OURS, argv)
    assert (reading.values, reading.problems) == (values, [])


def test_a_negative_number_is_a_value(tmp_path, specs):
    assert read("", tmp_path, specs, ["--max_steps", "-1"]).values == {"max_steps": -1}


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--num_round", "3"], "unknown flag `--num_round`; did you mean `--num_rounds`?"),
        (["--num_rounds", "1", "2"], "`--num_rounds` expects an integer, found 2 values"),
        (["--num_rounds"], "`--num_rounds` expects an integer, found no values"),
        (["--scorers"], "found no values"),
        (["--num_rounds", "1", "--num-rounds", "2"], "`--num-rounds` is given twice; keep one"),
        (["recipe.yaml"], "unexpected `recipe.yaml`; write `--name value`, or --config FILE for a recipe"),
    ],
)
def test_bad_flags(tmp_path, argv, problem):
    (found,) = read("", tmp_path, OURS, argv).problems
    assert found.startswith("command line: ")
    assert problem in found


def test_a_flag_wins_and_the_file_is_checked_all_the_same(tmp_path):
    reading = read("num_rounds: 2\ntop_p: x", tmp_path, OURS, ["--num_rounds", "9", "--top_p", "0.5"])
    assert reading.values == {"num_rounds": 9, "top_p": 0.5}
    assert reading.places["num_rounds"] == COMMAND_LINE
    assert reading.problems == ["recipe.yaml:2: `top_p` expects a number, found `x`"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1", ":2: not valid YAML"),
        ("x: 1\ny: 1\nz: 1: 2", ":3: not valid YAML: mapping values are not allowed here"),
        ("- a\n- b", ":1: a recipe is lines of `key: value`"),
        ("just text", ":1: a recipe is lines of `key: value`"),
        ("a: 1\n---\nb: 2", ":2: not valid YAML"),
        ("a: \x00", ": not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, text, problem):
    with pytest.raises(InputError) as raised:
        read(text, tmp_path, OURS)
    assert f"recipe.yaml{problem}" in str(raised.value)


def test_a_missing_file_and_a_wrong_encoding(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml: cannot be read as a recipe: No such file"):
        read_file(tmp_path / "no.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"templates: caf\xe9")
    with pytest.raises(InputError, match=r"latin\.yaml: not UTF-8 text at byte 14"):
        read_file(tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_recipe_gives_nothing(tmp_path, text):
    assert read(text, tmp_path, OURS).values == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("temperature: !!python/object/apply:os.getpid []", "which recipes do not take"),
        ("temperature: !secret 1", "has the tag `!secret`"),
        ("chunk_rows: &x [*x]", "holds what JSON cannot"),
        ("few_shot: {a: 1, a: 2}", "has `a` twice"),
        ("few_shot: {a: 2024-01-01}", "holds what JSON cannot"),
        ("few_shot: {a: !!python/name:os.system ''}", "holds what JSON cannot"),
        ("? [a, b]\n: 1", "unknown key"),
        ("num-rounds: 1", "unknown key `num-rounds`; did you mean `num_rounds`?"),
    ],
)
def test_odd_yaml(tmp_path, text, problem):
    (found,) = read(text, tmp_path, OURS).problems
    assert found.startswith("recipe.yaml:1: ")
    assert problem in found


def test_a_mapping_reads_numbers_as_yaml_1_2_does(tmp_path, specs):
    text = "lr_scheduler_kwargs: {min_lr_rate: 1e-1, 7: {deep: [1E+3, yes]}}"
    assert read(text, tmp_path, specs).values == {
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1, "7": {"deep": [1000.0, True]}}
    }


def test_env_is_text_as_written(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("env: {A: 1, B: yes, C: 'x y'}\ntop_p: 1")
    entries, env, problems = read_file(path)
    assert (env, problems, [entry.name for entry in entries]) == (
        {"A": "1", "B": "yes", "C": "x y"},
        [],
        ["top_p"],
    )


@pytest.mark.parametrize("text", ["env: x", "env: [A]", "env: {A: [1]}", "env:"])
def test_env_must_be_a_flat_mapping(tmp_path, text):
    assert read(text, tmp_path, OURS).problems == ["recipe.yaml:1: `env` expects a mapping of variables to text"]


def test_a_name_in_two_groups_is_refused():
    with pytest.raises(ValueError, match="num_rounds"):
        merge_specs(OURS, {"num_rounds": OURS["num_rounds"]})


def test_no_field_is_required_but_the_constitution(specs):
    assert [name for name, spec in specs.items() if spec.default is MISSING] == ["constitution"]
