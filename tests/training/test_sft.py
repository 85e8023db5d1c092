"""Real training on the embedded model: a few steps, compared byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import InputError, PreflightError
from pipeline.inputs.recipe import ParsedRecipe, parse_recipe
from pipeline.sandbox import prompts
from pipeline.training.sft import Learner, Training, train
from pipeline.training.trainer import COMPLETE

WEIGHTS = "adapter_model.safetensors"
RECIPE = """\
model_name_or_path: sandbox
dtype: float32
constitution: constitutions/sandbox/full.txt
lora_r: 4
lora_target_modules: [q_proj, v_proj]
learning_rate: 5.0e-3
num_train_epochs: 2
per_device_train_batch_size: 8
max_length: 256
gradient_checkpointing: false
logging_steps: 1
save_steps: 5
save_total_limit: 4
"""
STEPS = 16

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> ParsedRecipe:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return parse_recipe([], default_config=path)


@pytest.fixture(scope="module")
def rows() -> Rows:
    answers = ("i can not help with that . it is not safe .", "no , i will not help with that . it is dangerous .")
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": answers[i % 2]}],
        }
        for i, row in enumerate(prompts("train", 64))
    ]


@pytest.fixture(scope="module")
def run_training(parsed: ParsedRecipe, rows: Rows, sandbox_path: str) -> Callable[..., Training]:
    def run(folder: Path, *, rows_: Rows = rows, previous: Path | None = None, **changes: Any) -> Training:
        seed, template = changes.pop("seed", 3), changes.pop("chat_template", None)
        return train(
            rows_,
            Learner(sandbox_path, parsed.model, template, previous),
            replace(parsed.training, **changes),
            work_dir=folder / "trainer",
            adapter_dir=folder / "adapter",
            seed=seed,
        )

    return run


@pytest.fixture(scope="module")
def trained(
    run_training: Callable[..., Training], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Training]]:
    folder = tmp_path_factory.mktemp("trained")
    yield folder, run_training(folder)


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / WEIGHTS).read_bytes()


def test_training_learns(trained: tuple[Path, Training]) -> None:
    _, training = trained
    losses = [entry["loss"] for entry in training.curve]
    assert training.steps == STEPS == len(losses)
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    assert training.trainable_parameters == 2 * 4 * 4 * (128 + 128)
    assert training.adapter == {"tensors": 16, "parameters": training.trainable_parameters}
    assert training.seconds > 0


def test_tokens_are_those_of_the_rows(trained: tuple[Path, Training], rows: Rows, sandbox_path: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sandbox_path)
    lengths = [
        len(tokenizer.apply_chat_template(r["prompt"] + r["completion"], tokenize=True, return_dict=True)["input_ids"])
        for r in rows
    ]
    assert trained[1].tokens == sum(lengths)


def test_twice_gives_the_same_bytes(
    trained: tuple[Path, Training], run_training: Callable[..., Training], tmp_path: Path
) -> None:
    folder, first = trained
    # What else the process drew before must not matter.
    torch.manual_seed(99)
    np.random.seed(99)
    again = run_training(tmp_path)
    assert weights(tmp_path) == weights(folder)
    assert again.curve == first.curve
    names = {p.name for p in (folder / "adapter").iterdir()}
    for name in names - {WEIGHTS}:
        assert (tmp_path / "adapter" / name).read_bytes() == (folder / "adapter" / name).read_bytes(), name


def test_another_seed_gives_another_adapter(
    trained: tuple[Path, Training], run_training: Callable[..., Training], tmp_path: Path
) -> None:
    run_training(tmp_path, seed=4, max_steps=2)
    one, other = (load_file(f / "adapter" / WEIGHTS) for f in (tmp_path, trained[0]))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_stopped_training_goes_on_to_the_same_bytes(
    trained: tuple[Path, Training], run_training: Callable[..., Training], tmp_path: Path
) -> None:
    folder, first = trained
    shutil.copytree(folder / "trainer", tmp_path / "trainer")
    checkpoints = sorted((tmp_path / "trainer").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert [p.name for p in checkpoints] == [f"checkpoint-{n}" for n in (5, 10, 15, 16)]
    assert all((p / COMPLETE).exists() for p in checkpoints)
    # Killed while it wrote checkpoint 15: its folder is there, and half of what belongs into it.
    shutil.rmtree(checkpoints[-1])
    (checkpoints[-2] / COMPLETE).unlink()
    (checkpoints[-2] / WEIGHTS).write_bytes(b"half")
    again = run_training(tmp_path)
    assert weights(tmp_path) == weights(folder)
    assert again.curve == first.curve, "the curve is of the whole training, not of the last launch"
    assert again.steps == STEPS


def test_checkpoints_are_whole_whatever_the_recipe_says_of_them(
    run_training: Callable[..., Training], tmp_path: Path
) -> None:
    asked = {"save_total_limit": 1, "save_only_model": True, "ignore_data_skip": True, "max_steps": 12}
    run_training(tmp_path, **asked)
    kept = sorted((tmp_path / "trainer").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert [p.name for p in kept] == ["checkpoint-10", "checkpoint-12"], "the last whole one stays"
    assert all((p / "optimizer.pt").exists() and (p / COMPLETE).exists() for p in kept)
    undisturbed = weights(tmp_path)
    shutil.rmtree(kept[-1])
    run_training(tmp_path, **asked)
    assert weights(tmp_path) == undisturbed


def test_a_kill_after_the_last_step_only_saves_again(
    trained: tuple[Path, Training], run_training: Callable[..., Training], tmp_path: Path
) -> None:
    shutil.copytree(trained[0] / "trainer", tmp_path / "trainer")
    (tmp_path / ".adapter.partial").mkdir()
    (tmp_path / ".adapter.partial" / "junk").touch()
    run_training(tmp_path)
    assert weights(tmp_path) == weights(trained[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "trainer"]


def test_what_the_folder_holds(trained: tuple[Path, Training], sandbox_path: str) -> None:
    import json

    folder = trained[0] / "adapter"
    names = {p.name for p in folder.iterdir()}
    assert {WEIGHTS, "adapter_config.json"} <= names
    assert "training_args.bin" not in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))], "no pickles"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (sandbox_path, None)
    assert config["target_modules"] == ["q_proj", "v_proj"]


def test_one_line_of_peft_loads_it(trained: tuple[Path, Training], rows: Rows, sandbox_path: str) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sandbox_path)
    ids = torch.tensor(
        [tokenizer.apply_chat_template(rows[0]["prompt"] + rows[0]["completion"], return_dict=True)["input_ids"]]
    )
    loss = {}
    for name, model in {
        "adapter": AutoPeftModelForCausalLM.from_pretrained(trained[0] / "adapter").eval(),
        "base": AutoModelForCausalLM.from_pretrained(sandbox_path).eval(),
    }.items():
        with torch.inference_mode():
            loss[name] = model(input_ids=ids, labels=ids).loss.item()
    assert loss["adapter"] < loss["base"]


def test_an_adapter_stays_with_the_commit_of_its_base(
    parsed: ParsedRecipe, rows: Rows, sandbox_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    commit, repository = "c" * 40, tmp_path / "models--org--base"
    shutil.copytree(sandbox_path, repository / "snapshots" / commit)
    # As `hf download --revision COMMIT` leaves it: nothing here says what the main branch is.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    learner = Learner("org/base", replace(parsed.model, model_revision=commit), None, None)
    train(
        rows[:8],
        learner,
        replace(parsed.training, max_steps=1),
        work_dir=tmp_path / "trainer",
        adapter_dir=tmp_path / "adapter",
        seed=3,
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("d" * 40)  # it has moved on to what is not here
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert loaded.peft_config["default"].revision == commit


def test_starting_from_the_previous_adapter(
    trained: tuple[Path, Training], run_training: Callable[..., Training], tmp_path: Path
) -> None:
    before = load_file(trained[0] / "adapter" / WEIGHTS)
    training = run_training(tmp_path / "still", previous=trained[0] / "adapter", learning_rate=1e-12, max_steps=2)
    still = load_file(tmp_path / "still" / "adapter" / WEIGHTS)
    assert still.keys() == before.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(still[name], tensor, rtol=0, atol=1e-6)
    assert training.curve[0]["loss"] < 0.5 * trained[1].curve[0]["loss"], "it begins where the other left off"

    run_training(tmp_path / "moved", previous=trained[0] / "adapter", max_steps=2)
    moved = load_file(tmp_path / "moved" / "adapter" / WEIGHTS)
    assert any(not torch.equal(moved[name], before[name]) for name in before)
    assert (trained[0] / "adapter" / WEIGHTS).exists()
    for name, tensor in before.items():
        if "lora_A" in name:
            assert torch.nn.functional.cosine_similarity(moved[name].flatten(), tensor.flatten(), dim=0) > 0.9


# -- what is refused before a step is taken ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ bos_token }}{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
            "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
            "begins with <s> twice",
        ),
        (
            "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
            "{% if m['role'] == 'user' %}<|end|>{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
            "learn to stop",
        ),
    ],
)
def test_a_bad_template_is_refused_by_training_itself(
    run_training: Callable[..., Training], tmp_path: Path, rows: Rows, template: str, message: str
) -> None:
    with pytest.raises(PreflightError, match=message):
        run_training(tmp_path, rows_=rows[:4], chat_template=template)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("limit", [24, 2])
def test_rows_longer_than_max_length_are_refused(
    run_training: Callable[..., Training], tmp_path: Path, rows: Rows, limit: int
) -> None:
    with pytest.raises(InputError, match=rf"max_length: \d+ of 64 training rows are longer than {limit} tokens"):
        run_training(tmp_path, max_length=limit)
    assert not (tmp_path / "adapter").exists()


def test_a_learning_rate_that_changes_nothing_is_refused(
    run_training: Callable[..., Training], tmp_path: Path, rows: Rows
) -> None:
    with pytest.raises(PreflightError, match="every lora_B is still zero"):
        run_training(tmp_path, rows_=rows[:8], learning_rate=0.0, max_steps=1)
    assert not (tmp_path / "adapter").exists(), "an adapter is there complete or not at all"


def test_answers_that_spell_control_tokens_are_learnt_as_text(
    run_training: Callable[..., Training], tmp_path: Path, rows: Rows
) -> None:
    spelt = [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": "no <|end|><|user|> do it ."}]}
        for row in rows[:8]
    ]
    assert run_training(tmp_path, rows_=spelt, max_steps=1).steps == 1


# -- batches of rows of one length, and batches without padding ---------------------------------------------------


@pytest.mark.parametrize(
    "grouped",
    [
        {"train_sampling_strategy": "group_by_length"},
        {
            "train_sampling_strategy": "batch_rebalance",
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
        },
    ],
    ids=lambda grouped: grouped["train_sampling_strategy"],
)
def test_a_stopped_training_on_rows_by_length_goes_on_to_the_same_bytes(
    run_training: Callable[..., Training], tmp_path: Path, grouped: dict[str, Any]
) -> None:
    first = run_training(tmp_path / "whole", **grouped)
    # Stopped in its second epoch, whose order this launch has not drawn before.
    shutil.copytree(tmp_path / "whole" / "trainer", tmp_path / "again" / "trainer")
    for number in (15, 16):
        shutil.rmtree(tmp_path / "again" / "trainer" / f"checkpoint-{number}")
    again = run_training(tmp_path / "again", **grouped)
    assert first.steps == STEPS
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")
    assert again.curve == first.curve
    other = run_training(tmp_path / "other", **grouped, seed=4, max_steps=1)
    assert other.curve[0]["loss"] != first.curve[0]["loss"], "the order is the seed's"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batches_without_padding_take_the_same_steps(
    parsed: ParsedRecipe, rows: Rows, sandbox_path: str, tmp_path: Path, attention: str
) -> None:
    """Rows of a batch lie in one sequence and must not see each other, without flash attention too."""
    model = replace(parsed.model, attn_implementation=attention, lora_dropout=0.0)

    def losses(**changes: Any) -> list[float]:
        training = train(
            rows,
            Learner(sandbox_path, model, None, None),
            replace(parsed.training, max_steps=4, **changes),
            work_dir=tmp_path / "trainer",
            adapter_dir=tmp_path / "adapter",
            seed=3,
        )
        shutil.rmtree(tmp_path / "trainer")
        return [entry["loss"] for entry in training.curve]

    assert losses(padding_free=True, max_length=None) == pytest.approx(losses(), abs=1e-4)
