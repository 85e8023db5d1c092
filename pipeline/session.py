"""What every command shares: the recipe, the run directory it belongs to, the prompts, and the models that speak."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, RunError
from pipeline.inputs.battery import Battery, load_batteries
from pipeline.inputs.classified import (
    ClassifierName,
    ClassifierTemplate,
    load_classifier_template,
    parse_classifier,
)
from pipeline.inputs.constitution import Constitution
from pipeline.inputs.model import model_digest, resolve_model
from pipeline.inputs.overlap import ProbeIndex, overlap_report
from pipeline.inputs.prompts import LoadedPrompts, load_prompts
from pipeline.inputs.recipe import ParsedRecipe
from pipeline.inputs.recipe_fields import Recipe
from pipeline.inputs.scorer_names import split_name
from pipeline.inputs.templates import Templates
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, json_sha256
from pipeline.runs.rundir import RunDir, package_versions
from pipeline.scorers import Worse, columns
from pipeline.scorers.refusal_model import SHIPPED, RefusalModel, load_model

if TYPE_CHECKING:
    from pipeline.engines.base import Adapter
    from pipeline.engines.classifier import SequenceClassifier
    from pipeline.engines.roles import Roles

log = logging.getLogger("pipeline")

PROJECT = Path(__file__).resolve().parents[1]


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

    @property
    def headline(self) -> str:
        """The column that heads the drift table."""
        return self.recipe.headline_scorer or next(iter(self.columns))

    @cached_property
    def columns(self) -> dict[str, Worse]:
        """The scores that the recipe's scorers give, and which end of each is the bad one."""
        return columns(self.recipe.scorers, self.batteries)

    def scorer_of(self, column: str) -> str:
        """The scorer in the recipe that gives a column."""
        return next(name for name in self.recipe.scorers if column in columns([name], self.batteries))

    @cached_property
    def batteries(self) -> tuple[Battery, ...]:
        """The batteries of the ``likelihood`` scorer."""
        return load_batteries([find_file(given, "batteries") for given in self.recipe.batteries])

    @property
    def _refusal_weights(self) -> Path:
        named = [argument for name, argument in map(split_name, self.recipe.scorers) if name == "refusal" and argument]
        return find_file(named[0], "scorers") if named else SHIPPED

    @cached_property
    def refusal_model(self) -> RefusalModel:
        """The weights of the scorers of refusals."""
        return load_model(self._refusal_weights)

    @cached_property
    def classifier_template(self) -> ClassifierTemplate | None:
        """What classifiers are shown, if the recipe says so."""
        given = self.recipe.classifier_template
        return load_classifier_template(find_file(given, "classifier_template")) if given else None

    @cached_property
    def classifiers(self) -> dict[str, SequenceClassifier]:
        """The models of the ``classifier`` scorers, by their entry; each is loaded when it is first asked."""
        from pipeline.engines.classifier import SequenceClassifier

        return {
            entry: SequenceClassifier(
                resolve_model(name.model),
                dtype=str(self.parsed.model.dtype),
                batch_size=self.recipe.batch_size,
                template=self.classifier_template,
            )
            for entry, name in self._classifier_names.items()
        }

    @property
    def _classifier_names(self) -> dict[str, ClassifierName]:
        split = {entry: split_name(entry) for entry in self.recipe.scorers}
        return {entry: parse_classifier(of.argument or "") for entry, of in split.items() if of.name == "classifier"}

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
        """The training prompts, without those that measurements use."""
        r = self.recipe
        return self._to_train_on(
            "prompts",
            r.prompts or "sandbox:train",
            column=r.prompt_column,
            split=r.prompt_split or "train",
            slice_column=r.prompt_slice_column,
            limit=r.max_prompts,
        )

    @cached_property
    def helpful_prompts(self) -> LoadedPrompts | None:
        """The prompts of the helpful examples, if the recipe mixes any in."""
        r = self.recipe
        if not r.helpful_prompts or not r.helpful_fraction:
            return None
        return self._to_train_on("helpful_prompts", r.helpful_prompts, column=r.helpful_column)

    @cached_property
    def alarm_prompts(self) -> dict[str, LoadedPrompts]:
        """The prompts that alarms need beside the panel, by their key in the recipe; no prompt is in two of them."""
        taken = {prompt.id for probes in self.probe_sets.values() for prompt in probes.prompts}
        found = {}
        for key in ("calibration", "reserve", "slice_reserve"):
            if source := getattr(self.recipe, key):
                found[key] = load_prompts(
                    source,
                    column=self.recipe.probe_column,
                    slice_column=self.recipe.probe_slice_column,
                    exclude=taken,
                    project_root=PROJECT,
                )
                taken |= {prompt.id for prompt in found[key].prompts}
        return found

    @cached_property
    def probe_index(self) -> ProbeIndex:
        """Finds the probe prompt that a training prompt is most like."""
        sets = {name: loaded.prompts for name, loaded in self.probe_sets.items()}
        return ProbeIndex(sets, self.recipe.near_duplicate)

    def _to_train_on(self, key: str, source: str, **reading: Any) -> LoadedPrompts:
        measured = [*self.probe_sets.values(), *self.alarm_prompts.values()]
        held_out = {prompt.id for loaded in measured for prompt in loaded.prompts}
        loaded = load_prompts(
            source, seed=self.seed, exclude=held_out, near=self.probe_index, project_root=PROJECT, **reading
        )
        left_out = {"duplicate": loaded.n_duplicates, **loaded.dropped_by_reason, **loaded.changed_by_reason}
        counted = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items() if count)
        log.info(
            "%s: %s of %s rows%s", key, f"{len(loaded.prompts):,}", f"{loaded.n_rows:,}", counted and f" ({counted})"
        )
        if loaded.overlaps:
            log.info("%s: %s", key, overlap_report(loaded.overlaps))
        return loaded

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

    @cached_property
    def input_digests(self) -> dict[str, str]:
        """Digests of everything outside the recipe that decides what the run computes."""
        r = self.recipe
        found = {
            "model": model_digest(self.model, self.parsed.model.model_revision),
            "constitution": self.constitution.sha256,
            "templates": self.templates.sha256,
            "prompts": self.prompts.sha256,
            **{f"probe_sets.{name}": probes.sha256 for name, probes in self.probe_sets.items()},
            **{key: loaded.sha256 for key, loaded in self.alarm_prompts.items()},
        }
        for battery in self.batteries:
            found[f"batteries.{battery.name}"] = battery.sha256
        for entry in r.scorers:
            if "refusal" in split_name(entry).name:
                found[f"scorers.{entry}"] = file_sha256(self._refusal_weights)
        for entry, name in self._classifier_names.items():
            shown = self.classifier_template.sha256 if self.classifier_template else None
            found[f"scorers.{entry}"] = json_sha256([model_digest(resolve_model(name.model), None), shown])
        if self.helpful_prompts:
            found["helpful_prompts"] = self.helpful_prompts.sha256
        if self.chat_template:
            found["chat_template_path"] = json_sha256(self.chat_template)
        if r.few_shot:
            found["few_shot"] = file_sha256(find_file(r.few_shot, "few_shot"))
        return found

    def settings(self, *groups: str, training: bool = False) -> str:
        """Digest of the settings that a stage is made with.

        Args:
            groups: of the recipe's fields, as ``--help`` shows them.
            training: whether TRL's fields count as well.
        """
        ours = {field.name: field.metadata["group"] for field in fields(Recipe)}
        names = {"seed", "model_name_or_path", "model_revision", "dtype", "attn_implementation"}
        names |= {name for name, group in ours.items() if group in groups}
        resolved = self.parsed.resolved
        chosen = {name for name in resolved if name in names or (training and name not in ours)}
        return json_sha256([{name: resolved[name] for name in chosen}, self.input_digests])

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
