"""What a round cost, from the manifests of its stages: tokens, seconds, and, given a price, money."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.report.checkpoints import Checkpoint
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir

_PRICE = re.compile(r"(?P<amount>\d+(?:\.\d+)?)/(?P<unit>h|Mtok)")


class Price(NamedTuple):
    """What is paid, in any currency.

    Attributes:
        device_hour: price per hour of one device.
        million_tokens: price per million tokens, read or sampled.
    """

    device_hour: float = 0.0
    million_tokens: float = 0.0


class Cost(NamedTuple):
    """What some stages cost.

    Attributes:
        prompt_tokens: tokens read by the models that sample.
        new_tokens: tokens sampled.
        trained_tokens: tokens of the training rows, each row counted once.
        seconds: wall-clock seconds of the launches that finished the stages.
        device_seconds: seconds of all processes; where a stage was cut short and resumed, at least the seconds of
            work.
    """

    prompt_tokens: int = 0
    new_tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0

    def plus(self, other: Cost) -> Cost:
        """The sum of both."""
        return Cost(
            self.prompt_tokens + other.prompt_tokens,
            self.new_tokens + other.new_tokens,
            self.trained_tokens + other.trained_tokens,
            self.seconds + other.seconds,
            self.device_seconds + other.device_seconds,
        )

    def money(self, price: Price) -> float:
        """What it costs at a price."""
        tokens = self.prompt_tokens + self.new_tokens
        return self.device_seconds / 3600 * price.device_hour + tokens / 1e6 * price.million_tokens


def read_price(given: Sequence[str]) -> Price | None:
    """The price given as ``2.50/h``, ``0.30/Mtok``, or both; None if nothing is given.

    Raises:
        InputError: an amount is malformed or given twice.
    """
    amounts = {}
    for text in given:
        match = _PRICE.fullmatch(text)
        if match is None or match["unit"] in amounts:
            raise InputError(
                f"--price {text}: give an amount per device-hour (2.50/h) or per million tokens (0.30/Mtok), each at "
                "most once."
            )
        amounts[match["unit"]] = float(match["amount"])
    return Price(amounts.get("h", 0.0), amounts.get("Mtok", 0.0)) if amounts else None


def round_manifests(run: RunDir, round_: int) -> Iterator[dict[str, Any]]:
    """The manifests of the stages that a round has finished; those of its alarm all have the stage name ``alarm``."""
    for name in ("generate", "refine", "audit", "distill", "measure"):
        for path in sorted(run.stage_dir(round_, name).glob("*manifest.json")):
            yield read_json(path)
    for name in ("calibration", "again", "alarm"):
        for path in sorted(run.stage_dir(round_, name).rglob("*manifest.json")):
            yield read_json(path) | {"stage": "alarm"}


def round_cost(checkpoint: Checkpoint) -> Cost:
    """What a checkpoint's round cost, as far as it is finished."""
    total = Cost()
    for manifest in round_manifests(checkpoint.run, checkpoint.round):
        tokens, timing = manifest.get("tokens", {}), manifest["timing"]
        busy = max(timing["wall_seconds"] * timing["processes"], timing["work_seconds"])
        read, sampled, trained = (tokens.get(name, 0) for name in ("prompt", "new", "trained"))
        total = total.plus(Cost(read, sampled, trained, timing["wall_seconds"], busy))
    return total


def cost_so_far(checkpoint: Checkpoint) -> Cost:
    """What it cost to get to a checkpoint: its round and all before it."""
    total = Cost()
    for round_ in range(checkpoint.round + 1):
        total = total.plus(round_cost(Checkpoint(checkpoint.run, round_)))
    return total
