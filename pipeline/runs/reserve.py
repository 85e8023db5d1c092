"""Fresh prompts: drawn for one purpose, recorded, and never drawn again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from pipeline.errors import RunError
from pipeline.runs.files import read_json_lines, write_json_lines
from pipeline.runs.rundir import RunDir


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


P = TypeVar("P", bound=_Identified)


class Reserve:
    """The run's ledger of fresh prompts (``reserve.jsonl``: one line per draw: round, purpose, adapter, prompt ids).

    Args:
        run: run that the ledger belongs to.
        seed: seed of the order in which prompts are drawn.
    """

    def __init__(self, run: RunDir, seed: int) -> None:
        self._path, self._seed = run.reserve, seed

    def draw(self, round_: int, purpose: str, adapter: str | None, pool: Sequence[P], wanted: int) -> list[P]:
        """At most ``wanted`` unused prompts of ``pool``, recorded before they are handed out.

        The same round, purpose and adapter (its digest) get the same prompts again, so a resumed launch continues
        with them. A round that is trained again is another policy: it gets others, and the old ones stay used.

        Raises:
            RunError: the recorded draw has prompts that ``pool`` no longer holds.
        """
        ledger = read_json_lines(self._path)
        by_id = {prompt.id: prompt for prompt in pool}
        for entry in ledger:
            if (entry["round"], entry["purpose"], entry["adapter_sha256"]) == (round_, purpose, adapter):
                if gone := [id_ for id_ in entry["prompt_ids"] if id_ not in by_id]:
                    raise RunError(
                        f"{self._path}: round {round_} drew {len(gone)} prompts for {purpose} that the pool no longer "
                        "holds. Put the reserve back as it was; another one can be used from the next round on."
                    )
                return [by_id[id_] for id_ in entry["prompt_ids"]]
        chosen = self.first(self.left(pool), wanted)
        entry = {"round": round_, "purpose": purpose, "adapter_sha256": adapter}
        write_json_lines(self._path, [*ledger, entry | {"prompt_ids": [prompt.id for prompt in chosen]}])
        return chosen

    def first(self, pool: Sequence[P], count: int) -> list[P]:
        """The ``count`` prompts of ``pool`` that are drawn before all others."""
        return sorted(pool, key=self._rank)[:count]

    def tested(self) -> set[tuple[int, str | None]]:
        """Round and adapter of every policy of which a suspicion was tested."""
        ledger = read_json_lines(self._path)
        return {
            (entry["round"], entry["adapter_sha256"]) for entry in ledger if entry["purpose"].startswith("confirm")
        }

    def require(self, draws: Iterable[tuple[int, str]]) -> None:
        """Check that the ledger has these draws, given by round and purpose.

        Raises:
            RunError: it lacks one, so that its prompts would be drawn again.
        """
        recorded = {(entry["round"], entry["purpose"]) for entry in read_json_lines(self._path)}
        for round_, purpose in draws:
            if (round_, purpose) not in recorded:
                raise RunError(
                    f"{self._path}: lacks the prompts that round {round_} drew for {purpose}, so they could be used "
                    "twice. Restore it from a copy of the run, or give another --run_dir."
                )

    def _rank(self, prompt: _Identified) -> bytes:
        return hashlib.sha256(f"{self._seed}:{prompt.id}".encode()).digest()

    def left(self, pool: Sequence[P]) -> list[P]:
        """The unused prompts of ``pool``."""
        used = {id_ for entry in read_json_lines(self._path) for id_ in entry["prompt_ids"]}
        return [prompt for prompt in pool if prompt.id not in used]
