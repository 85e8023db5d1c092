"""A recipe -> what its scorers read (batteries, questions, rubrics), and the digests recorded with the run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.inputs.battery import load_batteries
from pipeline.inputs.choices import load_choices
from pipeline.inputs.classified import ClassifierName, load_classifier_template, parse_classifier
from pipeline.inputs.model import identify, model_digest, resolve_model
from pipeline.inputs.places import find_file
from pipeline.inputs.prompt_sources import of_sandbox
from pipeline.inputs.reference_texts import load_reference
from pipeline.inputs.rubric import load_rubrics
from pipeline.inputs.scorer_names import split_name
from pipeline.inputs.sycophancy import load_sycophancy
from pipeline.inputs.templates import load_judge_template
from pipeline.runs.files import file_sha256, json_sha256
from pipeline.scorers import Instruments, Judging
from pipeline.scorers.refusal_model import SHIPPED, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.inputs.question_sets import QuestionSet
    from pipeline.inputs.recipe_fields import Recipe

log = logging.getLogger("pipeline")


def load_instruments(recipe: Recipe) -> Instruments:
    """Read everything that the recipe's scorers read.

    Raises:
        InputError: a file is missing or has errors, each named with its line.
    """
    return Instruments(
        batteries=load_batteries([find_file(given, "batteries") for given in recipe.batteries]),
        questions=_load_questions(recipe),
        judging=_load_judging(recipe),
        refusal_model=load_model(_refusal_weights(recipe)),
        classifier_template=(
            load_classifier_template(find_file(recipe.classifier_template, "classifier_template"))
            if recipe.classifier_template
            else None
        ),
    )


def instrument_inputs(recipe: Recipe, instruments: Instruments) -> dict[str, str]:
    """What the scorers read, as inputs of the run: digests by ``batteries.NAME`` and ``scorers.ENTRY``."""
    found = {f"batteries.{battery.name}": battery.sha256 for battery in instruments.batteries}
    found |= {f"scorers.{entry}": questions.sha256 for entry, questions in instruments.questions.items()}
    for entry in recipe.scorers:
        if "refusal" in split_name(entry).name:
            found[f"scorers.{entry}"] = file_sha256(_refusal_weights(recipe))
    for entry, classifier in classifier_names(recipe).items():
        shown = instruments.classifier_template.sha256 if instruments.classifier_template else None
        found[f"scorers.{entry}"] = json_sha256(
            [model_digest(resolve_model(classifier.model), classifier.revision), shown]
        )
    if judging := instruments.judging:
        how = [judging.template.sha256, judging.swap, judging.votes, identify(str(recipe.judge), "judge")]
        for name, rubric in judging.rubrics.items():
            found[f"scorers.judge:{name}"] = json_sha256([rubric.sha256, *how])
        if recipe.second_judge:
            found["scorers.second_judge"] = identify(recipe.second_judge, "second_judge")
    if asks_for_recall(recipe):
        found["scorers.recall_template"] = file_sha256(recall_file(recipe))
    return found


def asks_for_recall(recipe: Recipe) -> bool:
    """Whether the audit has answers known to be faultless, whose rewrites may have lost content."""
    return recipe.critique and (of_sandbox(recipe.prompts) or recipe.critic_labels is not None)


def recall_file(recipe: Recipe) -> Path:
    """The template that asks for an answer once more: the recipe's own, else its templates', else the project's."""
    if recipe.recall_template:
        return find_file(recipe.recall_template, "recall_template")
    own = find_file(recipe.templates, "templates") / "recall.jinja"
    return own if own.exists() else find_file("constitutions/templates/recall.jinja", "recall_template")


def classifier_names(recipe: Recipe) -> dict[str, ClassifierName]:
    """The models of the ``classifier`` scorers and the requested labels, by their entry in the recipe."""
    split = {entry: split_name(entry) for entry in recipe.scorers}
    return {entry: parse_classifier(of.argument or "") for entry, of in split.items() if of.name == "classifier"}


def _load_questions(recipe: Recipe) -> dict[str, QuestionSet[Any]]:
    found: dict[str, QuestionSet[Any]] = {}
    for entry in recipe.scorers:
        name, argument = split_name(entry)
        if argument is None:
            continue
        if name == "choice":
            found[entry] = load_choices(find_file(argument, "scorers"))
        elif name == "sycophancy":
            templates = find_file(recipe.sycophancy_templates, "sycophancy_templates")
            found[entry] = load_sycophancy(find_file(argument, "scorers"), templates)
        elif name == "nll_reference":
            found[entry] = load_reference(find_file(argument, "scorers"))
    names = [one.name for one in found.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"scorers: two files define the question set `{twice}`; rename one of them.")
    for one in found.values():
        if one.n_repeated:
            log.info("%s: %s questions, %s repeated ones left out", one.name, len(one.items), one.n_repeated)
    return found


def _load_judging(recipe: Recipe) -> Judging | None:
    entries = [split_name(entry) for entry in recipe.scorers]
    asked = [entry.argument for entry in entries if entry.name == "judge" and entry.argument]
    if not asked:
        return None
    files = [name if name.endswith(".txt") else f"constitutions/rubrics/{name}.txt" for name in asked]
    rubrics = load_rubrics([find_file(file, "scorers") for file in files])
    return Judging(
        dict(zip(asked, rubrics, strict=True)),
        load_judge_template(find_file(recipe.judge_template, "judge_template")),
        by_policy=recipe.judge == "policy",
        swap=recipe.judge_swap,
        votes=recipe.judge_votes,
    )


def _refusal_weights(recipe: Recipe) -> Path:
    named = [argument for name, argument in map(split_name, recipe.scorers) if name == "refusal" and argument]
    return find_file(named[0], "scorers") if named else SHIPPED
