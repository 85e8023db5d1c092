"""What is refused before anything is sampled."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from pipeline import command, iterate
from pipeline.errors import InputError
from pipeline.inputs.few_shot import load_few_shot
from pipeline.inputs.model import pinned
from pipeline.sandbox import model_path
from pipeline.setup.loading import load_session
from pipeline.setup.plan import plan_report
from pipeline.setup.session import Session

SMALL = """\
model_name_or_path: sandbox
constitution: constitutions/sandbox/full.txt
templates: constitutions/templates/sandbox
prompts: sandbox:train:8
probe_sets: [p=sandbox:probe:6]
"""


@pytest.fixture
def recipe(project: Path) -> list[str]:
    return ["--config", str(project / "recipes" / "sandbox-full" / "config.yaml")]


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """A recipe that is read in no time."""
    (tmp_path / "small.yaml").write_text(SMALL)
    return ["--config", str(tmp_path / "small.yaml")]


def load(*argv: str) -> Session:
    return load_session(command.parse(argv, command.StageOptions))


@pytest.mark.parametrize("engine", [["vllm"], ["server", "--policy_endpoints", "http://127.0.0.1:8000/v1"]])
def test_training_on_4_bit_weights_is_not_sampled_from_whole_ones(recipe: list[str], engine: list[str]) -> None:
    with pytest.raises(InputError, match=rf"load_in_4bit: with `policy_engine: {engine[0]}` .* not quantised"):
        load(*recipe, "--load_in_4bit", "true", "--policy_engine", *engine)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_init_kwargs", '{"use_kernels": false}'], "model_init_kwargs: the base is loaded alike"),
        (["--use_peft", "false"], "use_peft: a round trains a LoRA, and nothing else"),
    ],
)
def test_what_would_not_be_obeyed_is_refused(recipe: list[str], flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(*recipe, *flags)


@pytest.mark.parametrize(
    ("scorers", "advice"),
    [
        (["refusal", "refusal:pipeline/scorers/refusal.json"], "listed twice; keep `refusal` or `refusal:WEIGHTS`"),
        (["over_refusal:a", "over_refusal:b"], "`over_refusal` is listed twice; list all its slices after one colon"),
    ],
)
def test_a_scorer_that_is_listed_twice_is_refused_with_what_fits_it(
    recipe: list[str], scorers: list[str], advice: str
) -> None:
    with pytest.raises(InputError, match=advice):
        load(*recipe, "--scorers", "likelihood", *scorers)


@pytest.mark.parametrize(("horizon", "warned"), [(2, True), (3, False)])
def test_a_horizon_that_ends_before_the_run_is_warned_of(
    recipe: list[str], horizon: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        load(*recipe, "--num_rounds", "3", "--horizon", str(horizon))
    assert ("horizon: covers 2 of 3 rounds" in caplog.text) == warned


def test_a_slice_that_the_reserve_lacks_is_warned_of(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)

    def source(name: str, *slices: str) -> str:
        rows = [{"prompt": f"{name} {one}", "topic": one} for one in slices]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return str(tmp_path / f"{name}.jsonl")

    def said(panel: list[str], **reserves: list[str]) -> str:
        caplog.clear()
        flags = [word for key, slices in reserves.items() for word in (f"--{key}", source(key, *slices))]
        sets = [f"panel={source('panel', *panel)}", f"other={source('other', 'elsewhere')}"]
        load(*small, "--probe_slice_column", "topic", "--probe_sets", *sets, *flags)
        return " ".join(line for line in caplog.messages if "panel's" in line)

    panel = ["arson", "fraud", "theft"]
    told = said(panel, reserve=["Arson", "theft"])
    assert told.startswith("reserve: holds no prompt of 2 of the panel's 3 slices: arson, fraud. ")
    assert "stays amber" in told and "`probe_slice_column`" in told
    assert "slice_reserve: holds no prompt of 1 of the panel's 3 slices: theft." in said(
        panel, reserve=panel, slice_reserve=["arson", "fraud"]
    ), "slices are confirmed on the slice reserve alone"
    assert not said(panel, reserve=["arson"], slice_reserve=[*panel, "more"])
    assert not said(["all of it"], reserve=["everything"]), "one slice is no slice: the whole panel is confirmed"
    assert not said(panel), "without a reserve nothing is confirmed, and that is said elsewhere"


@pytest.mark.parametrize("key", ["critic", "judge"])
def test_a_key_that_is_not_set_is_missed_before_round_0(
    recipe: list[str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    asked = [*recipe, f"--{key}", "https://api.example.org/v1#model", "--api_keys", "api.example.org=SOME_KEY"]
    with pytest.raises(InputError, match=r"https://api.example.org/v1: its key .* variable SOME_KEY \(`api_keys`\)"):
        load(*asked)
    monkeypatch.setenv("SOME_KEY", "x")
    assert getattr(load(*asked).recipe, key).startswith("https://api.example.org")


def test_a_run_directory_without_a_run_begins_none(recipe: list[str], tmp_path: Path) -> None:
    absent = str(tmp_path / "mistyped")
    with pytest.raises(InputError, match=r"mistyped: holds no run\. To begin one there, .* --config RECIPE\.yaml"):
        iterate.main(["--run_dir", absent, "--dry_run"])
    iterate.main([*recipe, "--run_dir", absent, "--dry_run"])
    assert not Path(absent).exists()


def test_a_run_directory_is_under_the_home_folder_that_it_names(
    recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(*recipe, "--run_dir", "~/mine").run.path == tmp_path / "mine"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml").write_text(Path(recipe[1]).read_text(encoding="utf-8"))
    assert load("--run_dir=~/mine").run.path == tmp_path / "mine"


def test_a_run_directory_without_a_name_is_refused(recipe: list[str]) -> None:
    for arguments in (["--run_dir", "", *recipe], ["--run_dir", ""]):
        with pytest.raises(InputError, match="`run_dir` must name a folder, found nothing"):
            load(*arguments)


def test_a_dry_run_reads_the_tokenizer_and_its_chat_template(
    recipe: list[str], tmp_path: Path, sandbox_without_template: Path
) -> None:
    model = ["--model_name_or_path", str(sandbox_without_template), "--prompts", "sandbox:train:8"]
    where = ["--run_dir", str(tmp_path / "run"), "--dry_run"]
    with pytest.raises(InputError, match="has no chat template"):
        iterate.main([*recipe, *model, *where])
    (sandbox_without_template / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match=r"its tokenizer cannot be loaded"):
        iterate.main([*recipe, *model, *where])
    (sandbox_without_template / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json in this folder"):
        iterate.main([*recipe, *model, *where])


def test_a_model_without_a_chat_template_begins_no_run(
    small: list[str], project: Path, tmp_path: Path, sandbox_without_template: Path
) -> None:
    argv = [*small, "--model_name_or_path", str(sandbox_without_template), "--run_dir", str(tmp_path / "run")]
    with pytest.raises(InputError, match="has no chat template"):
        iterate.main(argv)
    assert not (tmp_path / "run").exists()
    plain = str(project / "constitutions" / "templates" / "chat_plain.jinja")
    argv += ["--chat_template_path", plain]
    session = command.open_session(command.parse(argv, command.StageOptions), argv)
    session.close()
    assert not session.run.amendments.exists(), "the template is of the recipe that the run began with"


def test_a_base_that_follows_main_is_held_at_its_commit(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = "c" * 40
    repository = tmp_path / "models--org--base"
    shutil.copytree(model_path(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    pinned.cache_clear()
    with caplog.at_level("WARNING"):
        session = load(*small, "--model_name_or_path", "org/base")
    assert "follows the Hub's main branch, and a run whose base has moved on" in caplog.text
    assert f"pin a commit: `model_revision: {commit}`" in caplog.text
    assert session.input_digests["model"] == f"org/base@{commit}"
    assert session.parsed.model.model_revision == commit, "training, vLLM and the engine load this one"
    assert session.parsed.resolved["model_revision"] == "main", "the recipe as it was given"
    assert session.roles.base().engine.encode_opening("Yes")


@pytest.mark.parametrize("key", ["critic", "reviser", "judge"])
def test_another_model_needs_a_chat_template_of_its_own(
    small: list[str], project: Path, sandbox_without_template: Path, key: str
) -> None:
    flags = [f"--{key}", str(sandbox_without_template)]
    plain = project / "constitutions" / "templates" / "chat_plain.jinja"
    with pytest.raises(
        InputError, match=rf"{key}: .* has no chat template.* Put a chat_template\.jinja into its folder"
    ):
        load(*small, *flags, "--chat_template_path", str(plain))
    shutil.copy(plain, sandbox_without_template / "chat_template.jinja")
    load(*small, *flags)


def test_a_model_that_is_not_here_yet_is_not_judged(small: list[str]) -> None:
    load(*small, "--critic", "nobody/has-this-model@0000000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[{"role": "user"}]]', "chat 1: message 1 has the keys role"),
        ('[[{"role": "user", "content": "a"}, {"role": "assistant", "content": 5}]]', "message 2 is of type int"),
        ('[[{"role": "Human", "content": "a"}]]', "has the role 'Human'; use one of system, user, assistant"),
        ('{"role": "user"}', "few_shot takes a JSON list of chats, found dict"),
        ('[{"role": "user", "content": "a"}]', "chat 1: expected a list of turns"),
        ("[[", "few.json:1: not valid JSON"),
    ],
)
def test_example_chats_are_read_before_round_0(small: list[str], tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "few.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load(*small, "--few_shot", str(tmp_path / "few.json"))


def test_example_chats_may_begin_with_a_byte_order_mark(small: list[str], tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "é"}, {"role": "assistant", "content": "no"}]
    (tmp_path / "few.json").write_text(json.dumps([turns]), encoding="utf-8-sig")
    assert load_few_shot(tmp_path / "few.json") == turns
    load(*small, "--few_shot", str(tmp_path / "few.json"))


@pytest.fixture
def templates(project: Path, tmp_path: Path) -> Path:
    """A copy of the templates that quote the exchange."""
    return Path(shutil.copytree(project / "constitutions" / "templates" / "standalone", tmp_path / "templates"))


@pytest.mark.parametrize(
    ("critique", "name", "text", "missing"),
    [
        ("true", "critique", "{{ prompt }} {{ principle.text or principle.critique }}", "the answer"),
        ("true", "rewrite", "{{ critique }} {{ principle.text or principle.revise }}", "the prompt and the answer"),
        ("true", "rewrite", "{{ response }} {{ critique }}", "the prompt"),
        ("false", "rewrite_without_critique", "{{ prompt | upper }}: again", "the answer"),
        # For one kind of principle only.
        ("true", "rewrite", "{{ prompt }} {% if principle.text %}{{ response }}{% endif %}", "the answer"),
    ],
)
def test_whoever_sees_the_template_alone_sees_the_exchange_in_it(
    small: list[str], templates: Path, tmp_path: Path, critique: str, name: str, text: str, missing: str
) -> None:
    (tmp_path / "c.txt").write_text("Be kind.\n\ncritique: Find fault.\nrevise: Write again.\n")
    flags = ["--see_exchange", "false", "--templates", str(templates), "--constitution", str(tmp_path / "c.txt")]
    load(*small, *flags, "--critique", critique)
    (templates / f"{name}.jinja").write_text(text)
    with pytest.raises(InputError, match=rf"see_exchange: false .*/{name}\.jinja, .*does not quote {missing}\."):
        load(*small, *flags, "--critique", critique)
    # A template that is not used need not quote anything.
    load(*small, *flags, "--critique", "false" if critique == "true" else "true")


def test_a_principle_for_a_slice_that_no_prompt_is_in(
    small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    (tmp_path / "c.txt").write_text("Be kind.\n\nname: short\napplies_to: homonym, homonyms\nBe brief.\n")
    rows = [{"prompt": f"say {i}", "kind": kind} for i, kind in enumerate(["homonyms", "rest"])]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = ["--prompts", str(tmp_path / "p.jsonl"), "--prompt_slice_column", "kind"]
    load(*small, "--constitution", str(tmp_path / "c.txt"), *source)
    assert (
        "the principle `short` is for `homonym`, but no training prompt is in such a slice; there are homonyms, rest"
        in caplog.text
    )


@pytest.mark.parametrize(("policy", "rows"), [("replace", 10), ("anchor", 20), ("accumulate", 30)])
def test_the_plan_counts_the_rows_of_earlier_rounds(small: list[str], tmp_path: Path, policy: str, rows: int) -> None:
    flags = ["--prompts", "sandbox:train:10", "--num_rounds", "3", "--data_policy", policy]
    session = load(*small, "--run_dir", str(tmp_path / "run"), *flags)
    assert re.search(rf"^  distill +up to {rows}$", plan_report(session), re.MULTILINE)


@pytest.fixture
def sandbox_without_template(tmp_path: Path) -> Path:
    from pipeline import sandbox

    folder = Path(shutil.copytree(sandbox.model_path(), tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    return folder
