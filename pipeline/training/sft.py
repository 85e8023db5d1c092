"""One round's fine-tuning: TRL's SFTTrainer with a LoRA, its checkpoints, and the adapter it leaves."""

from __future__ import annotations

import gc
import json
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engines.chat import encode, load_tokenizer, plain_messages
from pipeline.errors import InputError
from pipeline.runs import ranks
from pipeline.runs.files import write_json
from pipeline.training.bar import training_bar
from pipeline.training.lora import require_same_lora
from pipeline.training.preflight import check_adapter, check_trainable, check_training_rows

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

    from pipeline.training.trainer import OnLog, RoundTrainer


@dataclass(frozen=True)
class Training:
    """What training did; nothing but ``seconds``, this launch's time in the training loop, depends on the clock.

    ``strategy`` is how training was divided over the processes: what actually ran, not what was requested.
    """

    strategy: str
    trainable_parameters: int
    adapter: dict[str, int]
    steps: int
    epochs: float
    tokens: int
    curve: list[dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class Learner:
    """What is trained: a base, and the LoRA on it.

    Attributes:
        model: Hub id or folder of the base.
        config: precision, quantisation and LoRA shape.
        chat_template: Jinja source that replaces the tokenizer's, or None.
        previous: adapter to continue, or None for a fresh one.
    """

    model: str
    config: ModelConfig
    chat_template: str | None
    previous: Path | None


def train(
    rows: Sequence[dict[str, Any]],
    learner: Learner,
    config: SFTConfig,
    *,
    work_dir: Path,
    adapter_dir: Path,
    seed: int,
    label: str = "distill",
    on_log: OnLog | None = None,
) -> Training:
    """Fine-tune on conversational prompt-completion rows and save the adapter; all ranks call this.

    A killed training resumes from its last complete checkpoint in ``work_dir``.

    Args:
        rows: rows with ``prompt`` and ``completion``, each a list of messages.
        learner: what is trained.
        config: TRL's training settings.
        work_dir: folder for checkpoints; removed by the caller when the stage is done.
        adapter_dir: where the adapter goes, complete or not at all.
        seed: seed of initialisation, data order and dropout.
        label: label of the progress bar.
        on_log: called on rank 0 with the step and the Trainer's numbers, every ``logging_steps``.

    Raises:
        PreflightError: see ``pipeline.training.preflight``.
        InputError: some rows are longer than ``max_length``, or the adapter to continue has another LoRA.
    """
    if learner.previous is not None:
        require_same_lora(vars(learner.config), learner.previous)
    _be_quiet()
    from pipeline.training.trainer import last_checkpoint

    trainer = _build(rows, learner, _settings(config, work_dir, seed), on_log)
    trainable = check_trainable(trainer.model)
    prompts = [encode(row["prompt"], trainer.processing_class) for row in rows]
    check_training_rows(trainer.train_dataset, prompts, trainer.processing_class, config.max_length)
    tokens = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    trainer.add_callback(training_bar(label, tokens))
    started = time.monotonic()
    # Rank 0 decides: another node may not see yet what is there, or see what was removed.
    trainer.train(resume_from_checkpoint=ranks.from_main(last_checkpoint(work_dir)))
    seconds = time.monotonic() - started
    _save(trainer, learner, adapter_dir)
    state, strategy = trainer.state, _strategy(trainer)
    _let_go(trainer)
    del trainer
    _free_memory()
    return Training(
        strategy,
        trainable,
        check_adapter(adapter_dir),
        state.global_step,
        float(state.epoch),
        tokens,
        _curve(state.log_history),
        seconds,
    )


def _settings(config: SFTConfig, work_dir: Path, seed: int) -> SFTConfig:
    """The recipe's settings, and those that a round cannot do without."""
    return replace(
        config,
        output_dir=str(work_dir),
        seed=seed,
        data_seed=seed,
        chat_template_path=None,  # the tokenizer has it already
        disable_tqdm=True,
        eos_token=None,
        report_to="none",  # its trackers would open a run of their own, and know nothing of a resumed one
        completion_only_loss=True,
        save_total_limit=max(config.save_total_limit or 2, 2),  # the last complete one stays until the next is
        save_only_model=False,  # or a resumed training would continue with a fresh optimizer,
        ignore_data_skip=False,  # or with rows that it has already seen
        save_on_each_node=False,  # all nodes share one file system
        # PEFT's models are unknown to the Trainer, which would then search every backward pass for unused weights.
        ddp_find_unused_parameters=bool(config.ddp_find_unused_parameters),
        shuffle_dataset=False,  # the sampler shuffles, and rows are checked against what they were made from
    )


def _be_quiet() -> None:
    # The stage has a bar of its own.
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # TRL 1.16 reads an attribute that transformers 5.23 has renamed.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # DeepSpeed 0.19 calls functions that torch 2.13 has renamed.
    warnings.filterwarnings("ignore", message="`torch.distributed.*` is deprecated", category=FutureWarning)


def _build(
    rows: Sequence[dict[str, Any]], learner: Learner, settings: SFTConfig, on_log: OnLog | None
) -> RoundTrainer:
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import get_peft_config

    from pipeline.training.trainer import MarkCheckpoints, PassOnLogs, RoundTrainer

    tokenizer = load_tokenizer(learner.model, learner.config.model_revision, learner.chat_template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    columns = ("prompt", "completion")
    dataset = Dataset.from_list([{name: plain_messages(row[name], tokenizer) for name in columns} for row in rows])
    trainer = RoundTrainer(
        model=_load(learner),
        args=settings,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=get_peft_config(replace(learner.config, use_peft=True)) if learner.previous is None else None,
        callbacks=[MarkCheckpoints(), *([PassOnLogs(on_log)] if on_log else [])],
    )
    _require_room(trainer.train_dataset, dataset, tokenizer, settings.max_length)
    trainer.remove_callback(PrinterCallback)  # the curve goes into the manifest, not onto the console
    return trainer


def _load(learner: Learner) -> Any:
    """The base, under the adapter to continue if there is one.

    Not left to TRL 1.16, which reads the class from the main branch whatever the revision, and under FSDP would spread
    the model over all GPUs that it sees.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    from trl import get_quantization_config

    quantization = get_quantization_config(learner.config)
    base = AutoModelForCausalLM.from_pretrained(
        learner.model,
        dtype=learner.config.dtype,
        revision=learner.config.model_revision,
        attn_implementation=learner.config.attn_implementation,
        use_safetensors=True,
        trust_remote_code=False,
        **({"quantization_config": quantization} if quantization else {}),
    )
    if learner.previous is None:
        return base
    # ZeRO-3 gathers in one dtype (https://github.com/deepspeedai/DeepSpeed/issues/8072); TRL handles fresh ones.
    same_dtype = is_deepspeed_zero3_enabled()
    return PeftModel.from_pretrained(
        base,
        str(learner.previous),
        is_trainable=True,
        autocast_adapter_dtype=not same_dtype,
        torch_device="cpu",  # or every process reads it onto the first GPU
    )


def _save(trainer: RoundTrainer, learner: Learner, adapter_dir: Path) -> None:
    """Write the adapter, complete or not at all."""
    partial = adapter_dir.with_name(f".{adapter_dir.name}.partial")
    if ranks.is_main():
        shutil.rmtree(partial, ignore_errors=True)  # left by a launch that was killed here
    ranks.barrier()
    trainer.save_model(str(partial))
    if ranks.is_main():
        _tidy(partial, learner)
        check_adapter(partial)
        shutil.rmtree(adapter_dir, ignore_errors=True)
        partial.rename(adapter_dir)
    ranks.barrier()


def _strategy(trainer: RoundTrainer) -> str:
    plugin = trainer.accelerator.state.deepspeed_plugin
    kind: str = trainer.accelerator.distributed_type.value
    return f"{kind} ZeRO-{plugin.zero_stage}" if plugin is not None else kind


def _let_go(trainer: RoundTrainer) -> None:
    """Give back what DeepSpeed would keep in memory for as long as the process lives."""
    if trainer.accelerator.state.deepspeed_plugin is None:
        return
    trainer.accelerator.free_memory()
    # Hooks of ZeRO-3 keep the model that they were put on (DeepSpeed 0.19): it stays, without its weights.
    for parameter in trainer.model.parameters():
        parameter.data = parameter.new_empty(0)
        if (share := getattr(parameter, "ds_tensor", None)) is not None:
            share.data = share.new_empty(0)


def _free_memory() -> None:
    """Give memory back to the device: an engine in another process may need it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _require_room(kept: Any, dataset: Any, tokenizer: Any, max_length: int | None) -> None:
    """Refuse rows that TRL has cut, or left out because cutting would leave nothing but their prompt."""
    if max_length is None or (len(kept) == len(dataset) and all(len(ids) < max_length for ids in kept["input_ids"])):
        return  # most runs need not pay for tokenising everything once more
    lengths = [
        len(
            tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=True, return_dict=True)[
                "input_ids"
            ]
        )
        for row in dataset
    ]
    over = sum(length > max_length for length in lengths)
    if over:
        raise InputError(
            f"max_length: {over} of {len(lengths)} training rows are longer than {max_length} tokens (the longest has "
            f"{max(lengths)}) and would lose their end. Set `max_length` to {max(lengths)} or more."
        )


def _tidy(folder: Path, learner: Learner) -> None:
    # Removes a pickle, which nobody should have to trust, and sorts names whose order came from a set.
    (folder / "training_args.bin").unlink(missing_ok=True)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in config.items():
        if isinstance(value, list):
            config[key] = sorted(value, key=str)
    config["base_model_name_or_path"] = learner.model
    # Or plain PEFT would put the adapter on what the Hub's main branch holds by then.
    config["revision"] = None if Path(learner.model).is_dir() else learner.config.model_revision
    write_json(path, config)


def _curve(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    return [{name: entry[name] for name in names if name in entry} for entry in history if "loss" in entry]
