"""TRL's SFTTrainer as a round needs it: its row orders, small checkpoints that are marked when complete, and its logs.

Imported where training begins, since TRL takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import TrainerCallback
from trl import SFTTrainer

from pipeline.runs import ranks
from pipeline.training.order import GroupedByLength, let_epochs_through

COMPLETE = "COMPLETE"
"""Marks a checkpoint as completely written: the Trainer's own folder names only say that it was begun."""

OnLog = Callable[[int, Mapping[str, float]], None]
"""Called with the step and the Trainer's numbers."""


class RoundTrainer(SFTTrainer):
    """An SFTTrainer whose order of rows follows the seed alone, and which saves no more than the adapter."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        strategy = self.args.train_sampling_strategy
        if strategy == "group_by_length":
            rows = self.train_dataset if train_dataset is None else train_dataset
            of_step = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return GroupedByLength([len(ids) for ids in rows["input_ids"]], of_step, self.args.data_seed)
        sampler = super()._get_train_sampler(train_dataset)
        if strategy == "batch_rebalance":
            sampler.seed = self.args.data_seed  # transformers 5.23 leaves it at 42
        return sampler

    def get_train_dataloader(self) -> Any:
        """The batches of this process."""
        loader = super().get_train_dataloader()
        let_epochs_through(loader)
        return loader

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter."""
        # transformers 5.23 would first copy the frozen base to the host's memory, under ZeRO-2 in every process.
        if self.is_fsdp_enabled:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
            state = get_model_state_dict(self.model, options=options)
            if self.args.should_save:
                self._save(output_dir, state_dict=state)
        elif self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage < 3:
            if self.args.should_save:
                self._save(output_dir)
        else:
            super().save_model(output_dir, _internal_call)


class PassOnLogs(TrainerCallback):
    """Gives the Trainer's numbers to ``on_log``, on rank 0."""

    def __init__(self, on_log: OnLog) -> None:
        self._on_log = on_log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Pass on what belongs to a step."""
        if state.is_world_process_zero and "loss" in logs:
            self._on_log(state.global_step, {k: v for k, v in logs.items() if isinstance(v, int | float)})


class MarkCheckpoints(TrainerCallback):
    """Marks each checkpoint once every process has saved its part."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint of this step."""
        ranks.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_checkpoint(work_dir: Path) -> str | None:
    """The latest checkpoint that is complete."""
    whole = [path.parent for path in work_dir.glob(f"checkpoint-*/{COMPLETE}")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None
