"""What is refused before anything is sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import command, iterate
from pipeline.errors import InputError
from pipeline.loading import load_session
from pipeline.session import Session


@pytest.fixture
def recipe(project: Path) -> list[str]:
    return ["--config", str(project / "recipes" / "sandbox-full" / "config.yaml")]


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
    with pytest.raises(InputError, match=r"its tokenizer cannot be loaded"):
        (sandbox_without_template / "tokenizer_config.json").write_text("{")
        iterate.main([*recipe, *model, *where])


@pytest.fixture
def sandbox_without_template(tmp_path: Path) -> Path:
    import shutil

    from pipeline import sandbox

    folder = Path(shutil.copytree(sandbox.model_path(), tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    return folder
