"""Responses -> critiques -> revisions: each response is judged by a principle drawn for it, then rewritten.

python pipeline/refine.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import command
from pipeline.engines.answers import failed_answers
from pipeline.engines.base import Completion, Message, Request, Sampling
from pipeline.engines.roles import Role
from pipeline.inputs.constitution import Principle, draw_principles
from pipeline.inputs.templates import dialogue_text
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, write_text
from pipeline.runs.lazy import TableRows
from pipeline.runs.seeds import row_seed
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import PAIRS, REFINEMENTS, Pieces, write_table
from pipeline.scorers.defects import revision_defect

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.setup.session import Session

Row = dict[str, Any]

OUTPUTS = ["refinements.parquet", "pairs.parquet"]

_KEPT = ("prompt_id", "sample", "round", "model", "adapter_sha256", "prompt", "slice")
"""Columns of a response that stand in the rows of its revisions too."""


def run(session: Session, round_: int) -> None:
    """Critique and rewrite a round's responses."""
    adapter = session.adapter(round_ - 1)
    responses = session.run.stage_dir(round_, "generate") / "responses.parquet"
    stage = Stage(
        session.run.stage_dir(round_, "refine"),
        "refine",
        round_,
        inputs={
            "responses": file_sha256(responses) if responses.exists() else None,
            "adapter": adapter.sha256 if adapter else None,
        },
        settings=session.settings("refine", "sampling"),
    )
    if not stage.is_complete():
        reviser = Reviser(session, round_)
        session.collect(stage, TableRows(responses), reviser.refine, REFINEMENTS, OUTPUTS[0])
        if ranks.is_main():
            write_text(stage.folder / "constitution.txt", session.constitution.source_text)
            write_table(stage.folder / OUTPUTS[1], _pairs(stage.folder / OUTPUTS[0]), PAIRS)
        ranks.barrier()
        outputs = [*OUTPUTS, "constitution.txt"]
        facts = stage_facts(stage.folder, OUTPUTS, session.recipe.keep_dropped)
        made_with = {"constitution": session.constitution.sha256} | session.describe_engine("critic", "reviser")
        stage.finish(outputs, facts | made_with)


class Draft(NamedTuple):
    """A text to revise, the row with the identity, prompt and slice that it belongs to, and its principle."""

    row: Row
    text: str
    principle: Principle


class Reviser:
    """Takes chunks of responses through ``num_revisions`` passes, all rows of a chunk side by side."""

    def __init__(self, session: Session, round_: int) -> None:
        self._session, self._round = session, round_
        self._adapter = session.adapter(round_ - 1)
        self._few_shot = session.few_shot

    def refine(self, responses: Sequence[Row]) -> Chunk:
        """Return one row per revision; a response that could not be sampled keeps one row that says so."""
        recipe = self._session.recipe
        usable = [row for row in responses if row["drop_reason"] is None]
        texts = [row["response"] for row in usable]
        drawn = self._draw(usable)
        chains: list[list[Row]] = [[] for _ in usable]
        for index in range(recipe.num_revisions):
            principles = [of_row[index] for of_row in drawn]
            drafts = list(map(Draft, usable, texts, principles))
            for place, revised in enumerate(self.revise(drafts, index)):
                chains[place].append(revised)
                if revised["drop_reason"] is None or revised["drop_reason"] in recipe.keep_dropped:
                    texts[place] = revised["revision"]
        for row, text, chain in zip(usable, texts, chains, strict=True):
            if text != row["response"]:
                chain[-1]["final"] = text
        of_usable = iter(chains)
        chains = [[_unusable(row)] if row["drop_reason"] is not None else next(of_usable) for row in responses]
        # A response may fail in several passes, and is one item all the same.
        failed = [reason for chain in chains for reason in failed_answers(chain)[:1]]
        return Chunk([row for chain in chains for row in chain], failed)

    def _draw(self, rows: Sequence[Row]) -> list[list[Principle]]:
        """The principles of each response, one per pass."""
        recipe, constitution = self._session.recipe, self._session.constitution
        n, replace = recipe.num_revisions, recipe.draw_with_replacement
        return [
            draw_principles(constitution, n, np.random.default_rng(seed), replace, row["slice"])
            for row, seed in zip(rows, self._seeds("principle", rows), strict=True)
        ]

    def revise(self, drafts: Sequence[Draft], index: int) -> list[Row]:
        """One pass: each text is criticised under its principle and rewritten.

        Args:
            drafts: texts to revise.
            index: number of the pass, which goes into the seeds.
        """
        roles, recipe = self._session.roles, self._session.recipe
        critiques: Sequence[Completion | None] = [None] * len(drafts)
        seeds = self._seeds("revision", (draft.row for draft in drafts), index)
        if recipe.critique:
            questions = self._questions(drafts, index)
            said = self._ask(roles.named(recipe.critic, self._adapter), questions)
            requests, critiques = self._rewrites(drafts, questions, said, seeds), said
        else:
            requests = self._rewrites_without_critique(drafts, seeds)
        revisions = self._ask(roles.named(recipe.reviser, self._adapter), requests)
        return [
            _row(draft.row)
            | {
                "seed": seed,
                "finish_reason": revision.finish_reason,
                "error": (critique.error if critique else None) or revision.error,
                "revision_index": index,
                "principle_id": draft.principle.id,
                "response": draft.text,
                "critique": critique.text if critique else None,
                "revision": revision.text,
                # If the critique failed, the rewrite is based on nothing.
                "drop_reason": (critique.defect if critique else None) or revision_defect(draft.text, revision),
                "prompt_tokens": revision.prompt_tokens + (critique.prompt_tokens if critique else 0),
                "new_tokens": revision.new_tokens + (critique.new_tokens if critique else 0),
            }
            for draft, critique, revision, seed in zip(drafts, critiques, revisions, seeds, strict=True)
        ]

    def criticise(self, critic: Role, drafts: Sequence[Draft], index: int) -> list[Completion]:
        """One critique per text, by any model; other arguments as for ``revise``."""
        return self._ask(critic, self._questions(drafts, index))

    def _seeds(self, step: str, rows: Iterable[Row], index: int = 0) -> list[int]:
        seed, round_ = self._session.seed, self._round
        return [row_seed(seed, step, round_, row["prompt_id"], row["sample"], index) for row in rows]

    def _ask(self, role: Role, requests: Sequence[Request]) -> list[Completion]:
        recipe = self._session.recipe
        return role.generate(
            requests, Sampling(recipe.critique_temperature, recipe.top_p, recipe.critique_max_new_tokens)
        )

    def _questions(self, drafts: Sequence[Draft], index: int) -> list[Request]:
        """The critique requests, one per text."""
        ask, recipe = self._session.templates.critique, self._session.recipe
        asked = [ask(principle, prompt=dialogue_text(row["prompt"]), response=text) for row, text, principle in drafts]
        # The rewrite request continues the same dialogue if the same model gets it.
        goes_on = recipe.see_exchange and recipe.critic == recipe.reviser
        seeds = self._seeds("critique", (draft.row for draft in drafts), index)
        dialogues = self._dialogues(drafts, asked)
        return [Request(dialogue, seed, goes_on) for dialogue, seed in zip(dialogues, seeds, strict=True)]

    def _rewrites(
        self, drafts: Sequence[Draft], questions: Sequence[Request], said: Sequence[Completion], seeds: Sequence[int]
    ) -> list[Request]:
        """The requests for rewrites, given the critics' questions and what was said to them."""
        ask = self._session.templates.rewrite
        asked = [
            ask(principle, prompt=dialogue_text(row["prompt"]), response=text, critique=critique.text)
            for (row, text, principle), critique in zip(drafts, said, strict=True)
        ]
        if not self._session.recipe.see_exchange:
            return list(map(Request, self._dialogues(drafts, asked), seeds))
        return [
            Request([*before.messages, _turn("assistant", critique.text), _turn("user", then)], seed)
            for before, critique, then, seed in zip(questions, said, asked, seeds, strict=True)
        ]

    def _rewrites_without_critique(self, drafts: Sequence[Draft], seeds: Sequence[int]) -> list[Request]:
        ask = self._session.templates.rewrite_without_critique
        asked = [ask(principle, prompt=dialogue_text(row["prompt"]), response=text) for row, text, principle in drafts]
        return list(map(Request, self._dialogues(drafts, asked), seeds))

    def _dialogues(self, drafts: Sequence[Draft], asked: Sequence[str]) -> list[list[Message]]:
        """The dialogues in which a model is asked about texts."""
        if not self._session.recipe.see_exchange:
            return [[*self._few_shot, _turn("user", question)] for question in asked]
        return [
            [*self._after_examples(draft.row["prompt"]), _turn("assistant", draft.text), _turn("user", question)]
            for draft, question in zip(drafts, asked, strict=True)
        ]

    def _after_examples(self, prompt: Sequence[Message]) -> list[Message]:
        """The prompt behind the examples; its system turn stays first, where chat templates want it."""
        opening = list(takewhile(lambda turn: turn["role"] == "system", prompt))
        return [*opening, *self._few_shot, *prompt[len(opening) :]]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _row(response: Row) -> Row:
    return {name: response[name] for name in _KEPT}


def _unusable(response: Row) -> Row:
    return _row(response) | {
        "seed": response["seed"],
        "finish_reason": response["finish_reason"],
        "error": response["error"],
        "revision_index": 0,
        "response": response["response"],
        "drop_reason": f"response_{response['drop_reason']}",
        "prompt_tokens": 0,
        "new_tokens": 0,
    }


def _pairs(refinements: Path) -> Iterator[pa.Table]:
    """Pairs of the final and the first text of every response that has a final one, piece by piece."""
    columns = ["prompt", "prompt_id", "sample", "revision_index", "response", "final"]
    return map(pairs_of, Pieces(refinements, columns))


def pairs_of(rows: pa.Table) -> pa.Table:
    """The pairs of complete chains, each of which begins with revision 0."""
    begins = pc.equal(rows["revision_index"], 0)
    chain = pc.subtract(pc.cumulative_sum(begins.cast(pa.int64())), 1)
    ends = pc.is_valid(rows["final"])
    last = rows.filter(ends)
    columns = {
        "prompt": last["prompt"],
        "chosen": _said(last["final"]),
        "rejected": _said(rows.filter(begins)["response"].take(chain.filter(ends))),
        "prompt_id": last["prompt_id"],
        "sample": last["sample"],
    }
    return pa.table(columns, schema=PAIRS)


def _said(texts: pa.ChunkedArray) -> pa.Array:
    """Each text as a single assistant message."""
    roles = pa.array(["assistant"] * len(texts), pa.string())
    messages = pa.StructArray.from_arrays([roles, texts.combine_chunks()], ["role", "content"])
    return pa.ListArray.from_arrays(np.arange(len(texts) + 1, dtype=np.int32), messages)


def main(argv: Sequence[str]) -> None:
    """Refine a round's responses, as a command on a run directory."""
    command.run_stage(argv, run, first_round=1)


if __name__ == "__main__":
    command.main(main)
