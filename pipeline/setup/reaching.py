"""Before any work: whether the servers that the rest of the run will ask answer, and take our keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import EngineError
from pipeline.runs.files import read_json
from pipeline.runs.gate import ends_run

if TYPE_CHECKING:
    from pipeline.setup.session import Session

_TRAINING = ("critic", "reviser")
_SCORING = ("judge", "second_judge")


def reach_servers(session: Session) -> None:
    """Ask every server of the rounds that are left what it serves: what is wrong must not wait for hours of work.

    A vLLM that the pipeline starts itself is not asked.

    Raises:
        EngineError: a server does not answer, rejects the key or serves another model, with the recipe key.
    """
    for key, name in _needed(session).items():
        try:
            session.roles.reach(name)
        except EngineError as error:
            raise EngineError(f"{key}: {error}") from None  # causes may repeat a key
    session.put_models_away()


def _needed(session: Session) -> dict[str, str]:
    """The models that rounds still need, by recipe key."""
    run, recipe = session.run, session.recipe
    rounds = _rounds_left(session)
    if not rounds:
        return {}
    to_train = [r for r in rounds if r and not (run.stage_dir(r, "distill") / "manifest.json").exists()]
    keys = [*(_TRAINING if to_train else ()), *(_SCORING if session.instruments.judging else ())]
    named = {"policy_endpoints": "policy"} if recipe.policy_endpoints else {}
    return named | {key: str(name) for key in keys if (name := getattr(recipe, key))}


def _rounds_left(session: Session) -> list[int]:
    run, recipe = session.run, session.recipe
    left = []
    for round_ in range(recipe.num_rounds + 1):
        if not run.done(round_).exists():
            left.append(round_)
        elif run.alarm(round_).exists() and ends_run(recipe.on_alarm, read_json(run.alarm(round_))["color"]):
            break
    return left
