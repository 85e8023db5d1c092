"""A progress bar on the terminal for the current stage: rows, tokens per second, time left."""

from __future__ import annotations

import time

from tqdm import tqdm

from pipeline.runs import ranks

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} {unit}{postfix}, {elapsed} gone, {remaining} left"


class Progress:
    """The bar of one stage; shown only by rank 0 and only on a terminal.

    Args:
        total: number of rows, or steps, that this process has to do.
        done: how many of them were done before this launch.
        label: text in front of the bar.
        unit: what is counted.
    """

    def __init__(self, total: int, done: int, label: str, unit: str = "rows") -> None:
        self._tokens = 0
        self._started = time.monotonic()
        # ``disable=None`` is tqdm's own rule for "only on a terminal".
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=label,
            unit=unit,
            leave=False,
            dynamic_ncols=True,
            bar_format=_FORMAT,
            disable=None if ranks.is_main() else True,
        )

    def advance(self, count: int) -> None:
        """Add to the rows or steps done."""
        if self._tokens:
            speed = self._tokens / max(time.monotonic() - self._started, 1e-9)
            self._bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
        self._bar.update(count)

    def sampled(self, tokens: int) -> None:
        """Add to the tokens of all processes, shown the next time rows or steps advance."""
        self._tokens += tokens

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def __enter__(self) -> Progress:
        """Show the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self.close()
