"""Before any work: whether the servers that the rest of the run will ask answer, and take our keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.setup.session import Session

_TRAINING = ("critic", "reviser")
_SCORING = ("judge", "second_judge")


def reach_servers(session: Session) -> None:
    """Ask every server of the rounds that are left what it serves: what is wrong must not wait for hours of work.

    A vLLM that the pipeline starts itself is not asked.

    Raises:
        EngineError: a server does not answer, rejects the key or serves another model, with the recipe key.
    """
    named = {"policy_endpoints": "policy"} if session.recipe.policy_endpoints else {}
    named |= {key: str(name) for key in _keys_left(session) if (name := getattr(session.recipe, key))}
    for key, name in named.items():
        try:
            session.roles.reach(name)
        except EngineError as error:
            raise EngineError(f"{key}: {error}") from None  # causes may repeat a key


def _keys_left(session: Session) -> Sequence[str]:
    """The recipe keys of the models, besides the policy, that are still needed."""
    run = session.run
    rounds = [r for r in range(session.recipe.num_rounds + 1) if not run.done(r).exists()]
    to_train = [r for r in rounds if r and not (run.stage_dir(r, "distill") / "manifest.json").exists()]
    judges = _SCORING if rounds and session.instruments.judging else ()
    return [*(_TRAINING if to_train else ()), *judges]
