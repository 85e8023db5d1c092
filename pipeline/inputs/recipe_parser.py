"""Reads a recipe file and a command line into typed values by field name, and names the place of every mistake.

The file is flat YAML, read at the level of nodes: a node knows its line, and duplicate keys are still present.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import InputError
from pipeline.inputs.recipe_values import CLEARED, Spec, Unreadable, convert, describe_type

NULL = "tag:yaml.org,2002:null"
# Keys of older TRL recipes whose nearest valid key by spelling means something else.
RENAMED = {
    "torch_dtype": "dtype",
    "max_seq_length": "max_length",
    "warmup_ratio": "warmup_steps",  # a ratio when it is below 1
    "evaluation_strategy": "eval_strategy",
}


class Place(NamedTuple):
    """Where something was given: a line of a file, or the command line; line 0 means all of it."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class Problem(NamedTuple):
    """A mistake and its place."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class Entry(NamedTuple):
    """A value as it was given: `raw` is what `convert` takes, `place` and `label` are for messages."""

    name: str
    raw: Any
    place: Place
    label: str


class Reading(NamedTuple):
    """What was read: values by field name, where each was given, and every mistake."""

    values: dict[str, Any]
    places: dict[str, Place]
    problems: list[Problem]


COMMAND_LINE = Place("command line")
_OF_GPUS = ("CUDA_", "NCCL_", "TORCH_NCCL_", "PYTORCH_CUDA_")


class _Loader(yaml.SafeLoader):
    """Takes `1e-4` for a number inside mappings, as YAML 1.2 does and PyYAML does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_file(path: Path) -> tuple[list[Entry], dict[str, str], list[Problem]]:
    """The entries of a recipe file, the variables of its `env:` mapping, and what is wrong with its keys.

    Raises:
        InputError: the file is missing, or is not a flat YAML mapping.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a recipe: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if root is None or root.tag == NULL:
        return [], {}, []
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}:{root.start_mark.line + 1}: a recipe is lines of `key: value`")
    entries: list[Entry] = []
    env: dict[str, str] = {}
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for key, node in root.value:
        place = Place(str(path), key.start_mark.line + 1)
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        if name in lines:
            problems.append(Problem(place, f"`{name}` is given twice, first on line {lines[name]}; keep one"))
        lines.setdefault(name, place.line)
        try:
            raw = _read_node(node, loader)
        except Unreadable as error:
            problems.append(Problem(place, f"`{name}` {error}"))
            continue
        if name != "env":
            entries.append(Entry(name, raw, place, name))
        elif isinstance(raw, dict) and all(isinstance(value, yaml.ScalarNode) for _, value in node.value):
            env = {variable.value: value.value for variable, value in node.value}
            problems += [
                Problem(place, f"`env`: {name} comes too late, when the GPUs are set up; export it before the launch")
                for name in env
                if name.startswith(_OF_GPUS)
            ]
        else:
            problems.append(Problem(place, "`env` expects a mapping of variables to text"))
    return entries, env, problems


def _read_node(node: yaml.Node, loader: _Loader) -> Any:
    if node.tag not in loader.yaml_constructors:
        raise Unreadable(f"has the tag `{node.tag}`, which recipes do not take")
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == NULL else node.value
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [_read_node(item, loader) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
            raise Unreadable(f"has `{repeated[0]}` twice; keep one")
    try:
        return json.loads(json.dumps(loader.construct_document(node), allow_nan=False))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise Unreadable(f"holds what JSON cannot: {' '.join(str(error).split())}") from error


def read_flags(argv: Sequence[str]) -> tuple[list[Entry], list[Problem]]:
    """The `--name value ...` groups of a command line, values as lists of words, and its mistakes."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for token in argv:
        if token.startswith("--") and len(token) > 2:
            flag, equals, value = token.partition("=")
            name = flag[2:].replace("-", "_")
            if any(entry.name == name for entry in entries):
                problems.append(Problem(COMMAND_LINE, f"`{flag}` is given twice; keep one"))
            entries.append(Entry(name, [value] if equals else [], COMMAND_LINE, flag))
        elif entries:
            entries[-1].raw.append(token)
        else:
            hint = "write `--name value`, or --config FILE for a recipe"
            problems.append(Problem(COMMAND_LINE, f"unexpected `{token}`; {hint}"))
    return entries, problems


def _flag_raw(words: list[str], spec: Spec) -> Any:
    """What `convert` takes, from the words after a flag."""
    if not words and spec.takes(bool):
        return "true"
    if len(words) == 1 and (not spec.takes(list) or spec.takes(str) or words[0].lower() in CLEARED):
        return words[0]
    if words and spec.takes(list):
        return words
    raise Unreadable(f"expects {describe_type(spec)}, found {len(words) or 'no'} values")


def read_values(
    in_file: Iterable[Entry],
    in_flags: Iterable[Entry],
    specs: Mapping[str, Spec],
    cli_only: Mapping[str, Spec],
) -> Reading:
    """The values given, by field name: a flag wins over the file, and both are checked.

    Args:
        in_file: entries of the recipe file.
        in_flags: entries of the command line.
        specs: fields that may be in both.
        cli_only: fields that only the command line may give.
    """
    reading = Reading({}, {}, [])
    for entry in in_file:
        if entry.name in cli_only:
            text = f"`{entry.name}` is a flag of the command, not a key of a recipe"
            reading.problems.append(Problem(entry.place, text))
        else:
            _read_entry(entry, specs, reading)
    for entry in in_flags:
        _read_entry(entry, {**specs, **cli_only}, reading)
    return reading


def _read_entry(entry: Entry, specs: Mapping[str, Spec], reading: Reading) -> None:
    on_flag = entry.place == COMMAND_LINE
    if (spec := specs.get(entry.name)) is None:
        kind, dashes = ("flag", "--") if on_flag else ("key", "")
        text = f"unknown {kind} `{entry.label}`; {suggest(entry.name, specs, dashes)}"
        reading.problems.append(Problem(entry.place, text))
        return
    reading.places[entry.name] = entry.place
    try:
        raw = _flag_raw(entry.raw, spec) if on_flag else entry.raw
        reading.values[entry.name] = convert(raw, spec)
    except Unreadable as error:
        reading.problems.append(Problem(entry.place, f"`{entry.label}` {error}"))


def suggest(name: str, valid: Iterable[str], dashes: str = "") -> str:
    """`did you mean `x`?` for the valid name nearest to a mistaken one, or where the valid ones are listed."""
    name = name.strip("-").replace("-", "_").lower()
    near = [RENAMED[name]] if name in RENAMED else difflib.get_close_matches(name, valid, n=1)
    return f"did you mean `{dashes}{near[0]}`?" if near else "--help and --help_all list the valid ones"
