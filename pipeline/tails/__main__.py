"""Did the tail get worse? For people who have scores but do not use the pipeline.

    python -m pipeline.tails BASELINE CURRENT [--calibration FILE] [--json]

Each file is Parquet, CSV or JSONL with the columns prompt_id, sample and score, and optionally slice and scorer: one
row per sample, higher scores are worse.
"""

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import InputError
from pipeline.tails import Comparison, Estimate, compare, comparison_record
from pipeline.tails.records import slice_name_of

# This is the only module of the package that reads files.
NEEDED = ("prompt_id", "sample", "score")


class ScoreFile(NamedTuple):
    """The scores of one file, by prompt and sample."""

    path: Path
    scores: dict[str, dict[str, float]]  # prompt -> sample -> score
    slices: dict[str, str]
    scorer: str | None


def read_scores(path: Path) -> ScoreFile:
    """Read one file of scores; an empty or null score is a missing sample, and an empty slice or scorer is none.

    Raises:
        InputError: the file does not exist or is not UTF-8, a column or field is missing, a score is not a finite
            number, a sample appears twice, a prompt is in two slices, or the file holds more than one scorer; the
            message names file and row.
    """
    scores: dict[str, dict[str, float]] = {}
    slices: dict[str, str] = {}
    scorer: str | None = None
    for where, row in _rows(path):
        missing = [name for name in NEEDED if name not in row]
        if missing:
            raise InputError(f"{where}: no {', '.join(missing)}; each row needs {', '.join(NEEDED)}")
        prompt, sample = str(row["prompt_id"]), str(row["sample"])
        if sample in scores.setdefault(prompt, {}):
            raise InputError(f"{where}: sample {sample} of prompt {prompt} appears twice")
        scores[prompt][sample] = _number(row["score"], where)
        if (named := _name(row, "slice")) and slices.setdefault(prompt, named) != named:
            raise InputError(f"{where}: prompt {prompt} is in slices {slices[prompt]} and {named}")
        if named := _name(row, "scorer"):
            scorer = scorer or named
            if scorer != named:
                raise InputError(f"{where}: scorer {named} after {scorer}; put each scorer in its own file")
    if not scores:
        raise InputError(f"{path}: no rows")
    return ScoreFile(path, scores, slices, scorer)


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row with the place it came from."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kind = path.suffix.lower()
    if kind == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            columns = pq.read_table(path).to_pydict()
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a Parquet file ({error})") from error
        for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
            yield f"{path}: row {number}", dict(zip(columns, values, strict=True))
    elif kind == ".csv":
        reader = csv.DictReader(_text(path))
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():  # more or fewer fields than the header has
                raise InputError(f"{where}: not as many fields as the header has; leave missing scores empty")
            yield where, row
    elif kind in (".jsonl", ".json"):
        for number, line in enumerate(_text(path), start=1):
            if line.strip():
                yield f"{path}:{number}", _json_row(line, f"{path}:{number}")
    else:
        raise InputError(f"{path}: expected .parquet, .csv or .jsonl")


def _text(path: Path) -> io.StringIO:
    raw = path.read_bytes()
    try:
        return io.StringIO(raw.decode("utf-8-sig"), newline="")  # spreadsheets begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise InputError(f"{path}:{line}: not UTF-8 (byte {byte}); save the file as UTF-8") from error


def _name(row: Mapping[str, Any], column: str) -> str:
    """The slice or scorer of a row; empty if it has none."""
    value = row.get(column)
    return "" if value is None else str(value)


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg}, column {error.colno})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with {', '.join(NEEDED)}")
    return row


def _number(value: Any, where: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        number = float(value) if not isinstance(value, bool) else float(int(value))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: score {value!r} is not a number; leave missing scores empty") from error
    if math.isinf(number):
        raise InputError(f"{where}: score {value!r} is infinite; give a finite bound")
    return number


def _array(file: ScoreFile, prompts: Sequence[str]) -> np.ndarray:
    """Return the scores of these prompts, [n_prompts, k], NaN where there are fewer samples."""
    scores = np.full((len(prompts), max(len(file.scores[prompt]) for prompt in prompts)), np.nan)
    for row, prompt in zip(scores, prompts, strict=True):
        values = list(file.scores[prompt].values())
        row[: len(values)] = values
    return scores


def compare_files(
    baseline: ScoreFile, current: ScoreFile, calibration: ScoreFile | None, arguments: argparse.Namespace
) -> tuple[Comparison, list[str]]:
    """Pair the files by prompt and compare them; also return the names of the slices.

    Raises:
        InputError: files of different scorers, prompts that are in only one file or in another slice in each, no
            prompt in common, or calibration prompts that are also in the panel.
    """
    files = [file for file in (baseline, current, calibration) if file is not None]
    scorers = {file.scorer for file in files if file.scorer is not None}
    if len(scorers) > 1:
        raise InputError(f"files of different scorers ({', '.join(sorted(scorers))}): scores cannot be compared")
    lost, new = len(baseline.scores.keys() - current.scores), len(current.scores.keys() - baseline.scores)
    prompts = sorted(baseline.scores.keys() & current.scores)
    if (lost or new) and not arguments.drop_unpaired:
        raise InputError(
            f"unpaired prompts: {lost} only in {baseline.path}, {new} only in {current.path}, {len(prompts)} in both; "
            "use --drop_unpaired to leave them out, but only if being missing is unrelated to the score"
        )
    if not prompts:
        raise InputError(f"{baseline.path} and {current.path} have no prompt in common")
    for prompt in prompts:
        before, now = (file.slices.get(prompt) for file in (baseline, current))
        if before and now and before != now:
            raise InputError(
                f"prompt {prompt} is in slice {before} in {baseline.path} and in {now} in {current.path}; give it the "
                "same slice in both"
            )
    slices = baseline.slices | current.slices
    names = sorted({slices[prompt] for prompt in prompts if prompt in slices})
    labels = [names.index(slices[prompt]) if prompt in slices else -1 for prompt in prompts]
    overlap = len(calibration.scores.keys() & set(prompts)) if calibration else 0
    if overlap:
        raise InputError(f"{overlap} calibration prompts are also in the panel; thresholds need different prompts")
    comparison = compare(
        _array(baseline, prompts),
        _array(current, prompts),
        calibration=None if calibration is None else _array(calibration, list(calibration.scores)),
        slices=np.array(labels) if names else None,
        level=arguments.level,
        seed=arguments.seed,
        tail=arguments.tail,
    )
    return comparison, names


def as_text(comparison: Comparison, slices: Sequence[str]) -> str:
    """Return the verdict, the tests and the table in plain text."""
    lines = [comparison.summary(), "", f"thresholds from {comparison.thresholds_from}"]
    if comparison.n_dropped:
        lines.append(f"{comparison.n_dropped} prompts without samples on both sides were left out")
    for name, test in comparison.tests.items():
        slice_name = slice_name_of(test, slices)
        where = f" in slice {slice_name}" if slice_name is not None else ""
        lines.append(f"{name:12} {f'p = {test.p_value:.4g}, {test.column}{where}' if test.identified else test.why}")
    lines += ["", f"{'quantity':28} {'baseline':>28} {'current':>28} {'change':>28}  prompts, samples beyond"]
    for row in comparison.estimates:
        name = row.quantity if row.threshold is None else f"{row.quantity} > {row.threshold:.4g}"
        beyond = row.current.prompts_beyond, row.current.samples_beyond
        counted = "" if beyond[0] is None else f"{beyond[0]}, {beyond[1]}"
        cells = " ".join(f"{_shown(one):>28}" for one in (row.baseline, row.current, row.change))
        lines.append(f"{name:28} {cells}  {counted}")
    lines += ["", "Intervals are 95%, with prompts as the unit. One panel can only be amber: red needs fresh prompts."]
    return "\n".join(lines)


def _shown(estimate: Estimate) -> str:
    if not estimate.identified:
        return "not identified"
    return f"{estimate.value:.4g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two files of scores; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tails", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("baseline", type=Path, help="scores at round 0")
    parser.add_argument("current", type=Path, help="scores of the same prompts now")
    parser.add_argument("--calibration", type=Path, help="round-0 scores of other prompts, for frozen thresholds")
    parser.add_argument("--tail", choices=("upper", "lower"), default="upper", help="which end of the scores is bad")
    parser.add_argument("--level", type=float, default=0.05, help="amber at this p-value or below")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the exchanges and the bootstrap")
    parser.add_argument("--drop_unpaired", action="store_true", help="leave out prompts that are in only one file")
    parser.add_argument("--fail_on_alarm", action="store_true", help="exit status 1 when the verdict is not green")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    try:
        baseline, current = read_scores(arguments.baseline), read_scores(arguments.current)
        calibration = None if arguments.calibration is None else read_scores(arguments.calibration)
        comparison, slices = compare_files(baseline, current, calibration, arguments)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    shown = (
        json.dumps(comparison_record(comparison, slices), indent=2) if arguments.json else as_text(comparison, slices)
    )
    sys.stdout.write(shown + "\n")
    return int(arguments.fail_on_alarm and comparison.verdict != "green")


if __name__ == "__main__":
    sys.exit(main())
