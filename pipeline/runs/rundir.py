"""The run directory: the only module that knows where everything is, and what the run was started with."""

from __future__ import annotations

import difflib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from pipeline.errors import RunError
from pipeline.runs.files import (
    TEMPORARY,
    file_sha256,
    read_json,
    read_json_lines,
    read_text,
    write_json,
    write_json_lines,
    write_text,
)

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scipy", "pyarrow")
COMPUTING = ("torch", "transformers", "peft")
"""The packages whose version may change what is sampled; vLLM's, in another environment, is part of the engine."""
WEIGHTS = "adapter_model.safetensors"


class Asked(NamedTuple):
    """What a launch asks of a run.

    Attributes:
        constitution: its text.
        inputs: digest of every input, by name.
        recipe_changes: one line per field of the recipe that is not as it was.
        additions: lines for what is now measured as well.
        amend: reason for the changes, or None.
        lacks: what the run measures and the recipe does not, by recipe key.
    """

    constitution: str
    inputs: Mapping[str, str]
    recipe_changes: Sequence[str] = ()
    additions: Sequence[str] = ()
    amend: str | None = None
    lacks: Mapping[str, Sequence[str]] = {}


class RunDir:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_copy = path / "recipe.yaml"
        self.resolved = path / "recipe.resolved.json"
        self.constitution_copy = path / "constitution.txt"
        self.inputs = path / "inputs.json"
        self.provenance = path / "provenance.json"
        self.amendments = path / "amendments.jsonl"
        self.rounds = path / "rounds.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.reserve = path / "reserve.jsonl"
        self.selected = path / "selected.json"
        self.report = path / "report.html"
        self.answers = path / "answers-under-way"
        self._lock = FileLock(path / ".lock")

    # -- places ----------------------------------------------------------------------------------------------

    def round_dir(self, round_: int) -> Path:
        """``round-00`` is the untouched base."""
        return self.path / f"round-{round_:02d}"

    def stage_dir(self, round_: int, stage: str) -> Path:
        """The folder of a stage in a round."""
        return self.round_dir(round_) / stage

    def adapter_dir(self, round_: int) -> Path:
        """The LoRA adapter that round ``round_`` trained."""
        return self.stage_dir(round_, "distill") / "adapter"

    def adapter_sha256(self, round_: int) -> str:
        """Digest of the weights that round ``round_`` trained.

        Raises:
            RunError: the round has not been distilled, or its weights are not those that it recorded.
        """
        weights = self.adapter_dir(round_) / WEIGHTS
        if not weights.exists():
            raise RunError(
                f"{weights.parent}: no adapter; "
                f"run `python pipeline/distill.py --run_dir {self.path} --round {round_}` first."
            )
        found = file_sha256(weights)
        manifest = self.stage_dir(round_, "distill") / "manifest.json"
        if manifest.exists() and read_json(manifest)["outputs"]["adapter"][WEIGHTS] != found:
            raise RunError(
                f"{weights}: not the weights that round {round_} trained (their digest is in {manifest}). Put those "
                f"back, or delete {self.round_dir(round_)} and all later rounds to make them again."
            )
        return found

    def scores(self, round_: int) -> Path:
        """The round's scores on the probe sets."""
        return self.stage_dir(round_, "measure") / "scores.parquet"

    def drift(self, round_: int) -> Path:
        """The round's drift table."""
        return self.round_dir(round_) / "drift.json"

    def judge(self, round_: int) -> Path:
        """How noisy the judge was in a round, and what a second one says; only if anything is judged."""
        return self.round_dir(round_) / "judge.json"

    def critic(self, round_: int) -> Path:
        """The errors of the round's critic, where they can be known."""
        return self.round_dir(round_) / "critic.json"

    def degeneration(self, round_: int) -> Path:
        """How far the round's training data and answers have degenerated."""
        return self.round_dir(round_) / "degeneration.json"

    def noise_floor(self) -> Path:
        """The drift table of round 0 against itself, sampled again with other noise."""
        return self.round_dir(0) / "noise_floor.json"

    def again_scores(self) -> Path:
        """The scores of round 0 sampled again."""
        return self.stage_dir(0, "again") / "scores.parquet"

    def alarm(self, round_: int) -> Path:
        """What was suspected in a round, and what was confirmed."""
        return self.round_dir(round_) / "alarm.json"

    def done(self, round_: int) -> Path:
        """The mark that a round is complete; written last."""
        return self.round_dir(round_) / "DONE"

    def finished_rounds(self) -> list[int]:
        """The rounds that are complete, in order."""
        return [round_ for round_ in self.rounds_begun() if self.done(round_).exists()]

    def measured_rounds(self) -> list[int]:
        """The rounds that have a drift table, in order."""
        return [round_ for round_ in self.rounds_begun() if self.drift(round_).exists()]

    def trained_rounds(self) -> list[int]:
        """The rounds that have an adapter, in order."""
        begun = self.rounds_begun()
        return [round_ for round_ in begun if (self.adapter_dir(round_) / "adapter_config.json").exists()]

    def rounds_begun(self) -> list[int]:
        """The rounds that have a folder, in order."""
        return _numbers(self.path, "round")

    @property
    def placebo(self) -> RunDir:
        """The run directory of the placebo arm."""
        return RunDir(self.path / "placebo")

    # -- one writer ------------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the only writer of this run.

        Raises:
            RunError: another process already is, or the folder holds something else.
        """
        self._require_own_folder()
        holder = self.path / ".lock.holder"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            who = holder.read_text() if holder.exists() else "another process"
            raise RunError(
                f"{self.path}: {who} is writing this run. Wait for it, stop it, or give another --run_dir."
            ) from error
        except OSError as error:
            raise self._unwritable(self.path, error) from error
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            for leftover in self._leftovers():
                leftover.unlink(missing_ok=True)  # of a writer that was killed; nobody else can be writing now
        except OSError as error:
            raise self._unwritable(self.path, error) from error

    def _unwritable(self, path: Path, error: OSError) -> RunError:
        return RunError(
            f"{path}: no run can be written there ({error.strerror or error}). Check what is there, its owner and its "
            "mode, or give another --run_dir."
        )

    def _require_own_folder(self) -> None:
        """Refuse a folder that holds folders of other things than a run; nothing is written to it."""
        if self.resolved.exists() or not self.path.is_dir():
            return
        # Files may be there already, and logs: a job's output is often kept in the folder of its run. Hidden names are
        # locks and the file system's. That rounds are there without a recipe is said when the run is claimed.
        own = {"logs", *(self.round_dir(round_).name for round_ in self.rounds_begun())}
        folders = sorted(p.name for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))
        if foreign := [name for name in folders if name not in own]:
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            raise RunError(
                f"{self.path}: holds no run ({self.resolved.name} is missing) but other folders: "
                f"{', '.join(foreign[:3])}{more}. Give a new or an empty folder as --run_dir."
            )

    def _leftovers(self) -> list[Path]:
        """The half-written files of killed writers; of the folders within, only the run's own are searched."""
        own = [self.round_dir(round_) for round_ in self.rounds_begun()]
        own += [self.path / name for name in ("placebo", "report", "logs", self.answers.name)]
        found = [*self.path.iterdir(), *(path for folder in own for path in folder.rglob(".*.tmp"))]
        return [path for path in found if TEMPORARY.fullmatch(path.name) and path.is_file()]

    def release(self) -> None:
        """Let other processes write."""
        self._lock.release()

    # -- what it was started with ----------------------------------------------------------------------------

    def check(self, asked: Asked) -> list[str]:
        """Check that the run can be started or resumed with what is asked; return the changes that need a reason.

        Raises:
            RunError: recipe, constitution or another input changed and there is no ``amend``; or what the run was
                started with, or the adapter of a finished round, is gone; or the folder holds something else.
        """
        self._require_own_folder()
        self._require_whole()
        if not self.resolved.exists():
            return []
        of_inputs = self._input_changes(asked.inputs)
        added = self._added(asked)
        lines = [line for name, line in of_inputs.items() if name not in added]
        changes = [*asked.recipe_changes, *self._text_changes(asked.constitution), *lines]
        if changes and not asked.amend:
            shown = "\n  ".join(changes)
            more = "; ".join(f"{name}: {', '.join(entries)}" for name, entries in asked.lacks.items())
            advice = (
                f"The run has more than this recipe ({more}), as after `measure.py --add_scorers`. To continue, give "
                f"`--run_dir {self.path}` alone, or add this to the recipe.\n"
            )
            raise RunError(
                f"{self.path}: started with different settings:\n  {shown}\n"
                + (advice if asked.lacks else "")
                + 'Give another --run_dir to start a new run, or --amend "why" to continue and record the change.'
            )
        return changes

    def claim(self, asked: Asked, *, recipe_text: str, resolved: Mapping[str, Any]) -> None:
        """Start the run, or resume it if ``check`` lets it; record what changed, and why.

        What is already finished stays as it is.

        Args:
            asked: what the launch asks for.
            recipe_text: the recipe as it was given.
            resolved: every field of it.

        Raises:
            RunError: see ``check``.
        """
        changes = self.check(asked)
        if changes:
            # Kept answers may be to other prompts, or from a model that was loaded differently.
            shutil.rmtree(self.answers, ignore_errors=True)
        changes += [*asked.additions, *(self._input_changes(asked.inputs)[name] for name in self._added(asked))]
        if changes:
            entry = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "after_round": max(self.finished_rounds(), default=-1),
                "reason": asked.amend or "scorers were added",
                "changes": changes,
            }
            write_json_lines(self.amendments, [*read_json_lines(self.amendments), entry])
        write_text(self.recipe_copy, recipe_text)
        write_text(self.constitution_copy, asked.constitution)
        write_json(self.inputs, dict(asked.inputs))
        write_json(self.resolved, dict(resolved))

    def _added(self, asked: Asked) -> list[str]:
        """The inputs that additions bring; they need no reason either."""
        return sorted(asked.inputs.keys() - read_json(self.inputs).keys()) if asked.additions else []

    def _require_whole(self) -> None:
        """Refuse finished work that lost what it was made with, or what it made."""
        rounds = sorted(path for path in self.path.glob("round-*") if path.is_dir())
        if rounds and not self.resolved.exists():
            raise RunError(
                f"{self.resolved}: missing, but there is {rounds[0].name}, and nothing says what it was made with. "
                "Restore the file from a copy of the run, or give another --run_dir."
            )
        for round_ in self.finished_rounds():
            folder = self.adapter_dir(round_)
            if round_ and not (folder / WEIGHTS).exists():
                raise RunError(
                    f"{folder}: missing, but round {round_} is complete. Put the adapter back, or delete "
                    f"{self.round_dir(round_)} and all later rounds to make them again."
                )

    def _text_changes(self, constitution: str) -> list[str]:
        old = read_text(self.constitution_copy)
        if old == constitution:
            return []
        names = ("constitution (run)", "constitution (now)")
        diff = difflib.unified_diff(old.splitlines(), constitution.splitlines(), *names, lineterm="", n=0)
        return list(diff) or ["constitution: the line endings changed"]

    def _input_changes(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """One line per changed input, by its name; the constitution has a diff of its own."""
        old = read_json(self.inputs)
        names = sorted(name for name in {*old, *inputs} - {"constitution"} if old.get(name) != inputs.get(name))
        what = {
            name: "is new" if name not in old else "the content changed" if name in inputs else "is gone"
            for name in names
        }
        return {name: f"{name}: {line}" for name, line in what.items()}

    # -- records ---------------------------------------------------------------------------------------------

    def new_attempt(self) -> Path:
        """A fresh ``logs/attempt-NN`` for this launch; ``logs/latest`` points to it.

        Raises:
            RunError: the folder cannot be written.
        """
        logs = self.path / "logs"
        try:
            return self._new_attempt(logs)
        except OSError as error:
            raise self._unwritable(logs, error) from error

    def _new_attempt(self, logs: Path) -> Path:
        logs.mkdir(exist_ok=True)
        last = max(_numbers(logs, "attempt"), default=0)
        attempt = logs / f"attempt-{last + 1:02d}"
        attempt.mkdir()
        link = logs / ".latest.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(attempt.name)
        latest = logs / "latest"
        if latest.is_dir() and not latest.is_symlink():
            shutil.rmtree(latest)  # the run was copied by a program that follows links
        link.replace(latest)
        return attempt

    def record_provenance(self, argv: Sequence[str]) -> None:
        """Add this launch to ``provenance.json``: command, code, versions and machine."""
        attempts = read_json(self.provenance) if self.provenance.exists() else []
        attempts.append(
            {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": list(argv),
                "git": _git("rev-parse", "HEAD"),
                "git_dirty": bool(_git("status", "--porcelain")),
                "python": sys.version.split()[0],
                "platform": platform.platform(),
                "packages": package_versions(),
                "processes": int(os.environ.get("WORLD_SIZE", "1")),
            }
        )
        write_json(self.provenance, attempts)

    def record_round(self, round_: int, summary: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Put a round's line into ``rounds.jsonl`` and ``metrics.jsonl``, replacing any earlier one of that round."""
        for path, line in ((self.rounds, dict(summary)), (self.metrics, dict(metrics))):
            others = [row for row in read_json_lines(path) if row["round"] != round_]
            write_json_lines(path, sorted([*others, {"round": round_, **line}], key=lambda row: row["round"]))

    def update_metrics(self, round_: int, metrics: Mapping[str, float]) -> None:
        """Update numbers in a round's line of ``metrics.jsonl``, if it has one."""
        rows = read_json_lines(self.metrics)
        if any(row["round"] == round_ for row in rows):
            lines = [{**row, **metrics} if row["round"] == round_ else row for row in rows]
            write_json_lines(self.metrics, lines)


def package_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a run computes."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _numbers(folder: Path, name: str) -> list[int]:
    """The numbers of the folders ``name-NN``, in order; a copy such as ``name-NN.bak`` is not one of them."""
    found = [re.fullmatch(rf"{name}-(\d+)", path.name) for path in folder.glob(f"{name}-*")]
    return sorted({int(match[1]) for match in found if match})


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
