"""What surrounds every command: read the recipe, open the run, log, and end with a clear line."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import InputError, PipelineError
from pipeline.inputs.launch import check_launch, this_launch
from pipeline.inputs.places import PROJECT
from pipeline.inputs.recipe import REACHING, ParsedRecipe, diff_resolved, parse_recipe
from pipeline.runs import ranks
from pipeline.runs.files import json_sha256, read_json
from pipeline.runs.rundir import COMPUTING, Asked, RunDir, package_versions
from pipeline.runs.shared import require_same_inputs, require_shared_folder
from pipeline.setup.amending import check_amendment
from pipeline.setup.loading import check_tokenizer, load_session
from pipeline.setup.reaching import reach_servers
from pipeline.setup.session import Session, log

DEFAULT_RECIPE = PROJECT / "recipes" / "sandbox-blind-spot" / "config.yaml"
GROWING = ("scorers", "batteries")
"""The recipe fields whose lists may grow in a run that has begun."""


@dataclass(frozen=True)
class StageOptions:
    """One stage of one round, on a run directory."""

    round: int | None = field(
        default=None, metadata={"help": "Round to work on; the first unfinished one when unset."}
    )
    amend: str | None = field(
        default=None, metadata={"help": "Reason for continuing with a changed recipe or constitution; recorded."}
    )


def parse(argv: Sequence[str], options: type) -> ParsedRecipe:
    """The recipe of this launch: from ``--config``, else from the given run directory, else the sandbox's."""
    asks_for_help = bool({"-h", "--help", "--help_all"} & set(argv))
    if not asks_for_help:
        ranks.start()
    default = DEFAULT_RECIPE if asks_for_help else _default_recipe(argv)
    parsed = parse_recipe(argv, default_config=default, command=options)
    if getattr(parsed.training, "trust_remote_code", False):
        raise InputError("trust_remote_code: code from model repositories is never run by this project.")
    check_launch(this_launch(parsed.training), parsed.model)
    return parsed


def _default_recipe(argv: Sequence[str]) -> Path:
    """The recipe of a launch without ``--config``: that of the run directory named, else the sandbox's."""
    words = [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    given = {name.replace("-", "_"): value for name, value in pairwise([*words, ""]) if name.startswith("--")}
    run_dir = given.get("__run_dir")
    if not run_dir:
        return DEFAULT_RECIPE  # an empty one is refused with the recipe
    copy = Path(run_dir).expanduser() / "recipe.yaml"
    if not copy.exists() and "__config" not in given:
        raise InputError(f"{run_dir}: holds no run. To begin one there, name its recipe as well: --config RECIPE.yaml")
    return copy if copy.exists() else DEFAULT_RECIPE


def open_session(
    parsed: ParsedRecipe,
    argv: Sequence[str],
    *,
    adding: bool = False,
    first_round: int | None = None,
    reaching: bool = False,
) -> Session:
    """Load what the recipe names, lock the run directory, and start the run or check that this launch may resume it.

    With ``adding``, scorers and batteries may be added without a reason (``--amend``). ``first_round`` is given by
    a stage that works on one round: one that it does not have is refused before anything is written. ``reaching``
    makes sure first that the servers which the rest of the run needs answer.
    """
    session = load_session(parsed)
    if first_round is not None:
        session.choose_round(parsed.options.round, first_round)
    check_amendment(session, adding=adding)
    check_tokenizer(session)
    if reaching:
        reach_servers(session)
    if ranks.is_main():
        run = session.run
        run.lock()
        run.claim(_asked(session, adding=adding), recipe_text=recipe_text(parsed), resolved=parsed.resolved)
        _log_to(run.new_attempt() / "log.txt")
        _warn_of_changes(run)
        run.record_provenance(argv)
    ranks.barrier()
    require_shared_folder(session.run.path)
    require_same_inputs({"recipe": json_sha256(parsed.resolved), **session.input_digests})
    return session


def check_session(parsed: ParsedRecipe) -> Session:
    """Load what the recipe names and check all that opening its run would check; write nothing."""
    session = load_session(parsed)
    check_amendment(session)
    check_tokenizer(session)
    if ranks.is_main():
        session.run.check(_asked(session))
    return session


def _asked(session: Session, *, adding: bool = False) -> Asked:
    """What this launch asks of the run, and how that differs from what it was started with."""
    run, parsed = session.run, session.parsed
    old = read_json(run.resolved) if run.resolved.exists() else parsed.resolved
    shorter = [name for name in GROWING if set(old[name]) > set(parsed.resolved[name])]
    grown = {name: parsed.resolved[name] for name in GROWING if adding and set(old[name]) < set(parsed.resolved[name])}
    return Asked(
        constitution=session.constitution.source_text,
        inputs=session.input_digests,
        recipe_changes=diff_resolved(old | grown, parsed.resolved),
        additions=diff_resolved(old, old | grown),
        amend=getattr(parsed.options, "amend", None),
        lacks={name: [entry for entry in old[name] if entry not in parsed.resolved[name]] for name in shorter},
    )


def _warn_of_changes(run: RunDir) -> None:
    """Say what the launch brings to the run that no recipe names: other versions, another number of processes."""
    if not run.provenance.exists():
        return
    last = read_json(run.provenance)[-1]
    old, new = last["packages"], package_versions()
    changed = [f"{name} {old.get(name)} -> {new.get(name)}" for name in COMPUTING if old.get(name) != new.get(name)]
    if changed:
        log.warning(
            "packages: %s since the last launch; rounds before and after it are not measured alike, and compare.py "
            "will say so. To go on as before, install the old versions.",
            ", ".join(changed),
        )
    if last["processes"] != ranks.world_size():
        log.warning(
            "processes: %d at the last launch, now %d. Training takes batches of per_device_train_batch_size x "
            "gradient_accumulation_steps x processes, so later rounds are not trained like the earlier ones.",
            last["processes"],
            ranks.world_size(),
        )


def run_stage(argv: Sequence[str], work: Callable[[Session, int], Any], *, first_round: int) -> None:
    """Run one stage on a run directory: of the requested round, else of the first unfinished one that has it."""
    parsed = parse(argv, StageOptions)
    session = open_session(parsed, argv, first_round=first_round)
    try:
        round_ = session.choose_round(parsed.options.round, first=first_round)
        with at_work(Path(sys.argv[0]).stem, round_):
            work(session, round_)
        session.forget_answers()
    finally:
        session.close()


@contextmanager
def at_work(stage: str, round_: int) -> Iterator[None]:
    """Note the round and the stage on any exception raised within."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        error.add_note(f"round {round_}, {stage}")
        raise


def recipe_text(parsed: ParsedRecipe) -> str:
    """The recipe file with the command line applied to it, as one recipe that starts the same run."""
    import yaml

    given = {name: value for name, value in parsed.given.items() if name in parsed.resolved.keys() | REACHING}
    return "# What was asked for: the recipe file with the command line applied to it.\n" + yaml.safe_dump(
        given, sort_keys=True
    )


def main(work: Callable[[Sequence[str]], Any]) -> None:
    """Run a command from the shell: on an error, print a clear last line and exit with status 1."""
    _log_to_console()
    argv = sys.argv[1:]
    try:
        work(argv)
        ranks.leave()
    except PipelineError as error:
        log.debug("%s", traceback.format_exc())
        log.error("error: %s", error)
        # Outside a stage, an InputError means that the request itself is wrong; repeating it would not help.
        if _is_begun() and (_place(error) or not isinstance(error, InputError)):
            log.error("%s", _last_line("stopped", error))
        sys.exit(1)
    except KeyboardInterrupt as error:
        log.error("%s", _last_line("interrupted", error))
        sys.exit(130)
    except Exception as error:
        log.error("%s", traceback.format_exc())
        log.error("%s", _last_line("failed", error))
        sys.exit(1)


def _last_line(what: str, error: BaseException) -> str:
    """Where it happened, where the log is, and how to resume."""
    place = _place(error)
    parts = [f"{what} in {place}" if place else what]
    parts += [f"log: {_shown(Path(file.baseFilename))}" for file in _log_files()]
    parts += ["what is finished is kept" if _is_begun() else "nothing was begun"]
    return "; ".join([*parts, f"to resume: {_command()}"])


def _place(error: BaseException) -> str | None:
    """The note that ``at_work`` left; libraries add notes of their own."""
    notes = getattr(error, "__notes__", [])
    return next((note for note in notes if re.fullmatch(r"round \d+, \w+", note)), None)


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _is_begun() -> bool:
    """Whether this launch has opened its run; only then is there a log in it."""
    return bool(_log_files()) or not ranks.is_main()


def _log_files() -> list[logging.FileHandler]:
    return [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]


def _command() -> str:
    """This launch as it was typed, including its launcher and the launcher's options."""
    return shlex.join([*_launcher(), *sys.argv])


def _launcher() -> list[str]:
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
    if not by_accelerate and "TORCHELASTIC_RUN_ID" not in os.environ:
        return ["python"]
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")
    except (OSError, UnicodeDecodeError):
        words = []
    before = words[: words.index(sys.argv[0])] if sys.argv[0] in words else []
    for i, word in enumerate(before):
        if Path(word).name in ("accelerate", "torchrun"):
            return [Path(word).name, *before[i + 1 :]]
        if word == "-m":
            return ["python", *before[i:]]
    return ["accelerate", "launch"] if by_accelerate else ["torchrun", f"--nproc_per_node={ranks.node_size()}"]


class _Lenient(logging.Handler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a reader that has gone (``| head``) or a full disk: no reason for one traceback per line."""
        error = sys.exception()
        if isinstance(error, UnicodeError) or not isinstance(error, OSError | ValueError):  # ValueError: it is closed
            super().handleError(record)


class _Console(_Lenient, logging.StreamHandler[TextIO]):
    """The console, or what reads from this process."""


class _Log(_Lenient, logging.FileHandler):
    """The launch's log in the run."""


def _log_to_console() -> None:
    if sys.stdout is None:  # the launch closed it (`>&-`)
        sys.stdout = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # text that its encoding lacks is no reason to say nothing
    console = _Console(sys.stdout)
    console.setFormatter(
        logging.Formatter("%(message)s" if ranks.is_main() else f"process {ranks.rank()}: %(message)s")
    )
    console.setLevel(logging.INFO if ranks.is_main() else logging.ERROR)
    log.addHandler(console)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # advice on CPU kernels, from every process


def _log_to(path: Path) -> None:
    file = _Log(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(file)
