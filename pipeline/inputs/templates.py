"""The questions put to critic, reviser and judge: Jinja templates that render the text of one user turn each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from pipeline.errors import InputError
from pipeline.inputs.constitution import Principle
from pipeline.inputs.rubric import Rating, Rubric
from pipeline.inputs.text_files import read_text

_ALWAYS = ("principle", "prompt", "response")
VARIABLES = MappingProxyType(
    {"critique": _ALWAYS, "rewrite": (*_ALWAYS, "critique"), "rewrite_without_critique": _ALWAYS}
)
"""The templates of a folder (``NAME.jinja``), and the variables that each of them may use."""

SAMPLE_PRINCIPLES = (
    Principle("sentence", "The answer should be kind.", None, None, 1.0, (), 1),
    Principle("pair", None, "Point out what is unkind.", "Write it again, kindly.", 1.0, (), 1),
)


@dataclass(frozen=True)
class Templates:
    """The three templates of a folder; ``sha256`` is of their sources.

    Texts by models and people are passed as values. They are never read as templates, whatever they contain.
    """

    folder: str
    sha256: str
    _templates: dict[str, Template]
    _used: dict[str, set[str]]
    _rendered: dict[tuple[str, Principle], str] = field(default_factory=dict)

    def critique(self, principle: Principle, *, prompt: str, response: str) -> str:
        """What the critic is asked about a response.

        Args:
            principle: templates see its ``text``, ``critique`` and ``revise``.
            prompt: the dialogue up to the response, as text.
            response: the response to be criticised.

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
        if not self._used[name] <= {"principle"}:
            return self._render_anew(name, principle, values)
        # The template quotes nothing, so the text is the same for all answers.
        text = self._rendered.get((name, principle))
        if text is None:
            text = self._rendered[name, principle] = self._render_anew(name, principle, values)
        return text

    def _render_anew(self, name: str, principle: Principle, values: Mapping[str, str]) -> str:
        file, what = f"{self.folder}/{name}.jinja", f"the principle `{principle.id}`"
        return render(self._templates[name], file, what, principle=principle, **values)


@dataclass(frozen=True)
class JudgeTemplate:
    """What a judge is asked about one answer; ``sha256`` is of the template's source.

    Attributes:
        path: path of the template.
        sha256: SHA-256 of its source.
        quotes: whether it quotes the answer. If it does not, the exchange precedes it as chat turns.
    """

    path: str
    sha256: str
    quotes: bool
    _template: Template

    def ask(self, rubric: Rubric, *, prompt: str, response: str, reworded: bool, reverse: bool) -> str:
        """The question about one answer.

        Args:
            rubric: templates see its ``question`` and ``ratings`` (with ``label``, ``value``, ``meaning``, ``says``).
            prompt: the dialogue up to the answer, as text.
            response: the answer. A template also sees ``mark``, a word that occurs in neither of the two.
            reworded: whether to ask the question in the rubric's other words.
            reverse: whether to list the ratings from the highest down.

        Raises:
            InputError: the template does not work for this rubric, or renders nothing.
        """
        ratings: Sequence[Rating] = rubric.ratings[::-1] if reverse else rubric.ratings
        values = {"question": rubric.reworded if reworded else rubric.question, "ratings": ratings}
        mark = hashlib.sha256(f"{prompt}\0{response}".encode()).hexdigest()[:12]
        what = f"the rubric `{rubric.name}`"
        return render(self._template, self.path, what, prompt=prompt, response=response, mark=mark, **values)


_JUDGE_VARIABLES = ("prompt", "response", "question", "ratings", "mark")


def load_judge_template(path: Path | str) -> JudgeTemplate:
    """Read and check the template of a judge.

    Raises:
        InputError: it cannot be read, has a syntax error, uses an unknown variable, or never asks the question.
    """
    path = Path(path)
    source = read_text(path, "judge template")
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_refuse_none)
    template, used = _compile(environment, path, source, _JUDGE_VARIABLES)
    if "question" not in used:
        raise InputError(f"{path}: never uses `question`, so a judge would never be asked the rubric's question.")
    if ("response" in used) != ("prompt" in used):
        raise InputError(
            f"{path}: quotes only one of `prompt` and `response`; quote both, or neither to show them as chat turns."
        )
    return JudgeTemplate(str(path), hashlib.sha256(source.encode()).hexdigest(), "response" in used, template)


def load_plain_question(path: Path) -> str:
    """The text of a template that takes no variables.

    Raises:
        InputError: it cannot be read, has a syntax error, uses a variable, or renders nothing.
    """
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_refuse_none)
    template, _ = _compile(environment, path, read_text(path, "template"), ())
    return render(template, str(path), "the one question that it holds")


def load_templates(folder: Path | str) -> Templates:
    """Read and check ``critique.jinja``, ``rewrite.jinja`` and ``rewrite_without_critique.jinja``.

    Each template must render for principles of at least one kind (plain text, or a critique/revise pair). One made
    for a single kind fails when it meets the other, not here.

    Raises:
        InputError: a file is missing, has a syntax error, uses an unknown variable, or renders nothing; the
            message names file and line.
    """
    folder = Path(folder)
    read = read_folder(folder, VARIABLES)
    templates = Templates(str(folder), read.sha256, read.templates, read.used)
    _try_out(templates)
    return templates


class Folder(NamedTuple):
    """Templates by name, compiled in a sandbox; the variables that each uses; and the SHA-256 of their sources."""

    templates: dict[str, Template]
    used: dict[str, set[str]]
    sha256: str


def read_folder(folder: Path, variables: Mapping[str, tuple[str, ...]]) -> Folder:
    """Read the templates of a folder.

    Args:
        folder: folder with a file ``NAME.jinja`` for each.
        variables: variables that each template may use, by its name.

    Raises:
        InputError: a file is missing, has a syntax error or uses an unknown variable; names file and line.
    """
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_refuse_none)
    digest = hashlib.sha256()
    compiled: dict[str, Template] = {}
    used: dict[str, set[str]] = {}
    for name, known in variables.items():
        path = folder / f"{name}.jinja"
        try:
            source = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            wanted = ", ".join(f"{wanted}.jinja" for wanted in variables)
            raise InputError(f"{path}: no such template; a template folder holds {wanted}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
        compiled[name], used[name] = _compile(environment, path, source, known)
        digest.update(f"{name}\0{source}\0".encode())
    return Folder(compiled, used, digest.hexdigest())


def render(template: Template, file: str, what: str, **values: Any) -> str:
    """The text that a template renders, without surrounding white space.

    Args:
        template: compiled template.
        file: its path, for error messages.
        what: what it is rendered for, for error messages.
        values: its variables.

    Raises:
        InputError: it fails, or renders nothing; names file and line.
    """
    # Operations inside a template raise Python's own errors.
    try:
        text = template.render(**values).strip()
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise InputError(f"{file}:{_line_of(error, file)}: fails for {what}: {error}") from error
    if not text:
        raise InputError(f"{file}: renders nothing for {what}.")
    return text


def dialogue_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A dialogue as text, for templates that quote it: a single user turn as it is, several with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def _compile(
    environment: SandboxedEnvironment, path: Path, source: str, variables: tuple[str, ...]
) -> tuple[Template, set[str]]:
    """The template, and the names of the variables that it uses."""
    try:
        tree = environment.parse(source, filename=str(path))
        used = meta.find_undeclared_variables(tree) - set(environment.globals)
        unknown = used - set(variables)
        for node in tree.find_all(nodes.Name):
            if node.name in unknown:
                raise InputError(
                    f"{path}:{node.lineno}: unknown variable `{node.name}`; "
                    f"this template knows {', '.join(variables) or 'none'}."
                )
        code = environment.compile(source, filename=str(path))
    except TemplateError as error:
        line = getattr(error, "lineno", 1)
        raise InputError(f"{path}:{line}: template error: {error.message}.") from error
    return Template.from_code(environment, code, dict(environment.globals)), used


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
