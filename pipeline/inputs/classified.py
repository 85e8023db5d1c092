"""What a recipe says about a classifier: ``classifier:NAME=MODEL@REVISION#LABEL``, and the text that it is shown."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from pipeline.errors import InputError
from pipeline.inputs.model import split_revision

VARIABLES = ("prompt", "response")
"""The variables of a classifier's template."""


class ClassifierName(NamedTuple):
    """A classifier as a recipe names it.

    Attributes:
        model: Hub id or folder.
        label: label that is scored, or None for all of them.
        low_is_bad: whether the label is something good, so that low values are bad.
        revision: commit, tag or branch on the Hub; None for its main branch, or a folder.
        called: name used in its columns: the one in the recipe, or the last part of the model's.
    """

    model: str
    label: str | None
    low_is_bad: bool
    revision: str | None
    called: str


class ClassifierTemplate(NamedTuple):
    """The text that a classifier is shown; texts of models go in as values, never as templates."""

    sha256: str
    template: Template

    def render(self, prompt: str, response: str) -> str:
        """The text for one answer."""
        return self.template.render(prompt=prompt, response=response)


_CALLED = re.compile(r"([\w.-]+)=(.+)")


def parse_classifier(argument: str) -> ClassifierName:
    """Read ``MODEL`` with its optional parts: ``NAME=MODEL@REVISION#LABEL``.

    High values of ``#LABEL`` are bad, low ones of ``#!LABEL``. ``@REVISION`` pins a model of the Hub; ``NAME=`` sets
    what its columns are called. Neither is looked for in the path of an existing folder.

    Raises:
        InputError: a part is empty, or a folder is given a revision.
    """
    given, hash_, label = argument.partition("#")
    named = None if Path(given).expanduser().is_dir() else _CALLED.fullmatch(given)
    called, given = (named[1], named[2]) if named else (None, given)
    if not given or (hash_ and not label.removeprefix("!")):
        raise InputError(f"scorers: `classifier:{argument}` is incomplete; write `classifier:MODEL@REVISION#LABEL`.")
    model, revision = split_revision(given, f"scorers: `classifier:{argument}`")
    called = called or model.rstrip("/").split("/")[-1]
    return ClassifierName(model, label.removeprefix("!") or None, label.startswith("!"), revision, called)


def load_classifier_template(path: Path) -> ClassifierTemplate:
    """Read and try out a Jinja template.

    Raises:
        InputError: it cannot be read, has an error or an unknown variable, or does not show the answer.
    """
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
    try:
        source = path.read_text(encoding="utf-8")
        unknown = meta.find_undeclared_variables(environment.parse(source)) - set(VARIABLES) - set(environment.globals)
        template = environment.from_string(source)
        tried = template.render(prompt="(a prompt)", response="(an answer)")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise InputError(f"{path}:{getattr(error, 'lineno', 1)}: template error: {error}.") from error
    if unknown:
        names = ", ".join(VARIABLES)
        raise InputError(f"{path}: unknown variable `{min(unknown)}`; this template knows {names}.")
    if "(an answer)" not in tried:
        raise InputError(
            f"{path}: does not show the classifier the answer; write {{{{ response }}}} where it belongs."
        )
    return ClassifierTemplate(hashlib.sha256(source.encode()).hexdigest(), template)
