"""An open run: its recipe, its directory, its prompts, and its models."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.engines.base import Adapter
from pipeline.engines.chat import own_template
from pipeline.engines.kept import KeptAnswers
from pipeline.engines.roles import Roles, Serving
from pipeline.engines.vllm_process import Vllm
from pipeline.errors import InputError
from pipeline.inputs.addresses import read_addresses, read_key_variables
from pipeline.inputs.constitution import Constitution
from pipeline.inputs.few_shot import load_few_shot
from pipeline.inputs.launch import quantization
from pipeline.inputs.model import identify, is_other_model, model_digest, pinned, resolve_model
from pipeline.inputs.overlap import ProbeIndex, overlap_report
from pipeline.inputs.places import PROJECT, find_file
from pipeline.inputs.prompts import LoadedPrompts, load_prompts
from pipeline.inputs.recipe import ParsedRecipe
from pipeline.inputs.recipe_fields import OTHER_ROLES, Recipe
from pipeline.inputs.templates import Templates
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, json_sha256
from pipeline.runs.reserve import Reserve
from pipeline.runs.rundir import RunDir, package_versions
from pipeline.runs.stage import Chunk, Stage
from pipeline.scorers import Instruments, Worse, columns
from pipeline.setup.instruments import classifier_names, instrument_inputs, load_instruments

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.engines.classifier import SequenceClassifier

log = logging.getLogger("pipeline")

T = TypeVar("T")

MODEL = (
    "model_name_or_path",
    "model_revision",
    "dtype",
    "attn_implementation",
    "load_in_4bit",
    "bnb_4bit_quant_type",
    "use_bnb_nested_quant",
    "policy_engine",
)
"""The fields of a recipe that say which model runs and how."""

SCORING = frozenset({"scorers", "batteries", "headline_scorer", "sycophancy_templates", "classifier_template"})
"""The fields of a recipe that decide which scores are computed from the samples, but do not affect the samples."""

TRAINED_ON = frozenset({"prompts", "refine"})
"""The groups of fields that name files and models for making the training rows; no other stage depends on them."""


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

    @property
    def other_models(self) -> dict[str, str]:
        """The models besides the base that the recipe names, by recipe key; those behind addresses are left out."""
        named = {key: getattr(self.recipe, key) for key in OTHER_ROLES}
        return {k: name for k, name in named.items() if is_other_model(name) and resolve_model(name) != self.model}

    def describe_engine(self, *roles: str) -> dict[str, Any]:
        """Engine, precision and versions, for manifests: numbers obtained with different ones are not comparable.

        Args:
            roles: recipe keys, such as ``critic``, whose engines matter besides the policy's.
        """
        from accelerate import PartialState

        device = PartialState().device.type
        own = {"model": self.model_name, "quantization": quantization(self.parsed.model)}

        def describe(name: str) -> dict[str, Any]:
            # The policy is described as the recipe names it, wherever it is stored.
            return self.roles.describe(name, device) | (own if name in ("policy", "base") else {})

        others = {role: describe(getattr(self.recipe, role)) for role in roles}
        return {
            "engine": describe("policy"),
            "versions": package_versions(),
            **({"roles": others} if others else {}),
        }

    @property
    def headline(self) -> str:
        """The column that heads the drift table: the recipe's choice, else the first one of sampled answers."""
        sampled = [column for column in self.columns if column not in self.question_columns]
        return self.recipe.headline_scorer or next(iter([*sampled, *self.columns]))

    @cached_property
    def columns(self) -> dict[str, Worse]:
        """The scores that the recipe's scorers produce, and which end of each is the bad one."""
        return columns(self.recipe.scorers, self.instruments)

    def columns_of(self, entry: str) -> dict[str, Worse]:
        """The scores that one scorer of the recipe produces."""
        return columns([entry], self.instruments)

    def scorer_of(self, column: str) -> str:
        """The scorer in the recipe that produces a column."""
        return next(entry for entry in self.recipe.scorers if column in self.columns_of(entry))

    @cached_property
    def question_columns(self) -> frozenset[str]:
        """The scores of scorers' own questions; sampled answers do not have them."""
        return frozenset(column for entry in self.instruments.questions for column in self.columns_of(entry))

    @cached_property
    def instruments(self) -> Instruments:
        """What the recipe's scorers read."""
        return load_instruments(self.recipe)

    @cached_property
    def classifiers(self) -> dict[str, SequenceClassifier]:
        """The models of the ``classifier`` scorers, by their entry; each is loaded on first use."""
        from pipeline.engines.classifier import SequenceClassifier

        names = classifier_names(self.recipe)
        # Entries that name the same model share it.
        models = {
            (name.model, name.revision): SequenceClassifier(
                resolve_model(name.model),
                revision=pinned(resolve_model(name.model), name.revision),
                dtype=str(self.parsed.model.dtype),
                batch_size=self.recipe.batch_size,
                template=self.instruments.classifier_template,
            )
            for name in names.values()
        }
        return {entry: models[name.model, name.revision] for entry, name in names.items()}

    @cached_property
    def probe_sets(self) -> dict[str, LoadedPrompts]:
        """The fixed probe sets by name. They are the same for every seed, since runs are compared on them."""
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
        """The prompts that alarms need besides the panel, by recipe key; no prompt is in two of them."""
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
        """Finds the probe prompt most similar to a training prompt."""
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

    @property
    def ledger(self) -> Reserve:
        """The prompts that alarms have drawn."""
        return Reserve(self.run, self.seed)

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
    def chat_template_sha256(self) -> str:
        """Digest of the chat template that dialogues are written with, the recipe's or the model's own."""
        return json_sha256(self.chat_template or own_template(self.model, self.parsed.model.model_revision))

    @cached_property
    def few_shot(self) -> list[dict[str, str]]:
        """Turns of the example chats that critic and reviser see first."""
        given = self.recipe.few_shot
        return load_few_shot(find_file(given, "few_shot")) if given else []

    @cached_property
    def roles(self) -> Roles:
        """The models by role (policy, critic, reviser, ...); each is loaded on first use."""
        from trl import get_quantization_config

        return Roles(
            self.model,
            revision=self.parsed.model.model_revision,
            dtype=str(self.parsed.model.dtype),
            quantization=get_quantization_config(self.parsed.model),
            chat_template=self.chat_template,
            batch_size=self.recipe.batch_size,
            prefix_memory=int(self.recipe.prefix_memory * 2**30),
            serving=self._serving(),
        )

    def collect(
        self,
        stage: Stage,
        items: Sequence[T],
        work: Callable[[Sequence[T]], Chunk],
        schema: pa.Schema,
        output: str,
        *,
        chunk_rows: int | None = None,
        kept: pa.Table | None = None,
    ) -> None:
        """``Stage.collect`` with the recipe's chunks and share of failures, timing the models of ``roles``."""
        r = self.recipe
        stage.collect(
            items,
            work,
            schema,
            output,
            chunk_rows or r.chunk_rows,
            r.max_failed_rows,
            kept=kept,
            clock=lambda: self.roles.seconds,
        )

    def _serving(self) -> Serving:
        r, model = self.recipe, self.parsed.model
        vllm = None
        if r.policy_engine == "vllm":
            vllm = Vllm(
                python=r.vllm_python,
                model=self.model,
                revision=model.model_revision,
                dtype=str(model.dtype),
                lora_rank=model.lora_r,
                max_model_len=r.vllm_max_model_len,
                tensor_parallel=r.vllm_tensor_parallel,
                gpu_memory=r.vllm_gpu_memory,
                folder=self.run.path / "logs" / "vllm",
            )
        return Serving(
            policy=read_addresses(",".join(r.policy_endpoints)) if r.policy_endpoints else (),
            vllm=vllm,
            keep_running=r.vllm_keep_running,
            keys=read_key_variables(r.api_keys),
            limit=r.max_concurrent_requests,
            attempts=r.request_retries + 1,
            timeout=r.request_timeout,
            kept=KeptAnswers(self.run.answers, ranks.rank(), ranks.world_size()),
        )

    def adapter(self, round_: int) -> Adapter | None:
        """The adapter that round ``round_`` trained; None for round 0, the base.

        Raises:
            RunError: that round has not been distilled, or its weights are not those that it recorded.
        """
        return Adapter(self.run.adapter_dir(round_), self.run.adapter_sha256(round_)) if round_ else None

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
            **instrument_inputs(r, self.instruments),
        }
        found |= {key: identify(name, key) for key, name in self.other_models.items() if key in ("critic", "reviser")}
        if self.helpful_prompts:
            found["helpful_prompts"] = self.helpful_prompts.sha256
        if self.chat_template:
            found["chat_template_path"] = json_sha256(self.chat_template)
        if r.critic_labels:
            found["scorers.critic_labels"] = file_sha256(find_file(r.critic_labels, "critic_labels"))
        if r.few_shot:
            found["few_shot"] = file_sha256(find_file(r.few_shot, "few_shot"))
        return found

    def settings(self, *groups: str, training: bool = False, scoring: bool = False) -> str:
        """Digest of the settings that a stage depends on.

        Args:
            groups: groups of recipe fields, as ``--help`` shows them.
            training: whether TRL's fields count as well.
            scoring: whether the scorers and the files they read count as well.
        """
        ours = {field.name: field.metadata["group"] for field in fields(Recipe)}
        names = {"seed", "vllm_max_model_len", *MODEL}  # what does not fit vLLM is refused, and that is in the tables
        names |= {name for name, group in ours.items() if group in groups}
        names -= set() if scoring else SCORING
        resolved = self.parsed.resolved
        chosen = {name for name in resolved if name in names or (training and name not in ours)}
        inputs = {
            k: v
            for k, v in self.input_digests.items()
            if (scoring or not k.startswith(("scorers.", "batteries.")))
            and (ours.get(k) not in TRAINED_ON or ours[k] in groups)
        }
        return json_sha256([{name: resolved[name] for name in chosen}, inputs])

    def scorer_digests(self, entries: Sequence[str]) -> dict[str, str]:
        """For each entry of ``scorers``, the digest of what determines its scores besides the samples."""
        resolved, files = self.parsed.resolved, self.input_digests
        model = [{name: resolved[name] for name in MODEL}, files["model"], files.get("chat_template_path")]
        return {entry: json_sha256([model, digest]) for entry, digest in self.instrument_digests(entries).items()}

    def instrument_digests(self, entries: Sequence[str]) -> dict[str, str | None]:
        """For each entry of ``scorers``, the digest of the judge, rubric, classifier or files that it reads."""
        files = self.input_digests
        batteries = json_sha256({name: sha for name, sha in files.items() if name.startswith("batteries.")})
        return {entry: batteries if entry == "likelihood" else files.get(f"scorers.{entry}") for entry in entries}

    def choose_round(self, asked: int | None, first: int) -> int:
        """The round a stage command works on: the requested one, else the first unfinished one.

        Raises:
            InputError: the recipe has no such round, or the stage is not part of it.
        """
        finished = self.run.finished_rounds()
        round_ = asked if asked is not None else next(r for r in count(first) if r not in finished)
        if not first <= round_ <= self.recipe.num_rounds:
            raise InputError(
                f"--round {round_}: this stage has rounds {first} to {self.recipe.num_rounds} in this recipe."
            )
        return round_

    def make_room(self) -> None:
        """Free the memory of all models, for training."""
        self.roles.make_room()
        self._close_classifiers()

    def put_models_away(self) -> None:
        """Close the models of ``roles``; the next use makes them anew, and reads anew what servers answered before."""
        if "roles" in self.__dict__:
            self.roles.close()
            del self.roles

    def at(self, run: RunDir) -> Session:
        """This session with another run directory; models, prompts and settings are shared."""
        _ = self.roles, self.classifiers  # made here, or each session would make its own; nothing is loaded yet
        other = copy.copy(self)
        other.run = run
        return other

    def forget_answers(self) -> None:
        """Delete the files that keep servers' answers, once every stage that asked for them is complete."""
        if "roles" in self.__dict__:
            self.roles.forget_answers()

    def close(self) -> None:
        """Free the models and let other processes write the run."""
        if "roles" in self.__dict__:
            self.roles.close()
        self._close_classifiers()
        if ranks.is_main():
            self.run.release()

    def _close_classifiers(self) -> None:
        if "classifiers" in self.__dict__:
            for classifier in self.classifiers.values():
                classifier.close()
