"""Training tokens per second of `pipeline/training` and of a plain TRL script, and what batching by length would add.

    python benchmarks/sft_step.py [--repeats 5] [--only plain ours]

All use the same rows, weights, LoRA and hyperparameters, those of recipes/sandbox-blind-spot, and take turns in one
process. The sandbox's rows are its prompts with refusals of what is harmful and the model's own answers to the rest;
the random Llama of 58.5 M parameters gets prompts of 20 to 400 tokens and answers of 5 to 256. `steps` is the time
within steps, `whole` the time from rows in memory to an adapter on disk. Tokens are those of the rows, not padding.

Four ways to spend less on padding are compared: batches of rows of similar length; the rows of a step, drawn as
usual, in four micro-batches by length; rows end to end in one sequence (padding_free); packs, which TRL fills to
`max_length`. Held-out loss is reported for the sandbox, in nats per token of the completions, for refusals and for
full answers, which are longer. Batches of one length weight the tokens of short rows more than mixed batches do.
Without padding and in micro-batches a step learns the same as before; the losses of every step are compared with the
plain script's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import trl
import yaml
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel
from random_llama import NAME, machine, make_model, mixed_texts, summary
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from pipeline import sandbox
from pipeline.engines.base import Request, Sampling
from pipeline.engines.local import LocalEngine
from pipeline.inputs.recipe import parse_recipe
from pipeline.training.sft import Learner, train

PROJECT = Path(__file__).resolve().parents[1]
RECIPE = PROJECT / "recipes" / "sandbox-blind-spot" / "config.yaml"
SEED = 0

Rows = list[dict[str, Any]]


class Case(NamedTuple):
    """A model, what it is taught, and the settings that differ from the sandbox's recipe."""

    name: str
    model: Path
    rows: Rows
    held_out: Mapping[str, Rows]
    changes: Mapping[str, Any]


class Clock(TrainerCallback):
    """Notes when steps begin and end."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Called before the forward pass, when the batch is ready."""
        self.began.append(time.monotonic())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called after the optimizer step."""
        self.ended.append(time.monotonic())


class Observed(SFTTrainer):
    """An SFTTrainer with a clock, which is remembered."""

    made: ClassVar[list[Any]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = Clock()
        self.add_callback(self.clock)
        self.made.append(self)


trl.SFTTrainer = Observed  # before a round's own trainer is defined on top of it


def plain(case: Case, folder: Path, **changes: Any) -> Path:
    """Train as in TRL's documentation, with the recipe's numbers; return the adapter."""
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | case.changes | changes
    shape = {"r": settings["lora_r"], "lora_alpha": settings["lora_alpha"], "lora_dropout": settings["lora_dropout"]}
    names = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "per_device_train_batch_size", "max_length")
    names += ("gradient_checkpointing", "logging_steps", "save_steps", *changes)
    trainer = trl.SFTTrainer(
        model=str(case.model),
        args=SFTConfig(
            output_dir=str(folder / "trainer"),
            model_init_kwargs={"dtype": "float32"},
            use_cpu=True,
            bf16=False,
            seed=SEED,
            data_seed=SEED,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
            **{name: settings[name] for name in names},
        ),
        train_dataset=Dataset.from_list(case.rows),
        peft_config=LoraConfig(**shape, target_modules=settings["lora_target_modules"], task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    return folder / "adapter"


def ours(case: Case, folder: Path, **changes: Any) -> Path:
    """Train as a round does; return the adapter."""
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | case.changes | changes
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings | {"model_name_or_path": str(case.model)}), encoding="utf-8")
    parsed = parse_recipe(["--prompts", "sandbox:train"], default_config=recipe)
    adapter = folder / "adapter"
    learner = Learner(str(case.model), parsed.model, None, None)
    train(case.rows, learner, parsed.training, work_dir=folder / "trainer", adapter_dir=adapter, seed=SEED)
    return adapter


def sandbox_case(rows: int) -> Case:
    """Rows like those a sandbox round produces: short refusals, and answers twice as long."""
    asked = sandbox.prompts("train", rows + 200)
    engine = LocalEngine(str(sandbox.model_path()), revision=None, dtype="float32", chat_template=None, batch_size=128)
    dialogues = [[{"role": "user", "content": row["prompt"]}] for row in asked]
    answers = engine.generate([Request(d, i) for i, d in enumerate(dialogues)], Sampling(1.0, 1.0, 96), None)
    engine.close()
    told = [
        {
            "prompt": dialogue,
            "completion": [{"role": "assistant", "content": text}],
            "refused": row["kind"] == "harmful",
        }
        for row, dialogue, text in (
            (row, dialogue, "sorry , i will not help . it is not safe ." if row["kind"] == "harmful" else answer.text)
            for row, dialogue, answer in zip(asked, dialogues, answers, strict=True)
        )
    ]
    kinds = {"refusals": True, "answers": False}
    held_out = {kind: [row for row in told[rows:] if row["refused"] is refused] for kind, refused in kinds.items()}
    taught = [{name: row[name] for name in ("prompt", "completion")} for row in told[:rows]]
    return Case("sandbox", sandbox.model_path(), taught, held_out, {})


def random_case(folder: Path, rows: int) -> Case:
    """The random Llama: nothing to learn, so nothing is held out."""
    make_model(folder)
    asked, answered = mixed_texts(rows, 20, 400, seed=0), mixed_texts(rows, 5, 256, seed=1)
    taught = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for prompt, answer in zip(asked, answered, strict=True)
    ]
    changes = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "max_length": 768, "learning_rate": 1e-4}
    return Case(NAME, folder, taught, {}, changes | {"logging_steps": 1})


@torch.inference_mode()
def held_out_loss(case: Case, adapter: Path) -> dict[str, float]:
    """Nats per token of the completions, row by row, so that no padding or packing matters."""
    tokenizer = AutoTokenizer.from_pretrained(case.model)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(case.model), str(adapter)).eval()
    found = {}
    for kind, rows in case.held_out.items():
        total, count = 0.0, 0
        for row in rows:
            prompt, whole = (
                tokenizer.apply_chat_template(messages, add_generation_prompt=opened, return_dict=True)["input_ids"]
                for messages, opened in ((row["prompt"], True), (row["prompt"] + row["completion"], False))
            )
            logits = model(input_ids=torch.tensor([whole])).logits[0, len(prompt) - 1 : -1]
            told = torch.tensor(whole[len(prompt) :])
            total += float(torch.nn.functional.cross_entropy(logits, told, reduction="sum"))
            count += len(told)
        found[kind] = total / count
    return found


def turn(case: Case, way: Callable[[Case, Path], Path]) -> tuple[dict[str, float], list[float]]:
    """One training: its numbers, and its losses step by step."""
    Observed.made.clear()
    with tempfile.TemporaryDirectory() as name:
        started, before = time.monotonic(), time.process_time()
        adapter = way(case, Path(name))
        whole, processor = time.monotonic() - started, time.process_time() - before
        loss = held_out_loss(case, adapter)
    (trainer,) = Observed.made
    clock: Clock = trainer.clock
    rows = trainer.train_dataset
    tokens = sum(map(len, rows["input_ids"])) * trainer.state.epoch
    within = sum(end - begin for begin, end in zip(clock.began, clock.ended, strict=True))
    numbers = {
        "steps": trainer.state.global_step,
        "tokens": tokens,
        "steps_seconds": within,
        "whole_seconds": whole,
        "whole_processor_seconds": processor,
        "steps_tokens_per_second": tokens / within,
        "loop_tokens_per_second": tokens / (clock.ended[-1] - clock.began[0]),
        "whole_tokens_per_second": tokens / whole,
        **{f"held_out_loss_{kind}": value for kind, value in loss.items()},
    }
    return numbers, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ways_of(case: Case) -> dict[str, Callable[[Case, Path], Path]]:
    """The ways compared. Packs hold about as many tokens per step as unpacked rows do."""
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | case.changes
    tokenizer = AutoTokenizer.from_pretrained(case.model)
    lengths = [
        len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])
        for row in case.rows
    ]
    mean = sum(lengths) / len(lengths)
    rows = settings["per_device_train_batch_size"]
    packs = max(1, round(rows * mean / settings["max_length"]))
    packed = {"packing": True, "per_device_train_batch_size": packs}
    rebalanced = {
        "train_sampling_strategy": "batch_rebalance",
        "per_device_train_batch_size": rows // 4,
        "gradient_accumulation_steps": 4,
    }
    return {
        "plain": plain,
        "ours": ours,
        "ours, grouped by length": lambda c, f: ours(c, f, train_sampling_strategy="group_by_length"),
        "ours, micro-batches by length": lambda c, f: ours(c, f, **rebalanced),
        "ours, padding_free": lambda c, f: ours(c, f, padding_free=True, max_length=None),
        "plain, packed (bfd)": lambda c, f: plain(c, f, **packed, packing_strategy="bfd"),
        "plain, packed (wrapped)": lambda c, f: plain(c, f, **packed, packing_strategy="wrapped"),
    }


def measure(case: Case, only: Sequence[str] | None, repeats: int) -> dict[str, Any]:
    """Measure all ways in turn, after a short warm-up training."""
    ways = {name: way for name, way in ways_of(case).items() if not only or name in only}
    turn(case._replace(rows=case.rows[:16], held_out={}, changes={**case.changes, "num_train_epochs": 1}), plain)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    apart: dict[str, float] = {}
    expected: list[float] = []
    for _ in range(repeats):
        for name, way in ways.items():
            numbers, losses = turn(case, way)
            expected = losses if name == "plain" else expected
            if len(losses) == len(expected):
                apart[name] = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
            found[name].append(numbers)
            print(f"{case.name}, {name}: { {key: round(value, 3) for key, value in numbers.items()} }", flush=True)
    result: dict[str, Any] = {
        name: {key: summary([one[key] for one in turns], 3) for key in turns[0]} for name, turns in found.items()
    }
    for name in [name for name in found if name != "plain" and "plain" in found]:
        result[f"{name} / plain"] = {
            key: summary([a[key] / b[key] for a, b in zip(found[name], found["plain"], strict=True)], 4)
            for key in (
                "steps_tokens_per_second",
                "loop_tokens_per_second",
                "whole_tokens_per_second",
                "whole_processor_seconds",
            )
        }
    result["largest difference of a logged loss from plain"] = apart
    return result


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48, help="training rows of the random Llama")
    parser.add_argument("--sandbox_rows", type=int, default=600)
    parser.add_argument("--models", nargs="+", choices=("sandbox", "random"), default=["sandbox", "random"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="ways to measure; all when unset")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    a = parser.parse_args()
    disable_progress_bars()
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": {"torch": torch.__version__, "trl": trl.__version__},
        "settings": {"rows": a.rows, "sandbox_rows": a.sandbox_rows, "repeats": a.repeats},
    }
    with tempfile.TemporaryDirectory() as folder:
        if "sandbox" in a.models:
            found["sandbox"] = measure(sandbox_case(a.sandbox_rows), a.only, a.repeats)
        if "random" in a.models:
            found[NAME] = measure(random_case(Path(folder), a.rows), a.only, a.repeats)
    a.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
