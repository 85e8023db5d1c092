"""The questions put to critic and reviser: Jinja templates that render the text of one user turn each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from pipeline.errors import InputError
from pipeline.inputs.constitution import Principle

_ALWAYS = ("principle", "prompt", "response")
VARIABLES = MappingProxyType(
    {"critique": _ALWAYS, "rewrite": (*_ALWAYS, "critique"), "rewrite_without_critique": _ALWAYS}
)
"""The templates of a folder (``NAME.jinja``), and the variables that each of them knows."""

SAMPLE_PRINCIPLES = (
    Principle("sentence", "The answer should be kind.", None, None, 1.0, (), 1),
    Principle("pair", None, "Point out what is unkind.", "Write it again, kindly.", 1.0, (), 1),
)


@dataclass(frozen=True)
class Templates:
    """The three templates of a folder; ``sha256`` is of their sources.

    Texts of models and people go in as values. They are never read as templates, whatever they hold.
    """

    folder: str
    sha256: str
    _templates: dict[str, Template]

    def critique(self, principle: Principle, *, prompt: str, response: str) -> str:
        """What the critic is asked about a response.

        Args:
            principle: templates see its ``text``, ``critique`` and ``revise``.
            prompt: the dialogue up to the response, as text.
            response: what is to be criticised.

        Raises:
            InputError: the template does not work for this principle, or renders nothing.
        """
        return self._render("critique", principle, prompt=prompt, response=response)

    def rewrite(self, principle: Principle, *, prompt: str, response: str, critique: str) -> str:
        """What the reviser is asked, given a critique; arguments and errors as for `critique`."""
        return self._render("rewrite", principle, prompt=prompt, response=response, critique=critique)

    def rewrite_without_critique(self, principle: Principle, *, prompt: str, response: str) -> str:
        """What the reviser is asked where no critique is made; arguments and errors as for `critique`."""
        return self._render("rewrite_without_critique", principle, prompt=prompt, response=response)

    def _render(self, name: str, principle: Principle, **values: str) -> str:
        file = f"{self.folder}/{name}.jinja"
        # Operations inside a template raise what Python raises.
        try:
            text = self._templates[name].render(principle=principle, **values).strip()
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise InputError(
                f"{file}:{_line_of(error, file)}: fails for the principle `{principle.id}`: {error}"
            ) from error
        if not text:
            raise InputError(f"{file}: renders nothing for the principle `{principle.id}`.")
        return text


def load_templates(folder: Path | str) -> Templates:
    """Read and check ``critique.jinja``, ``rewrite.jinja`` and ``rewrite_without_critique.jinja``.

    Each template must render for principles of at least one kind (plain text, or a critique/revise pair). One
    that was made for a single kind fails when it meets the other, not here.

    Raises:
        InputError: a file is missing, has a syntax error, uses an unknown variable, or renders nothing; the
            message names file and line.
    """
    folder = Path(folder)
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_refuse_none)
    digest = hashlib.sha256()
    compiled: dict[str, Template] = {}
    for name, variables in VARIABLES.items():
        path = folder / f"{name}.jinja"
        try:
            source = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            wanted = ", ".join(f"{wanted}.jinja" for wanted in VARIABLES)
            raise InputError(f"{path}: no such template; a template folder holds {wanted}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
        compiled[name] = _compile(environment, path, source, variables)
        digest.update(f"{name}\0{source}\0".encode())
    templates = Templates(str(folder), digest.hexdigest(), compiled)
    _try_out(templates)
    return templates


def dialogue_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A dialogue as text, for templates that quote it: a single user turn as it is, several with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def _compile(environment: SandboxedEnvironment, path: Path, source: str, variables: tuple[str, ...]) -> Template:
    try:
        tree = environment.parse(source, filename=str(path))
        unknown = meta.find_undeclared_variables(tree) - set(variables) - set(environment.globals)
        for node in tree.find_all(nodes.Name):
            if node.name in unknown:
                raise InputError(
                    f"{path}:{node.lineno}: unknown variable `{node.name}`; "
                    f"this template knows {', '.join(variables)}."
                )
        code = environment.compile(source, filename=str(path))
    except TemplateError as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{path}:{line}: template error: {error.message}.") from error
    return Template.from_code(environment, code, dict(environment.globals))


def _try_out(templates: Templates) -> None:
    sample = {"prompt": "What is the tallest tree?", "response": "Find out yourself."}
    for name, variables in VARIABLES.items():
        values = sample | ({"critique": "It refuses to answer."} if "critique" in variables else {})
        errors: list[InputError] = []
        for principle in SAMPLE_PRINCIPLES:
            try:
                templates._render(name, principle, **values)
            except InputError as error:
                errors.append(error)
        if len(errors) == len(SAMPLE_PRINCIPLES):
            raise errors[0]


def _refuse_none(value: Any) -> Any:
    """Keep the word "None" out of what a model is asked."""
    if value is None:
        raise UndefinedError(
            "a value that this principle does not have (a plain one has only `text`, a pair only `critique` "
            "and `revise`); test it with {% if %}"
        )
    return value


def _line_of(error: BaseException, file: str) -> int:
    """The line of the template that an error came from: Jinja gives its frames the template's file name."""
    line, frame = 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == file:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
