"""A round as a folder or Hub repository of its own, for people and programs that have never heard of this project.

python pipeline/export.py runs/sandbox-blind-spot:3 --to exported
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.errors import InputError
from pipeline.inputs.places import find_file
from pipeline.report.checkpoints import Checkpoint, find_checkpoints
from pipeline.runs.files import read_json, write_text

if TYPE_CHECKING:
    from pipeline.exporting.hub import Kind
    from pipeline.exporting.weights import Trained
    from pipeline.inputs.templates import Templates

log = logging.getLogger("pipeline")

DATA = "data"
"""Subfolder for the data sets in an exported folder; on the Hub they have a repository of their own."""


def main(argv: Sequence[str]) -> None:
    """Export a round, as a command."""
    options = _read(argv)
    checkpoint = _one(options.checkpoint)

    from pipeline.exporting.data import require_same_templates
    from pipeline.exporting.weights import find_trained
    from pipeline.inputs.templates import load_templates

    trained = find_trained(*checkpoint)
    templates = None
    if options.datasets:
        templates = load_templates(find_file(read_json(checkpoint.run.resolved)["templates"], "templates"))
        require_same_templates(checkpoint.run, templates)
    if options.to:
        _require_free(options.to)
        partial = options.to.with_name(f".{options.to.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by an export that was killed
        try:
            _write(partial, checkpoint, trained, templates, options)
            partial.replace(options.to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        log.info("Exported to %s. README.md says what it is and how to load it.", options.to)
        return
    if trained.base_is_local and not options.merge and not options.base_model:
        raise InputError(
            f"--push_to_hub: the base of this adapter is a folder on this machine ({trained.base_name}), which nobody "
            "else has. Give the Hub id of the same model with --base_model ID, or push the merged model (--merge)."
        )

    from pipeline.exporting.hub import check_hub, push

    kinds: list[Kind] = ["model", "dataset"] if templates else ["model"]
    check_hub(options.push_to_hub, kinds, public=options.public)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        _write(folder, checkpoint, trained, templates, options)
        if templates:
            (folder / DATA).rename(Path(temporary) / "dataset")
        for kind in kinds:
            address = push(Path(temporary) / kind, options.push_to_hub, kind, public=options.public)
            log.info("Pushed the %s to %s (%s).", kind, address, "public" if options.public else "private")


def _read(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="export.py",
        description="Export a round: its adapter, or its adapter merged into the base, with tokenizer, chat template "
        "and model card.",
    )
    parser.add_argument("checkpoint", metavar="RUN:ROUND", help="for example runs/sandbox-blind-spot:3")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", metavar="DIR", type=Path, help="folder, empty or not yet existing")
    where.add_argument("--push_to_hub", metavar="ID", help="repository on the Hub, private unless --public is given")
    parser.add_argument(
        "--merge", action="store_true", help="merge the adapter into the base, unquantised, in the run's precision"
    )
    parser.add_argument(
        "--datasets",
        action="store_true",
        help="also export the critiques and revisions of all rounds up to this one, and the preference pairs: to "
        "DIR/data, or to the data set repository ID",
    )
    parser.add_argument(
        "--base_model", metavar="ID", help="Hub id to give for the base, if the run's base is a folder"
    )
    parser.add_argument("--public", action="store_true", help="let anyone read what is pushed")
    options = parser.parse_args(argv)
    if options.public and not options.push_to_hub:
        parser.error("--public decides who may read what is pushed; it needs --push_to_hub")
    return options


def _one(name: str) -> Checkpoint:
    found = find_checkpoints([name])
    if len(found) == 1:
        return found[0]
    run = found[0].run
    chosen = f" (the run recommends round {read_json(run.selected)['round']})" if run.selected.exists() else ""
    raise InputError(f"{name}: say which round, for example {name}:{found[-1].round}{chosen}.")


def _require_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--to {folder}: is a file; name a folder.")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--to {folder}: is not empty, and nothing in it will be overwritten; name another folder.")


def _write(
    folder: Path,
    checkpoint: Checkpoint,
    trained: Trained,
    templates: Templates | None,
    options: argparse.Namespace,
) -> None:
    from pipeline.exporting.data import write_data
    from pipeline.exporting.data_card import data_card
    from pipeline.exporting.model_card import model_card
    from pipeline.exporting.weights import write_adapter, write_merged

    run, round_ = checkpoint
    if options.merge:
        log.info("Merging %s into %s (%s).", trained.adapter, trained.base_name, trained.dtype)
        write_merged(trained, folder)
    else:
        write_adapter(trained, folder, options.base_model)
    shutil.copyfile(run.drift(round_), folder / "drift.json")
    shutil.copyfile(run.stage_dir(round_, "refine") / "constitution.txt", folder / "constitution.txt")
    card = model_card(
        checkpoint, trained, merged=options.merge, base_model=options.base_model, repo_id=options.push_to_hub
    )
    write_text(folder / "README.md", card)
    if templates:
        counts = write_data(run, range(1, round_ + 1), templates, folder / DATA)
        write_text(folder / DATA / "README.md", data_card(checkpoint, counts))
        log.info("%s", _counted(counts))


def _counted(counts: Mapping[str, Mapping[int, int]]) -> str:
    return "\n".join(
        f"{name}: {sum(of_round.values()):,} rows ("
        + ", ".join(f"round {round_} {rows:,}" for round_, rows in of_round.items())
        + ")"
        for name, of_round in counts.items()
    )


if __name__ == "__main__":
    command.main(main)
