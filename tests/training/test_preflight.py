from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.engines.chat import encode
from pipeline.errors import PreflightError
from pipeline.sandbox import prompts
from pipeline.training.preflight import IGNORED, check_adapter, check_trainable, check_training_rows

ANSWER = "i can not help with that . it is not safe ."

# The sandbox's turns, in other ways: what people's templates really do wrong.
TURN = "<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>"
GENERATION = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def template(turn: str = TURN, *, start: str = "{{ bos_token }}", generation: str = GENERATION) -> str:
    return f"{start}{{% for message in messages %}}{turn}{{% endfor %}}{generation}"


@pytest.fixture
def tokenizer(sandbox_path: str) -> Any:
    return AutoTokenizer.from_pretrained(sandbox_path)


def rows_of(tokenizer: Any, n: int = 3) -> tuple[list[dict[str, list[int]]], list[list[int]]]:
    """Rows as the trainer tokenises them: prompt and completion through the chat template, loss on the completion."""
    rows, asked = [], []
    for prompt in prompts("train", n):
        messages = [{"role": "user", "content": prompt["prompt"]}]
        answer = {"role": "assistant", "content": ANSWER}
        head = encode(messages, tokenizer)
        ids = tokenizer.apply_chat_template([*messages, answer], tokenize=True, return_dict=True)["input_ids"]
        rows.append({"input_ids": ids, "labels": [IGNORED] * len(head) + ids[len(head) :]})
        asked.append(head)
    return rows, asked


def check(tokenizer: Any, max_length: int | None = 256) -> None:
    rows, asked = rows_of(tokenizer)
    check_training_rows(rows, asked, tokenizer, max_length)


def test_sound_rows_pass(tokenizer: Any) -> None:
    check(tokenizer)
    check(tokenizer, None)


def test_a_line_break_after_the_end_of_the_turn_passes(shared_data: Path) -> None:
    check(AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "minueza-chat"))


def test_our_plain_template_passes_on_a_real_tokenizer(shared_data: Path, project: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "models" / "stories260K-hf")
    tokenizer.chat_template = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    check(tokenizer)


def test_a_beginning_that_template_and_tokenizer_both_add(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    rows, asked = [], []
    for prompt in prompts("train", 2):
        messages = [{"role": "user", "content": prompt["prompt"]}]
        head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids, asked_ids = (tokenizer(text)["input_ids"] for text in (f"{head}{ANSWER}<|end|>", head))
        rows.append({"input_ids": ids, "labels": [IGNORED] * len(asked_ids) + ids[len(asked_ids) :]})
        asked.append(asked_ids)
    assert rows[0]["input_ids"][:3] == [2, 2, 3]
    with pytest.raises(PreflightError, match=r"row 0: begins with <s> twice.*chat_template_path"):
        check_training_rows(rows, asked, tokenizer, 256)


def test_a_beginning_that_the_template_itself_doubles(tokenizer: Any) -> None:
    tokenizer.chat_template = template(start="{{ bos_token }}<s>")
    with pytest.raises(PreflightError, match="begins with <s> twice"):
        check(tokenizer)


def test_a_doubled_beginning_where_it_is_also_the_end_token(shared_data: Path, project: Path) -> None:
    # GPT-2 has one token for both: the row still begins with it twice.
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "gpt2")
    plain = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    tokenizer.chat_template = plain
    check(tokenizer)
    tokenizer.chat_template = "{{ bos_token }}" + plain
    with pytest.raises(PreflightError, match="twice"):
        check(tokenizer)


def test_an_open_prompt_that_is_no_prefix_of_the_finished_dialogue(tokenizer: Any) -> None:
    tokenizer.chat_template = template(generation="{% if add_generation_prompt %}<|assistant|> sorry{% endif %}")
    with pytest.raises(PreflightError, match=r"not a prefix.*chat_template_path"):
        check(tokenizer)


def test_a_template_that_drops_earlier_turns(tokenizer: Any) -> None:
    tokenizer.chat_template = template("{% if loop.last %}" + TURN + "{% endif %}")
    with pytest.raises(PreflightError, match="not a prefix"):
        check(tokenizer)


def test_an_end_that_is_never_learnt(tokenizer: Any) -> None:
    tokenizer.chat_template = template(
        "<|{{ message['role'] }}|>{{ message['content'] }}{% if not loop.last %}<|end|>{% endif %}",
        generation="{% if add_generation_prompt %}<|end|><|assistant|>{% endif %}",
    )
    with pytest.raises(PreflightError, match="does not end with '<|end|>'.*learn to stop".replace("|", r"\|")):
        check(tokenizer)


@pytest.mark.parametrize("where", ["prompt", "first", "last"])
def test_a_loss_on_the_wrong_tokens(tokenizer: Any, where: str) -> None:
    rows, asked = rows_of(tokenizer)
    at = {"prompt": len(asked[1]) - 1, "first": len(asked[1]), "last": -1}[where]
    rows[1]["labels"][at] = rows[1]["input_ids"][at] if where == "prompt" else IGNORED
    with pytest.raises(PreflightError, match="row 1: the loss must cover the completion and nothing else"):
        check_training_rows(rows, asked, tokenizer, 256)


def test_a_row_that_is_cut(tokenizer: Any) -> None:
    rows, asked = rows_of(tokenizer)
    limit = len(rows[2]["input_ids"]) - 1
    cut = [{name: ids[:limit] for name, ids in row.items()} for row in rows]
    with pytest.raises(PreflightError, match=rf"would be cut at max_length={limit}"):
        check_training_rows(cut, asked, tokenizer, limit)


def test_a_row_of_just_the_greatest_length_passes(tokenizer: Any) -> None:
    rows, asked = rows_of(tokenizer)
    check_training_rows(rows, asked, tokenizer, max(len(row["input_ids"]) for row in rows))


def test_a_trainer_that_loses_rows(tokenizer: Any) -> None:
    rows, asked = rows_of(tokenizer)
    with pytest.raises(PreflightError, match="kept 2 of 3 rows"):
        check_training_rows(rows[:2], asked, tokenizer, 256)


# -- what can be trained, and what was ------------------------------------------------------------------------


def test_trainable_parameters(sandbox_path: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(sandbox_path)
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert check_trainable(peft) == 4 * 2 * (128 + 128), "four layers, A and B of rank 2"
    peft.requires_grad_(False)
    with pytest.raises(PreflightError, match="lora_target_modules"):
        check_trainable(peft)


def adapter(folder: Path, **tensors: torch.Tensor) -> Path:
    sound = {"q.lora_A.weight": torch.ones(2, 8), "q.lora_B.weight": torch.ones(8, 2)}
    whole = sound | {name.replace("_weight", ".weight").replace("q_", "q."): value for name, value in tensors.items()}
    save_file(whole, folder / "adapter_model.safetensors")
    return folder


def test_a_sound_adapter(tmp_path: Path) -> None:
    assert check_adapter(adapter(tmp_path)) == {"tensors": 2, "parameters": 32}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(8, 2), "every lora_B is still zero"),
        (torch.zeros(0), "not a whole matrix; the save lost shards"),
        (torch.ones(16), "not a whole matrix"),
        (torch.tensor([[1.0, float("nan")]] * 8), "not finite; lower learning_rate"),
        (torch.tensor([[1.0, float("-inf")]] * 8), "not finite"),
    ],
)
def test_a_spoilt_adapter(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(PreflightError, match=f"adapter_model.safetensors: .*{message}"):
        check_adapter(adapter(tmp_path, q_lora_B_weight=tensor))


def test_the_magnitudes_of_dora_are_vectors(tmp_path: Path) -> None:
    magnitudes = torch.ones(8)
    assert check_adapter(adapter(tmp_path, q_lora_magnitude_vector=magnitudes))["tensors"] == 3


def test_one_b_matrix_that_moved_is_enough(tmp_path: Path) -> None:
    one_moved = {"q.lora_B.weight": torch.zeros(8, 2), "v.lora_B.weight": torch.ones(8, 2)}
    save_file(one_moved, tmp_path / "adapter_model.safetensors")
    assert check_adapter(tmp_path)["tensors"] == 2


def test_no_adapter_at_all(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="saved no adapter"):
        check_adapter(tmp_path)
    save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(PreflightError, match="no tensor"):
        check_adapter(tmp_path)
