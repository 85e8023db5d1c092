"""What every command shares: the recipe, the run directory it belongs to, the prompts, and the models that speak."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, PipelineError, RunError
from pipeline.inputs.constitution import Constitution, load_constitution
from pipeline.inputs.model import model_digest, resolve_model
from pipeline.inputs.prompts import LoadedPrompts, load_prompts
from pipeline.inputs.recipe import ParsedRecipe, diff_resolved, parse_recipe
from pipeline.inputs.recipe_fields import Recipe
from pipeline.inputs.templates import Templates, load_templates
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, json_sha256, read_json
from pipeline.runs.rundir import RunDir, package_versions

if TYPE_CHECKING:
    from pipeline.engines.base import Adapter
    from pipeline.engines.roles import Roles

log = logging.getLogger("pipeline")

PROJECT = Path(__file__).resolve().parents[1]
DEFAULT_RECIPE = PROJECT / "recipes" / "sandbox-blind-spot" / "config.yaml"


@dataclass(frozen=True)
class StageOptions:
    """One stage of one round, on a run directory."""

    round: int | None = field(
        default=None, metadata={"help": "Round to work on; the first unfinished one when unset."}
    )
    amend: str | None = field(
        default=None, metadata={"help": "Why a run goes on with a changed recipe or constitution; recorded."}
    )


@dataclass
class Session:
    """An open run. Stages take what they need from here and write where ``run`` says."""

    parsed: ParsedRecipe
    run: RunDir
    constitution: Constitution
    templates: Templates

    @property
    def recipe(self) -> Recipe:
        """Our own fields of the recipe."""
        return self.parsed.recipe

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.parsed.training.seed)

    @cached_property
    def model(self) -> str:
        """Hub id or folder of the base model."""
        return resolve_model(str(self.parsed.model.model_name_or_path))

    @property
    def model_name(self) -> str:
        """The base model as the recipe names it."""
        return str(self.parsed.model.model_name_or_path)

    def describe_engine(self) -> dict[str, Any]:
        """Engine, precision and versions, for manifests: numbers from different ones don't compare."""
        from accelerate import PartialState

        return {
            "engine": {
                "name": "transformers",
                "model": self.model_name,
                "dtype": str(self.parsed.model.dtype),
                "device": PartialState().device.type,
            },
            "versions": package_versions(),
        }

    @cached_property
    def probe_sets(self) -> dict[str, LoadedPrompts]:
        """The fixed probe sets by name. The same for every seed: runs are compared on them."""
        named = [entry.split("=", 1) for entry in self.recipe.probe_sets]
        return {
            name: load_prompts(
                source,
                column=self.recipe.probe_column,
                slice_column=self.recipe.probe_slice_column,
                project_root=PROJECT,
            )
            for name, source in named
        }

    @cached_property
    def prompts(self) -> LoadedPrompts:
        """The training prompts, without those that a probe set holds too."""
        r = self.recipe
        loaded = load_prompts(
            r.prompts or "sandbox:train",
            column=r.prompt_column,
            split=r.prompt_split or "train",
            slice_column=r.prompt_slice_column,
            limit=r.max_prompts,
            seed=self.seed,
            project_root=PROJECT,
        )
        return self._without_probes(loaded, "prompts")

    @cached_property
    def helpful_prompts(self) -> LoadedPrompts | None:
        """The prompts of the helpful examples, if the recipe mixes any in."""
        r = self.recipe
        if not r.helpful_prompts or not r.helpful_fraction:
            return None
        loaded = load_prompts(r.helpful_prompts, column=r.helpful_column, seed=self.seed, project_root=PROJECT)
        return self._without_probes(loaded, "helpful_prompts")

    def _without_probes(self, loaded: LoadedPrompts, key: str) -> LoadedPrompts:
        probed = {prompt.id for probes in self.probe_sets.values() for prompt in probes.prompts}
        kept = tuple(prompt for prompt in loaded.prompts if prompt.id not in probed)
        overlap = len(loaded.prompts) - len(kept)
        if overlap:
            log.warning(
                "%s: %d of %d are in a probe set and are left out of training",
                key,
                overlap,
                len(loaded.prompts),
            )
        if not kept:
            raise InputError(f"{key}: every prompt is in a probe set, so none is left to train on.")
        return replace(loaded, prompts=kept)

    @cached_property
    def chat_template(self) -> str | None:
        """Jinja source of the chat template that the recipe gives, or None for the model's own."""
        given = self.parsed.training.chat_template_path
        if given is None:
            return None
        path = find_file(given, "chat_template_path")
        if path.is_dir():
            path = path / "chat_template.jinja"
        if not path.exists():
            raise InputError(f"{path}: no such file (chat_template_path).")
        return path.read_text(encoding="utf-8")

    @cached_property
    def roles(self) -> Roles:
        """The models that speak; each is loaded when it is first asked for."""
        from pipeline.engines.roles import Roles

        return Roles(
            self.model,
            revision=self.parsed.model.model_revision,
            dtype=str(self.parsed.model.dtype),
            chat_template=self.chat_template,
            batch_size=self.recipe.batch_size,
        )

    def adapter(self, round_: int) -> Adapter | None:
        """What round ``round_`` trained; None for round 0, the base.

        Raises:
            RunError: that round has not been distilled.
        """
        from pipeline.engines.base import Adapter

        if round_ == 0:
            return None
        folder = self.run.adapter_dir(round_)
        weights = folder / "adapter_model.safetensors"
        if not weights.exists():
            raise RunError(
                f"{folder}: no adapter; "
                f"run `python pipeline/distill.py --run_dir {self.run.path} --round {round_}` first."
            )
        return Adapter(folder, file_sha256(weights))

    def input_digests(self) -> dict[str, str]:
        """Digests of everything outside the recipe that decides what the run computes."""
        r = self.recipe
        found = {
            "model": model_digest(self.model, self.parsed.model.model_revision),
            "constitution": self.constitution.sha256,
            "templates": self.templates.sha256,
            "prompts": self.prompts.sha256,
            **{f"probe_sets.{name}": probes.sha256 for name, probes in self.probe_sets.items()},
        }
        if self.helpful_prompts:
            found["helpful_prompts"] = self.helpful_prompts.sha256
        if self.chat_template:
            found["chat_template_path"] = json_sha256(self.chat_template)
        if r.few_shot:
            found["few_shot"] = file_sha256(find_file(r.few_shot, "few_shot"))
        return found

    def choose_round(self, asked: int | None, first: int) -> int:
        """The round a stage command works on: as asked, else the first unfinished one.

        Raises:
            InputError: the recipe has no such round, or the stage is not part of it.
        """
        finished = self.run.finished_rounds()
        round_ = asked if asked is not None else max(first, len(finished))
        if not first <= round_ <= self.recipe.num_rounds:
            raise InputError(
                f"--round {round_}: this stage has rounds {first} to {self.recipe.num_rounds} in this recipe."
            )
        return round_

    def close(self) -> None:
        """Free the models and let others write the run."""
        if "roles" in self.__dict__:
            self.roles.close()
        if ranks.is_main():
            self.run.release()


def find_file(given: str, key: str) -> Path:
    """A file that a recipe names: under the working directory, else under the project.

    Raises:
        InputError: it is in neither place.
    """
    for path in (Path(given).expanduser(), PROJECT / given):
        if path.exists():
            return path
    raise InputError(f"{key}: no file `{given}` in {Path.cwd()} or {PROJECT}.")


def parse(argv: Sequence[str], options: type) -> ParsedRecipe:
    """The recipe of this launch: of ``--config``, else of the run directory named, else the sandbox's."""
    if not {"-h", "--help", "--help_all"} & set(argv):
        ranks.start()
    default = _recipe_of_run(argv) or DEFAULT_RECIPE
    parsed = parse_recipe(argv, default_config=default, command=options)
    if parsed.model.load_in_4bit or parsed.model.load_in_8bit:
        raise InputError("load_in_4bit, load_in_8bit: quantised bases are not supported yet.")
    if getattr(parsed.training, "trust_remote_code", False):
        raise InputError("trust_remote_code: code from model repositories is never run by this project.")
    return parsed


def _recipe_of_run(argv: Sequence[str]) -> Path | None:
    words = [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    for name, value in pairwise(words):
        if name.replace("-", "_") == "__run_dir" and (copy := Path(value) / "recipe.yaml").exists():
            return copy
    return None


def load_session(parsed: ParsedRecipe) -> Session:
    """Everything that a recipe names, read and checked; nothing written."""
    recipe = parsed.recipe
    return Session(
        parsed=parsed,
        run=RunDir(Path(str(recipe.run_dir))),
        constitution=load_constitution(find_file(recipe.constitution, "constitution")),
        templates=load_templates(find_file(recipe.templates, "templates")),
    )


def open_session(parsed: ParsedRecipe, argv: Sequence[str]) -> Session:
    """Load what the recipe names, lock the run directory, and begin the run or make sure that this continues it."""
    session = load_session(parsed)
    digests = session.input_digests()
    if ranks.is_main():
        run = session.run
        run.lock()
        old = read_json(run.resolved) if run.resolved.exists() else parsed.resolved
        run.claim(
            recipe_text=recipe_text(parsed),
            resolved=parsed.resolved,
            constitution=session.constitution.source_text,
            inputs=digests,
            recipe_changes=diff_resolved(old, parsed.resolved),
            amend=getattr(parsed.options, "amend", None),
        )
        _log_to(run.new_attempt() / "log.txt")
        run.record_provenance(argv)
    ranks.barrier()
    return session


def recipe_text(parsed: ParsedRecipe) -> str:
    """The recipe file and the command line over it, as one recipe that starts the same run."""
    import yaml

    given = {name: value for name, value in parsed.given.items() if name in parsed.resolved}
    return "# What was asked for: the recipe file with the command line over it.\n" + yaml.safe_dump(
        given, sort_keys=True
    )


def main(work: Callable[[Sequence[str]], Any]) -> None:
    """Run a command as a person's shell does: a clear last line on an error, exit status 1."""
    _log_to_console()
    argv = sys.argv[1:]
    try:
        work(argv)
    except PipelineError as error:
        log.debug("%s", traceback.format_exc())
        log.error("error: %s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("interrupted. What is finished is kept; to go on: %s", _command())
        sys.exit(130)
    except Exception:
        log.error("%s", traceback.format_exc())
        log.error("failed. What is finished is kept; after mending the cause, to go on: %s", _command())
        sys.exit(1)


def _command() -> str:
    launcher = "accelerate launch" if "ACCELERATE_MIXED_PRECISION" in os.environ else "python"
    return shlex.join([*launcher.split(), *sys.argv])


def _log_to_console() -> None:
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.setLevel(logging.INFO if ranks.is_main() else logging.ERROR)
    log.addHandler(console)
    log.setLevel(logging.DEBUG)
    log.propagate = False


def _log_to(path: Path) -> None:
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(file)
