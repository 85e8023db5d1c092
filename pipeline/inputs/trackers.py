"""Which trackers a recipe's ``report_to`` names, and whether they can be used here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from pipeline.errors import InputError

TRACKERS = ("tensorboard", "wandb", "trackio")


def named_trackers(report_to: str | Sequence[str] | None) -> tuple[str, ...]:
    """The trackers that ``report_to`` names, each once; ``all`` means those that are installed.

    Raises:
        InputError: one is unknown here, or its package is missing.
    """
    given = [report_to] if isinstance(report_to, str) else list(report_to or [])
    names = list(dict.fromkeys(name for name in given if name != "none"))
    if names == ["all"]:
        return tuple(name for name in TRACKERS if find_spec(name))
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"report_to: unknown tracker `{name}`; there are {', '.join(TRACKERS)}, all and none.")
        if not find_spec(name):
            raise InputError(f"report_to: {name} is not installed; `pip install {name}`, or leave it out.")
    return tuple(names)


def require_login(names: Sequence[str]) -> None:
    """Make sure that W&B, if it is used online, has a login: it would otherwise ask in the middle of the run.

    Raises:
        InputError: nobody is logged in, or W&B does not answer.
    """
    if "wandb" not in names or os.environ.get("WANDB_MODE", "online") != "online":
        return
    import wandb

    try:
        why = None if wandb.login(prompt=False) else "nobody is logged in; run `wandb login`"
    except wandb.Error as error:
        why = str(error)
    if why:
        raise InputError(f"report_to: wandb: {why}. WANDB_MODE=offline keeps everything on this machine.")
