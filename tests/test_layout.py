"""The rules of the house that no type checker knows: what may import what, how large a module may be, and more."""

from __future__ import annotations

import ast
import importlib.metadata
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = {"iterate", "generate", "refine", "distill", "measure", "alarm"}
ABOVE_COMMANDS = {"iterate", "placebo", "audit"}
READERS = {"compare", "export"}
"""Commands on finished runs and on runs in progress: they take no recipe."""

ALLOWED = {
    "errors": set(),
    "tails": {"errors"},
    "runs": {"errors"},
    "sandbox": {"errors"},
    "inputs": {"errors", "runs", "sandbox"},
    "engines": {"errors", "inputs"},
    "scorers": {"errors", "engines", "inputs", "sandbox", "tails"},
    "training": {"errors", "engines", "inputs", "runs"},
    "report": {"errors", "inputs", "runs", "scorers", "tails"},
    "exporting": {"errors", "inputs", "report", "runs"},
    "comparing": {"errors", "inputs", "report", "runs", "tails"},
    "setup": {"engines", "errors", "inputs", "runs", "scorers", "tails", "training"},
    "measuring": {"engines", "errors", "inputs", "report", "runs", "scorers", "setup", "tails"},
    "command": {"errors", "inputs", "runs", "setup"},
}
"""Room -> the rooms below it that it may import. Commands stand on top: they may import all of these."""


def room(module: str) -> str:
    """``pipeline.tails.table`` -> ``tails``; a command is a room of its own."""
    return module.split(".")[1] if "." in module else ""


def name_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of this package that a module imports anywhere, for types as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "pipeline"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {child for child in children if module_file(child)}
            found |= modules | ({node.module} if children - modules else set())
    return found


def module_file(name: str) -> Path | None:
    path = PROJECT.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.exists()), None)


def test_there_are_modules() -> None:
    assert len(MODULES) > 30


def test_no_relative_imports() -> None:
    # `imports` above would not see them, and a command run as a script could not follow them.
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_no_module_at_the_top_hides_an_importable_one() -> None:
    """A launch puts pipeline/ first on sys.path: ``pipeline/datasets.py`` would be what ``import datasets`` finds."""
    ours = {p.stem if p.suffix == ".py" else p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    ours -= {"__init__", "__pycache__"}
    installed = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    installed -= {name for name in installed if name.startswith("__editable__")}
    assert "torch" in installed and "statistics" in installed
    assert not ours & installed


def test_module_sizes() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in MODULES if path.read_text().strip()}
    assert max(lines.values()) <= 500, max(lines, key=lambda name: lines[name])
    assert statistics.median(lines.values()) <= 200


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = room(name_of(path))
    if here in COMMANDS | ABOVE_COMMANDS | READERS or not here:
        allowed = set(ALLOWED) | (COMMANDS if here in ABOVE_COMMANDS else set())
        allowed |= {"placebo", "audit"} if here == "iterate" else set()
    else:
        assert here in ALLOWED, f"{here}: a new room; say in ALLOWED what it stands on"
        allowed = ALLOWED[here]
    used = {room(name) for name in imports(path)} - {here, ""}
    assert used <= allowed, f"{sorted(used - allowed)} stand beside or above {here}"


def test_the_table_has_no_circle() -> None:
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {name for name, below in ALLOWED.items() if name not in done and below <= done}
        assert ready, f"in a circle: {sorted(set(ALLOWED) - done)}"
        done |= ready


def test_no_circular_imports_between_modules() -> None:
    below = {name_of(path): imports(path) - {name_of(path)} for path in MODULES}
    done: set[str] = set()
    while len(done) < len(below):
        ready = {name for name, used in below.items() if name not in done and used <= done}
        if not ready:
            # What is left holds a circle, and what only stands above it.
            left = {name: used - done for name, used in below.items() if name not in done}
            while top := {name for name in left if not any(name in used for used in left.values())}:
                left = {name: used for name, used in left.items() if name not in top}
            raise AssertionError({name: sorted(used) for name, used in left.items()})
        done |= ready


@pytest.mark.parametrize(
    ("folder", "libraries"),
    [
        ("tails", {"numpy", "scipy"}),
        ("runs", {"pyarrow", "filelock", "tqdm", "accelerate", "numpy", "torch", "deepspeed"}),
    ],
)
def test_low_rooms_know_few_libraries(folder: str, libraries: set[str]) -> None:
    modules = set((PACKAGE / folder).glob("*.py")) - {PACKAGE / "tails" / "__main__.py"}  # a command reads files
    for path in sorted(modules):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"pipeline"}
            assert outside <= libraries, f"{path.name}: {sorted(outside - libraries)}"


HELP = """
import resource, runpy, sys
script = sys.argv[1]
sys.argv = [script, "--help"]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = {"torch", "transformers", "trl", "peft", "accelerate", "datasets"} & set(sys.modules)
print(used.ru_utime + used.ru_stime, *sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("name", sorted(COMMANDS | READERS))
def test_help_comes_at_once_and_without_torch(name: str) -> None:
    script = PACKAGE / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-c", HELP, str(script)], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert ("--config" in done.stdout and "--num_rounds" in done.stdout) == (name in COMMANDS)
    seconds, *heavy = done.stderr.splitlines()[-1].split()
    assert not heavy
    assert float(seconds) < 1.0


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


SOURCES = [*MODULES, *sorted((PROJECT / "benchmarks").rglob("*.py")), *sorted((PROJECT / "tests").rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nobody_elses_code_is_run(path: Path) -> None:
    for call in calls(path):
        function = ast.unparse(call.func)
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}
        assert keywords.get("trust_remote_code", "False") == "False", f"line {call.lineno}"
        if function.endswith("yaml.load") or function.endswith("yaml.load_all"):
            loader = keywords.get("Loader") or (ast.unparse(call.args[1]) if len(call.args) > 1 else "")
            assert is_safe_loader(loader, path), f"line {call.lineno}: {function} with {loader or 'no'} loader"
        assert function not in {"yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads", "eval", "exec"}, (
            f"line {call.lineno}: {function}"
        )
        if function == "torch.load":
            assert keywords.get("weights_only") == "True", f"line {call.lineno}"


def is_safe_loader(loader: str, path: Path) -> bool:
    """SafeLoader by name, or a class of the same module that extends it."""
    if loader.split(".")[-1] in {"SafeLoader", "CSafeLoader"}:
        return True
    classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base).split(".")[-1] for base in node.bases] for node in classes}
    return bool({"SafeLoader", "CSafeLoader"} & set(bases.get(loader, [])))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_bare_except(path: Path) -> None:
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    assert all(handler.type is not None for handler in handlers)


def test_every_error_of_ours_has_the_one_base() -> None:
    from pipeline import errors

    ours = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(ours) > 1
    assert all(issubclass(one, errors.PipelineError) for one in ours)
