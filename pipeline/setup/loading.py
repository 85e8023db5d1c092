"""A recipe -> a session: what it names is read, and its settings are checked against one another."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from textwrap import shorten

from pipeline.engines.chat import load_tokenizer, require_chat_template
from pipeline.engines.vllm_process import LORA_RANKS, find_python
from pipeline.errors import InputError, first_line
from pipeline.inputs.addresses import is_address, read_addresses, read_key, read_key_variables
from pipeline.inputs.constitution import load_constitution
from pipeline.inputs.labelled import load_labelled
from pipeline.inputs.model import follows_main, pinned, require_model_folder, resolve_model, split_revision
from pipeline.inputs.places import find_file
from pipeline.inputs.recipe import ParsedRecipe
from pipeline.inputs.recipe_fields import OTHER_ROLES
from pipeline.inputs.scorer_names import split_name
from pipeline.inputs.templates import load_plain_question, load_templates
from pipeline.inputs.trackers import named_trackers, require_login
from pipeline.runs.rundir import RunDir
from pipeline.scorers.defects import KEEPABLE
from pipeline.scorers.refusal import named_places
from pipeline.setup.instruments import asks_for_recall, classifier_names, recall_file
from pipeline.setup.session import Session, log

_ROOM_BESIDE = 0.8
"""The share of a GPU that vLLM may take without a warning where other models run beside it."""


def load_session(parsed: ParsedRecipe) -> Session:
    """Read and check everything that a recipe names; write nothing.

    Raises:
        InputError: something is missing or damaged, or two settings are incompatible.
    """
    recipe, model = parsed.recipe, parsed.model
    revision = pinned(resolve_model(str(model.model_name_or_path)), model.model_revision)
    parsed = replace(parsed, model=replace(model, model_revision=revision))
    session = Session(
        parsed=parsed,
        run=RunDir(Path(str(recipe.run_dir))),
        constitution=load_constitution(find_file(recipe.constitution, "constitution")),
        templates=load_templates(find_file(recipe.templates, "templates")),
    )
    _check_scoring(session)
    _check_reserve(session)
    _check_refinement(session)
    _check_training(session)
    _check_reporting(session)
    _check_engines(session)
    _check_revisions(session)
    _check_other_tokenizers(session)
    return session


def check_tokenizer(session: Session) -> None:
    """Check the base without loading its weights: a local folder has all files, and a dialogue can be written for it.

    Raises:
        InputError: there is no such model, or neither its tokenizer nor the recipe has a chat template.
    """
    require_model_folder(session.model)
    template, revision = session.chat_template, session.parsed.model.model_revision
    try:
        tokenizer = load_tokenizer(session.model, revision, template)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{session.model}: its tokenizer cannot be loaded ({first_line(error)}). Give a Hub id or a folder as "
            "`model_name_or_path`."
        ) from error
    require_chat_template(tokenizer)


def _check_other_tokenizers(session: Session) -> None:
    for key, name in session.other_models.items():
        from transformers import AutoTokenizer

        model, revision = split_revision(name, key)
        folder = Path(resolve_model(model))
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder if folder.is_dir() else model,
                revision=revision,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError) as error:
            if not folder.is_dir():
                continue  # it is on the Hub, and comes when it is first asked
            raise InputError(f"{key}: `{name}`: its tokenizer cannot be loaded ({first_line(error)}).") from error
        if not tokenizer.chat_template:
            raise InputError(
                f"{key}: `{name}`: its tokenizer has no chat template, so a dialogue cannot be written for it, and "
                "`chat_template_path` is for the model being trained. Put a chat_template.jinja into its folder "
                "(such as a copy of constitutions/templates/chat_plain.jinja), or name another model."
            )


def _check_scoring(session: Session) -> None:
    recipe = session.recipe
    if not recipe.probe_sets:
        raise InputError("probe_sets: is empty, so nothing would be measured; give at least one `name=source`.")
    foreign = [entry for entry in recipe.probe_sets if "=sandbox:" not in entry]
    if "gold" in recipe.scorers and foreign:
        raise InputError(f"scorers: `gold` knows the truth only on the sandbox, and `{foreign[0]}` is not from it.")
    if "kl" in recipe.scorers and (recipe.probe_temperature, recipe.top_p) != (1.0, 1.0):
        log.warning("scorers: `kl` is the divergence at temperature 1 and top_p 1; the probes use other settings")
    if session.instruments.judging and session.instruments.judging.by_policy:
        log.warning("judge: the policy under test rates itself; its columns are called self_judge.*")
    elif session.instruments.judging and recipe.judge in (recipe.critic, recipe.reviser):
        log.warning("judge: `%s` also critiques or rewrites, so it has the same blind spots as training", recipe.judge)
    _check_refusals(session)
    _check_classifiers(session)
    columns = session.columns
    if recipe.guard is not None:
        from pipeline.tails import QUANTITIES

        scorer, _, quantity = recipe.guard.partition("/")
        if scorer not in columns or quantity not in QUANTITIES:
            raise InputError(
                f"guard: must be SCORER/QUANTITY, found `{recipe.guard}`; scorers: {', '.join(columns)}; "
                f"quantities: {', '.join(QUANTITIES)}."
            )
    named = [("headline_scorer", recipe.headline_scorer), *(("alarm_scorers", name) for name in recipe.alarm_scorers)]
    for key, name in named:
        if name is not None and name not in columns:
            raise InputError(f"{key}: there is no score `{name}`; there are {', '.join(columns)}.")

    asked = [name for name in recipe.alarm_scorers if name in session.question_columns]
    if asked:
        raise InputError(
            f"alarm_scorers: `{asked[0]}` has questions of its own, but alarms watch sampled answers, which can be "
            "drawn on fresh prompts; its changes are in the drift table, and it may be a `guard`."
        )


def _check_refusals(session: Session) -> None:
    kinds = [split_name(entry) for entry in session.recipe.scorers if "refusal" in split_name(entry).name]
    for name, where in kinds:
        if [one for one, _ in kinds].count(name) > 1:
            all_slices = "list all its slices after one colon, separated by commas"
            advice = "keep `refusal` or `refusal:WEIGHTS`" if name == "refusal" else all_slices
            raise InputError(f"scorers: `{name}` is listed twice; {advice}.")
        if name == "refusal":
            continue
        known = {*session.probe_sets, *(p.slice for loaded in session.probe_sets.values() for p in loaded.prompts)}
        for pattern in named_places(where or ""):
            if not any(fnmatchcase(one, pattern) for one in known):
                raise InputError(
                    f"scorers: `{name}:{where}` names `{pattern}`, but there is no slice or probe set of that name; "
                    f"there are {', '.join(sorted(known))}."
                )


def _check_classifiers(session: Session) -> None:
    names = classifier_names(session.recipe)
    given: dict[str, str] = {}
    for entry, name in names.items():
        for column in session.columns_of(entry):
            if column in given:
                raise InputError(
                    f"scorers: `{given[column]}` and `{entry}` both give the score `{column}`; leave one out, or give "
                    f"one of them a name of its own: `classifier:NAME={entry.removeprefix('classifier:')}`."
                )
            given[column] = entry
        if follows_main(name.model, name.revision):
            _warn_of_main(f"scorers: `{entry}`", f"classifier:{name.model}")


def _check_revisions(session: Session) -> None:
    revision = session.parsed.resolved["model_revision"]
    if follows_main(session.model, None if revision == "main" else revision):
        commit = session.parsed.model.model_revision
        log.warning(
            "model_name_or_path: `%s` follows the Hub's main branch, and a run whose base has moved on cannot be "
            "resumed; pin a commit: `model_revision: %s`",
            session.model_name,
            "COMMIT" if commit == revision else commit,
        )
    for key, name in session.other_models.items():
        if follows_main(*split_revision(name, key)):
            _warn_of_main(f"{key}: `{name}`", name)


def _warn_of_main(what: str, name: str) -> None:
    log.warning(
        "%s follows the Hub's main branch, which may move on between launches; pin a commit: `%s@COMMIT`", what, name
    )


def _check_reserve(session: Session) -> None:
    recipe = session.recipe
    if "reserve" in session.alarm_prompts:
        _check_slices_of_reserve(session)
        held, wanted = len(session.alarm_prompts["reserve"].prompts), recipe.watch_prompts * recipe.num_rounds
        if held < wanted:
            log.warning(
                "reserve: holds %s fresh prompts, but `watch_prompts` alone takes %s over %d rounds; later rounds "
                "will have none left to confirm an alarm with",
                f"{held:,}",
                f"{wanted:,}",
                recipe.num_rounds,
            )
        if recipe.horizon < recipe.num_rounds:
            log.warning(
                "horizon: covers %d of %d rounds; what is suspected in later ones is not tested on fresh prompts, and "
                "stays amber. Declare a horizon of all rounds before the first",
                recipe.horizon,
                recipe.num_rounds,
            )


def _check_slices_of_reserve(session: Session) -> None:
    panel = {prompt.slice for prompt in next(iter(session.probe_sets.values())).prompts}
    key = "slice_reserve" if "slice_reserve" in session.alarm_prompts else "reserve"
    absent = sorted(panel - {prompt.slice for prompt in session.alarm_prompts[key].prompts})
    if len(panel) > 1 and absent:
        log.warning(
            "%s: holds no prompt of %d of the panel's %d slices: %s. What is suspected in one of them cannot be "
            "tested on fresh prompts, and stays amber. Add prompts of these slices, under the same names "
            "(`probe_slice_column`)",
            key,
            len(absent),
            len(panel),
            shorten(", ".join(absent), 300, placeholder=" …"),
        )


def _check_engines(session: Session) -> None:
    recipe, model = session.recipe, session.parsed.model
    named = {key: str(getattr(recipe, key) or "") for key in OTHER_ROLES}
    addressed = {key: text for key, text in named.items() if is_address(text)}
    if recipe.policy_engine == "server":
        addressed["policy_endpoints"] = ",".join(recipe.policy_endpoints)
    if (addressed or recipe.policy_engine != "local") and importlib.util.find_spec("openai") is None:
        key = next(iter(addressed), "policy_engine")
        raise InputError(f"{key}: servers need the openai client; install it with `pip install -e '.[server]'`.")
    variables = read_key_variables(recipe.api_keys)
    for address in (address for text in addressed.values() for address in read_addresses(text)):
        read_key(address, variables)
    if recipe.policy_engine == "local":
        return
    if model.load_in_4bit:
        raise InputError(
            f"load_in_4bit: with `policy_engine: {recipe.policy_engine}` answers would come from a base that is not "
            "quantised, and training would start from another model. Use `policy_engine: local`."
        )
    if unserved := [key for key in ("use_dora", "lora_modules_to_save") if getattr(model, key, None)]:
        raise InputError(f"{unserved[0]}: vLLM cannot serve such adapters; use `policy_engine: local`.")
    if recipe.policy_engine == "vllm":
        find_python(recipe.vllm_python)
        beside = [*session.other_models, *classifier_names(recipe)]
        if beside and recipe.vllm_gpu_memory > _ROOM_BESIDE:
            log.warning(
                "vllm_gpu_memory: vLLM takes %.0f%% of each GPU, and %s must fit beside it; on GPUs, take less than "
                "%.0f%% or put other models behind an address",
                100 * recipe.vllm_gpu_memory,
                " and ".join(beside),
                100 * _ROOM_BESIDE,
            )
        if model.lora_r > LORA_RANKS[-1]:
            raise InputError(f"lora_r: vLLM serves adapters up to rank {LORA_RANKS[-1]}, found {model.lora_r}.")


def _check_refinement(session: Session) -> None:
    recipe = session.recipe
    if asks_for_recall(recipe):
        load_plain_question(recall_file(recipe))
    if recipe.critic_labels:
        if not recipe.critique:
            raise InputError("critic_labels: with `critique: false` there are no critiques, so no critic to test.")
        load_labelled(find_file(recipe.critic_labels, "critic_labels"), session.constitution)
    for reason in recipe.keep_dropped:
        if reason not in KEEPABLE:
            raise InputError(
                f"keep_dropped: revisions dropped as `{reason}` cannot be trained on; {', '.join(KEEPABLE)} can."
            )
    _ = session.few_shot  # read now: what is wrong with it must not wait until round 1
    _check_slices(session)
    if not recipe.see_exchange:
        _check_quoting(session)


def _check_slices(session: Session) -> None:
    recipe, slices = session.recipe, sorted({prompt.slice for prompt in session.prompts.prompts})
    for name in slices:
        if not session.constitution.urn(name).principles:
            raise InputError(
                f"{recipe.constitution}: no principle applies to the slice `{name}` of the prompts; "
                "add one without `applies_to:`, or name the slice in one."
            )
    for principle in session.constitution.principles:
        if absent := [name for name in principle.applies_to if name not in slices]:
            log.warning(
                "%s: the principle `%s` is for `%s`, but no training prompt is in such a slice; there are %s",
                recipe.constitution,
                principle.id,
                "`, `".join(absent),
                shorten(", ".join(slices), 200),
            )


def _check_quoting(session: Session) -> None:
    """Where critic and reviser see the rendered template alone, it must quote prompt and answer."""
    templates, one, other = session.templates, "what was asked or said", "something else altogether"
    asks: dict[str, Callable[..., str]] = {
        "critique": templates.critique,
        "rewrite": partial(templates.rewrite, critique="what was found"),
    }
    if not session.recipe.critique:
        asks = {"rewrite_without_critique": templates.rewrite_without_critique}
    for name, ask in asks.items():
        for principle in session.constitution.principles:
            text = ask(principle, prompt=one, response=one)
            changed = {"prompt": {"prompt": other, "response": one}, "answer": {"prompt": one, "response": other}}
            # Compared with another text, since a template may quote through a filter.
            if missing := [what for what, values in changed.items() if ask(principle, **values) == text]:
                raise InputError(
                    f"see_exchange: false shows a model nothing but {session.recipe.templates}/{name}.jinja, which "
                    f"for the principle `{principle.id}` does not quote the {' and the '.join(missing)}. Use "
                    "`templates: constitutions/templates/standalone`, or quote both."
                )


def _check_training(session: Session) -> None:
    training = session.parsed.training
    if training.packing:
        raise InputError(
            "packing: a step would hold as many packs as it now holds rows, so training would take fewer and "
            "different steps, and TRL cuts rows to fill packs. To avoid padding, use `padding_free: true` with "
            "`max_length: null`, which takes the same steps."
        )
    if training.eval_strategy != "no":
        raise InputError(
            "eval_strategy: no rows are held out; `measure` evaluates each round's adapter on the probe sets. "
            "Leave it out."
        )
    if training.model_init_kwargs is not None:
        raise InputError(
            "model_init_kwargs: the base is loaded alike for sampling and for training, by `dtype`, `model_revision` "
            "and the fields for 4 bits. Leave it out."
        )
    if session.parsed.given.get("use_peft") is False:
        raise InputError("use_peft: a round trains a LoRA, and nothing else. Leave it out.")
    if training.padding_free and training.max_length is not None:
        raise InputError("padding_free: TRL supports it only without a length limit; set `max_length: null`.")


def _check_reporting(session: Session) -> None:
    resolved = session.parsed.resolved
    require_login(named_trackers(resolved["report_to"]))
    if resolved["push_to_hub"] or resolved["trackio_space_id"]:
        key = "push_to_hub" if resolved["push_to_hub"] else "trackio_space_id"
        raise InputError(
            f"{key}: a run uploads nothing by itself. Publish a round with `python pipeline/export.py RUN:ROUND "
            "--push_to_hub ID`, and a trackio project with `trackio.sync`."
        )
