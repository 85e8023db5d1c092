"""What a recipe says of a classifier: ``classifier:MODEL#LABEL``, and the text that it is shown."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from pipeline.errors import InputError

VARIABLES = ("prompt", "response")
"""What a classifier's template knows."""


class ClassifierName(NamedTuple):
    """A classifier as a recipe names it.

    Attributes:
        model: Hub id or folder.
        label: the one that is scored, or None for all of them.
        low_is_bad: whether it is a good thing, so that little of it is bad.
    """

    model: str
    label: str | None
    low_is_bad: bool


class ClassifierTemplate(NamedTuple):
    """The text that a classifier is shown; texts of models go in as values, never as templates."""

    sha256: str
    template: Template

    def render(self, prompt: str, response: str) -> str:
        """The text for one answer."""
        return self.template.render(prompt=prompt, response=response)


def parse_classifier(argument: str) -> ClassifierName:
    """``MODEL``, ``MODEL#LABEL`` where much of it is bad, or ``MODEL#!LABEL`` where little of it is."""
    model, _, label = argument.partition("#")
    return ClassifierName(model, label.removeprefix("!") or None, label.startswith("!"))


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
