"""The progress bar of training: the same as for other stages, in place of the Trainer's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.runs.progress import Progress

if TYPE_CHECKING:
    from transformers import TrainerCallback


def training_bar(label: str, tokens: int) -> TrainerCallback:
    """A callback that shows steps, tokens per second and the time left.

    Args:
        label: text in front of the bar.
        tokens: number of tokens of all training rows, each counted once.
    """
    from transformers import TrainerCallback

    class Bar(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._progress = Progress(state.max_steps, state.global_step, label, unit="steps")
            self._of_step = round(tokens * state.num_train_epochs / max(state.max_steps, 1))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # All processes take a step together.
            self._progress.sampled(self._of_step)
            self._progress.advance(1)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._progress.close()

    return Bar()
