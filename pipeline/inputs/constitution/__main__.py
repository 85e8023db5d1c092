"""``python -m pipeline.inputs.constitution check | import``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError, PipelineError
from pipeline.inputs.constitution import Constitution, Principle, load_constitution, parse_constitution
from pipeline.inputs.constitution.importing import (
    constitution_text,
    few_shot_chats,
    import_principles,
    read_json,
)
from pipeline.inputs.templates import Templates, load_templates

SHIPPED_TEMPLATES = Path(__file__).parents[3] / "constitutions" / "templates"

EXAMPLE_PROMPT = "My landlord wants to throw me out next week. What can I do?"
EXAMPLE_RESPONSE = "Nothing. Landlords can do as they please, so start packing."
EXAMPLE_CRITIQUE = "The answer is wrong: in most places a landlord has to give notice."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code (0, or 1 after an error, which is on standard error)."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.inputs.constitution", description="Check or import a constitution."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="find all faults; print what the model will be asked")
    check.add_argument("file", type=Path, help="constitution file (plain text)")
    check.add_argument(
        "--templates", type=Path, default=SHIPPED_TEMPLATES, help="template folder (default: %(default)s)"
    )
    importer = commands.add_parser("import", help="turn a JSON constitution into plain text")
    importer.add_argument("file", type=Path, help="JSON of llm-swarm, Anthropic or open character training")
    importer.add_argument("--out", type=Path, required=True, help="constitution file to write")
    importer.add_argument("--few_shot", type=Path, help="JSON file to write llm-swarm's example chats to")
    args = parser.parse_args(argv)
    try:
        if args.command == "check":
            return _check(args.file, args.templates)
        return _import(args.file, args.out, args.few_shot)
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def rendered_examples(principle: Principle, templates: Templates) -> dict[str, str]:
    """What the model is asked under a principle, by template, about an example request and response.

    Raises:
        InputError: a template does not work for this principle.
    """
    sight = {"prompt": EXAMPLE_PROMPT, "response": EXAMPLE_RESPONSE}
    return {
        "critique": templates.critique(principle, **sight),
        "rewrite": templates.rewrite(principle, critique=EXAMPLE_CRITIQUE, **sight),
        "rewrite without critique": templates.rewrite_without_critique(principle, **sight),
    }


def _check(file: Path, template_folder: Path) -> int:
    errors: list[InputError] = []
    constitution, templates = None, None
    try:
        constitution = load_constitution(file)
    except InputError as error:
        errors.append(error)
    try:
        templates = load_templates(template_folder)
    except InputError as error:
        errors.append(error)
    if constitution is not None and templates is not None:
        errors += _print_examples(constitution, templates)
    sys.stderr.writelines(f"{error}\n" for error in errors)
    return 1 if errors else 0


def _print_examples(constitution: Constitution, templates: Templates) -> list[InputError]:
    errors = []
    total = sum(p.weight for p in constitution.principles)
    _say(f"{constitution.name}: {len(constitution.principles)} principles, sha256 {constitution.sha256[:16]}")
    _say(f"templates: {templates.folder}, sha256 {templates.sha256[:16]}")
    _say(f"\nexample request:  {EXAMPLE_PROMPT}\nexample response: {EXAMPLE_RESPONSE}")
    for p in constitution.principles:
        where = ", ".join(p.applies_to) or "all slices"
        _say(f"\n== {p.id} (line {p.line}; weight {p.weight:g}, {p.weight / total:.1%} of all; {where})")
        if any(brace in (p.text or f"{p.critique} {p.revise}") for brace in ("{{", "{%", "{#")):
            _say("note: the braces in this principle are shown to the model as they are; nothing is filled in")
        try:
            for name, text in rendered_examples(p, templates).items():
                _say(f"{name}:\n{textwrap.indent(text, '  | ', lambda _: True)}")
        except InputError as error:
            errors.append(error)
    return errors


def _import(file: Path, out: Path, few_shot: Path | None) -> int:
    data = read_json(file)
    principles = import_principles(data, str(file))
    text = constitution_text(principles, f"Imported from {file.name}.")
    parse_constitution(text, str(out))
    outputs = {out: text}
    if few_shot is not None:
        chats = few_shot_chats(data, str(file))
        outputs[few_shot] = json.dumps(chats, ensure_ascii=False, indent=2) + "\n"
    for path in outputs:
        if path.exists():
            raise InputError(f"{path}: exists already and may have been edited; give another name.")
    for path, content in outputs.items():
        try:
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}).") from error
    _say(f"{out}: {len(principles)} principles; look at them with `check {out}`")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
