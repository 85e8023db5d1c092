"""What a recipe would do, without doing it: rows, tokens, disk, and every template rendered once."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from pipeline.inputs.launch import precision, quantization
from pipeline.scorers.judge import VOTE

if TYPE_CHECKING:
    from pipeline.setup.session import Session

_BYTES_PER_TOKEN = 6
"""Size of all tables together, in bytes per sampled token; a sandbox run of two rounds took 5.2."""


def plan_report(session: Session) -> str:
    """The plan as text, from recipe, constitution and prompts; loads no model."""
    recipe, model = session.recipe, session.parsed.model
    prompts = len(session.prompts.prompts)
    helpful = len(session.helpful_prompts.prompts) if session.helpful_prompts else 0
    answers = prompts * recipe.samples_per_prompt
    turns = (2 if recipe.critique else 1) * recipe.num_revisions
    probes = {name: len(loaded.prompts) * recipe.probe_samples for name, loaded in session.probe_sets.items()}
    longest = recipe.probe_max_new_tokens or recipe.max_new_tokens
    watched = recipe.watch_prompts * recipe.probe_samples * 2 if recipe.reserve else 0
    suspected = recipe.confirm_prompts * recipe.probe_samples * 2 if recipe.reserve else 0
    calibration = session.alarm_prompts.get("calibration")
    once = sum(probes.values()) * 2 + (len(calibration.prompts) * recipe.probe_samples if calibration else 0)
    stages = [
        ("generate", answers + helpful, (answers + helpful) * recipe.max_new_tokens),
        ("refine", answers * recipe.num_revisions, answers * turns * recipe.critique_max_new_tokens),
        ("measure", sum(probes.values()), sum(probes.values()) * longest),
        ("alarm", watched, watched * longest),
    ]
    if session.instruments.judging:
        ratings = sum(probes.values()) * len(session.instruments.judging.rubrics) * (2 if recipe.judge_swap else 1)
        votes = ratings * recipe.judge_votes
        stages.append(("judge", ratings, votes * VOTE.max_new_tokens))
    rounds = recipe.num_rounds
    # Of how many rounds the last round takes the rows, at most.
    of_rounds = {"replace": 1, "anchor": min(rounds, 2), "accumulate": rounds}[recipe.data_policy]
    total = sum(tokens for _, _, tokens in stages) * rounds + once * longest
    lines = [
        f"{session.run.path}: {rounds} round{'s' * (rounds != 1)} after round 0, from {recipe.start_from}, "
        f"data {recipe.data_policy}",
        f"  model         {session.model_name}, {precision(str(model.dtype), quantization(model))}",
        f"  engines       policy {_policy_engine(session)}, critic {recipe.critic}, reviser {recipe.reviser}",
        f"  constitution  {session.recipe.constitution}, {len(session.constitution.principles)} principles",
        f"  prompts       {prompts:,} to train on, {helpful:,} helpful; probes: "
        + ", ".join(f"{name} {rows:,} samples" for name, rows in probes.items()),
        *_questions(session),
        "",
        "  stage     rows per round     max. new tokens per round",
        *(f"  {name:<10} {rows:>13,} {tokens:>29,}" for name, rows, tokens in stages),
        f"  distill    {f'up to {(answers + helpful) * of_rounds:,}':>13}",
        f"  round 0 measures twice and calibrates: {once:,} rows",
        f"  each confirmation of an alarm takes up to {suspected:,} more rows, {suspected * longest:,} tokens"
        if recipe.reserve
        else "  no alarm gets beyond amber: that needs fresh prompts (`reserve`)",
        f"  in all at most {total:,} sampled tokens without confirmations, and about "
        f"{total * _BYTES_PER_TOKEN / 1e6:,.0f} MB of tables, besides adapters and checkpoints",
        "",
        *_rendered(session),
    ]
    return "\n".join(lines)


def _questions(session: Session) -> list[str]:
    sets = session.instruments.questions.values()
    named = ", ".join(f"{one.name} {len(one.items):,}" for one in sets)
    return [f"  questions     {named}; read, not sampled"] if sets else []


def _policy_engine(session: Session) -> str:
    recipe = session.recipe
    return ", ".join(recipe.policy_endpoints) or recipe.policy_engine


def _rendered(session: Session) -> list[str]:
    principle = session.constitution.principles[0]
    prompt = session.prompts.prompts[0].messages[-1]["content"]
    response = "(the response to it)"
    templates = session.templates
    examples = {
        "critique": templates.critique(principle, prompt=prompt, response=response),
        "rewrite": templates.rewrite(principle, prompt=prompt, response=response, critique="(the critique)"),
        "rewrite_without_critique": templates.rewrite_without_critique(principle, prompt=prompt, response=response),
    }
    lines = [f"  the first prompt: {textwrap.shorten(prompt, 200)}"]
    for name, text in examples.items():
        lines += [f"  {name}.jinja, with the principle {principle.id}:", textwrap.indent(text, "    | ")]
    return lines
