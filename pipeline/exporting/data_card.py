"""The card of the data sets in an export: who said what under which constitution, what was left out."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.exporting.data import split_name
from pipeline.exporting.sections import amendments, constitutions, front, table
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.made_with import left_out, named_rounds, recipe_of, told_by_round, way_of_revising


def data_card(checkpoint: Checkpoint, counts: Mapping[str, Mapping[int, int]]) -> str:
    """The card of the data sets up to a round, with the header that lets ``load_dataset`` find them.

    Args:
        checkpoint: the last round.
        counts: number of rows by data set and round.
    """
    run, round_ = checkpoint
    recipes = {r: recipe_of(run, r) for r in range(1, round_ + 1)}
    what = "Critiques and revisions" if any(recipe["critique"] for recipe in recipes.values()) else "Revisions"
    title = f"{what} of {run.path.resolve().name}, {named_rounds(list(recipes))}"
    header = {
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": split_name(r), "path": f"{name}/{split_name(r)}.parquet"} for r in of_round],
            }
            for name, of_round in counts.items()
        ],
        "tags": ["constitutional-ai", "preference", "not-for-all-audiences"],
        "pretty_name": title,
    }
    rows = [
        [split_name(r), f"{counts['conversations'][r]:,}", f"{counts['preferences'][r]:,}", left_out(run, r)]
        for r in recipes
    ]
    return "\n".join(
        [
            *front(header),
            f"# {title}",
            "",
            "A model's answers to prompts, and their revisions under a written constitution. "
            + told_by_round({r: f"answers were {way_of_revising(recipe)}" for r, recipe in recipes.items()})
            + " **Prompts and first answers may be harmful**; they are included as the originals of the revisions.",
            "",
            *table(["split", "conversations", "preferences", "revisions left out"], rows),
            "`conversations` has the columns of `HuggingFaceH4/cai-conversation-harmless`, but for its `index`. "
            "Where an answer was revised more than once, `init_response` is the first answer, and critique and "
            "revision are those that gave the last text. Without a critique, the critic's columns are empty. "
            "`preferences` is in TRL's conversational format: `chosen` is the last text, `rejected` the first answer. "
            "Answers that stayed as they were, or whose revision could not be used, are left out. The texts have not "
            "been checked by hand.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'load_dataset("path/to/this/folder", "conversations", split="{split_name(round_)}")',
            "```",
            "",
            *constitutions(run, round_),
            *amendments(run, round_),
        ]
    )
