"""One stage of one round: work in fixed chunks, each saved when done, and a manifest that is written last."""

from __future__ import annotations

import gc
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, json_sha256, read_json, write_json, write_text
from pipeline.runs.parts import read_notes, read_part, write_part
from pipeline.runs.progress import Progress
from pipeline.runs.tables import to_table, write_table

T = TypeVar("T")

log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Chunk:
    """The result of work on one chunk of items: rows of the stage's table.

    ``failed`` holds the reason of every item that no attempt could answer.
    """

    rows: list[dict[str, Any]]
    failed: Sequence[str] = ()


@dataclass
class Timing:
    """Seconds spent on a stage. ``work`` and ``model`` are sums over all chunks, ranks and attempts."""

    wall: float = 0.0
    work: float = 0.0
    model: float = 0.0


@dataclass
class Stage:
    """A stage's folder in the run, and what identifies the work in it.

    Attributes:
        folder: folder of the stage, within its round.
        name: name of the stage.
        round: round it belongs to.
        inputs: digests of the artifacts it is made from. A stage that is complete with the same inputs is never
            redone; one whose inputs have changed is refused, not mixed.
        settings: digest of the settings it is made with. They change only by an amendment, which leaves what is
            complete as it is; unfinished work begun with other settings is set aside and started again.
        manifest_name: name of the file whose presence marks the stage as complete.
    """

    folder: Path
    name: str
    round: int
    inputs: Mapping[str, Any]
    settings: str = ""
    manifest_name: str = "manifest.json"
    timing: Timing = field(default_factory=Timing)
    _started: float = field(default_factory=time.monotonic)

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is, or will be."""
        return self.folder / self.manifest_name

    def is_complete(self, *, renew: bool = False) -> bool:
        """Whether the stage has been done with these inputs; all ranks ask this together.

        Args:
            renew: count a stage done with other settings, before an amendment, as not done.

        Raises:
            RunError: it has been done with other inputs, or what it made is gone.
        """
        # Rank 0 looks: to a node that looked too early, NFS may deny for half a minute what is there since.
        if not ranks.from_main(ranks.is_main() and self.manifest_path.exists()):
            return False
        manifest = self.manifest()
        recorded = manifest["inputs"]
        if renew and (recorded, manifest["settings"]) != (dict(self.inputs), self.settings):
            return False
        if recorded != dict(self.inputs):
            changed = sorted(k for k in {*recorded, *self.inputs} if recorded.get(k) != self.inputs.get(k))
            raise RunError(
                f"{self.manifest_path}: made from other inputs ({', '.join(changed)} changed). "
                f"Delete {self.folder}, the round's later stages, its drift.json, alarm.json and DONE, and all later "
                "rounds to make them again, or use another --run_dir."
            )
        missing = self._missing(manifest["outputs"]) if ranks.is_main() else []
        if gone := ranks.from_main(missing):
            raise RunError(
                f"{self.folder}: {' and '.join(gone)} missing, but {self.manifest_name} says that the stage is done. "
                f"Put back what is missing, or delete {self.folder} to make it again."
            )
        if ranks.is_main():
            self._drop_parts()  # a launch killed right after its manifest left them
        return True

    def _missing(self, outputs: Mapping[str, Any]) -> list[str]:
        """The files among the outputs, those in folders included, that are no longer there."""
        within = {name: [*made] if isinstance(made, dict) else [] for name, made in outputs.items()}
        files = [Path(name, file) for name, inside in within.items() for file in inside or [""]]
        return [str(file) for file in files if not (self.folder / file).exists()]

    def collect(
        self,
        items: Sequence[T],
        work: Callable[[Sequence[T]], Chunk],
        schema: pa.Schema,
        output: str,
        chunk_rows: int,
        max_failed: float = 0.0,
        *,
        kept: pa.Table | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Do ``work`` on ``items``, chunk by chunk, over all ranks, and join the rows in order as ``output``.

        Chunk i holds the same items in every launch, whichever rank does it and however often the work was
        interrupted, so its rows cannot depend on either. ``kept`` are rows to put before all others (rank 0), and
        ``clock`` tells the seconds that models have been busy so far.

        Raises:
            RunError: a larger share of the items than ``max_failed`` failed. Their chunks are not kept, so that
                running the same command again retries them.
        """
        parts = self.folder / f"parts-{Path(output).stem}"
        bounds = [(start, min(start + chunk_rows, len(items))) for start in range(0, len(items), chunk_rows)]
        if ranks.is_main():
            self.claim(parts, len(items), chunk_rows)
        ranks.barrier()
        mine = [i for i in range(len(bounds)) if i % ranks.world_size() == ranks.rank()]
        left = [i for i in mine if not _part(parts, i).exists()]
        rows = {i: bounds[i][1] - bounds[i][0] for i in mine}
        done = sum(rows.values()) - sum(rows[i] for i in left)
        failed = 0
        with Progress(sum(rows.values()), done, f"round {self.round} {self.name}") as progress, _nothing_to_collect():
            for i in left:
                start, stop = bounds[i]
                chunk = self._do_chunk(_part(parts, i), items[start:stop], _counting(work, progress), schema, clock)
                progress.advance(rows[i])
                failed += len(chunk.failed)
                if failed > max_failed * len(items):
                    break
        ranks.barrier()
        paths = [_part(parts, i) for i in range(len(bounds))]
        said = self._too_many_failed(paths, len(items), max_failed) if ranks.is_main() else None
        if said := ranks.from_main(said):
            raise RunError(said)
        if ranks.is_main():
            before = [] if kept is None else [kept.cast(schema).replace_schema_metadata(None)]
            write_table(self.folder / output, chain(before, self._join(paths)), schema)
        ranks.barrier()

    def claim(self, unfinished: Path, *shape: int | str) -> None:
        """Make a folder for unfinished work, or keep an existing one if it was begun with the same inputs (rank 0).

        Work with other inputs, settings or ``shape`` is set aside: neither deleted nor mixed in.

        Args:
            unfinished: folder to claim.
            shape: what else its work depends on.
        """
        digest = json_sha256([dict(self.inputs), self.settings, shape])
        marker = unfinished / "made-from.sha256"
        if unfinished.exists() and not (marker.exists() and marker.read_text() == digest):
            aside = 1
            while (old := unfinished.with_name(f"{unfinished.name}.superseded-{aside}")).exists():
                aside += 1
            unfinished.rename(old)
            log.warning("%s: begun with other inputs, settings or processes; set aside as %s", unfinished, old.name)
        unfinished.mkdir(parents=True, exist_ok=True)
        write_text(marker, digest)

    def _do_chunk(
        self,
        path: Path,
        items: Sequence[T],
        work: Callable[[Sequence[T]], Chunk],
        schema: pa.Schema,
        clock: Callable[[], float],
    ) -> Chunk:
        started, busy_before = time.monotonic(), clock()
        chunk = work(items)
        seconds = {"work": time.monotonic() - started, "model": clock() - busy_before}
        write_part(path, to_table(chunk.rows, schema), {"seconds": seconds, "failed": Counter(chunk.failed)})
        return chunk

    def _too_many_failed(self, paths: Sequence[Path], items: int, max_failed: float) -> str | None:
        """If too many items failed, drop the chunks that hold them and return an error message; of a few, warn."""
        failed = {path: Counter(read_notes(path)["failed"]) for path in paths if path.exists()}
        reasons = sum(failed.values(), Counter[str]())
        total = reasons.total()
        if not total:
            return None
        told = f"{self.folder}: {total:,} of {items:,} rows failed in every attempt"
        most = f"most of them with: {reasons.most_common(1)[0][0]}"
        if total <= max_failed * items:
            log.warning("%s; they are kept with their reasons, %s", told, most)
            return None
        for path in [path for path, counts in failed.items() if counts]:
            path.unlink()
        return (
            f"{told}, more than `max_failed_rows` ({max_failed:g}) allows; {most}. Run the same command again to "
            "retry those rows; the others are kept. If they fail every time, allow more: --max_failed_rows X --amend "
            '"why".'
        )

    def _join(self, paths: Sequence[Path]) -> Iterator[pa.Table]:
        for path in paths:
            rows, notes = read_part(path)
            self.timing.work += notes["seconds"]["work"]
            self.timing.model += notes["seconds"]["model"]
            yield rows

    def manifest(self) -> dict[str, Any]:
        """The manifest of the finished stage."""
        return dict(read_json(self.manifest_path))

    def finish(self, outputs: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Write the manifest, then drop the parts (rank 0).

        ``facts`` are the stage's own entries in the manifest; they must not depend on the clock.
        """
        self.timing.wall = time.monotonic() - self._started
        if ranks.is_main():
            manifest = {
                "stage": self.name,
                "round": self.round,
                "inputs": dict(self.inputs),
                "settings": self.settings,
                "outputs": {name: _digest(self.folder / name) for name in outputs},
                **facts,
                "timing": {
                    "wall_seconds": round(self.timing.wall, 3),
                    "work_seconds": round(self.timing.work, 3),
                    "model_seconds": round(self.timing.model, 3),
                    "processes": ranks.world_size(),
                },
            }
            write_json(self.manifest_path, manifest)
            self._drop_parts()
            log.info("%s", self.headline(manifest))
        ranks.barrier()

    def _drop_parts(self) -> None:
        for name in self.manifest()["outputs"]:
            shutil.rmtree(self.folder / f"parts-{Path(name).stem}", ignore_errors=True)

    def headline(self, manifest: Mapping[str, Any]) -> str:
        """One-line summary of a finished stage: rows, seconds, tokens, speed, drops."""
        seconds = manifest["timing"]["wall_seconds"]
        rows = next(iter(manifest.get("rows", {}).values()), 0)
        line = f"round {self.round}  {self.name:<9} {rows:>7,} rows  {seconds:7.1f} s"
        tokens, timing = manifest.get("tokens", {}), manifest["timing"]
        # Like the tokens, work is summed over all attempts; training does no work in chunks.
        if count := tokens.get("new") or tokens.get("trained"):
            busy = timing["work_seconds"] or timing["model_seconds"]
            speed = count * manifest.get("epochs", 1) / max(busy, 1e-9)
            line += f"  {count:>9,} tokens  {speed:>8,.0f} tokens/s"
        for fact, name in (("dropped", "dropped"), ("kept", "kept anyway")):
            reasons: Counter[str] = Counter()
            for of_table in manifest.get(fact, {}).values():
                reasons.update(of_table)
            if reasons:
                line += f"  {name}: " + ", ".join(f"{reason} {number:,}" for reason, number in reasons.items())
        return line


def _counting(work: Callable[[Sequence[T]], Chunk], progress: Progress) -> Callable[[Sequence[T]], Chunk]:
    def counted(items: Sequence[T]) -> Chunk:
        chunk = work(items)
        # An estimate: the other ranks are about as fast.
        progress.sampled(sum(row.get("new_tokens") or 0 for row in chunk.rows) * ranks.world_size())
        return chunk

    return counted


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Freeze the objects that exist now: they outlive the chunks, so rescanning them for garbage is wasted time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _part(parts: Path, index: int) -> Path:
    return parts / f"{index:06d}.arrow"


def _digest(path: Path) -> str | dict[str, str]:
    if path.is_dir():
        return {p.name: file_sha256(p) for p in sorted(path.iterdir()) if p.is_file()}
    return file_sha256(path)
