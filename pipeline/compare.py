"""Checkpoints side by side: rounds of one run or of several, in the bulk and at the tails.

    python pipeline/compare.py runs/NAME                                 # all rounds of a run against its round 0
    python pipeline/compare.py runs/ONE:3 runs/OTHER:3 --pairs worst 5   # two constitutions, and their worst answers
    python pipeline/compare.py runs/NAME --watch                         # a run in progress

Runs are only read: no lock is taken and nothing is written into them, so they may still be in progress.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline import command
from pipeline.comparing.comparable import KINDS
from pipeline.comparing.watching import standing, watch
from pipeline.report.checkpoints import Checkpoint, find_checkpoints
from pipeline.report.terminal import colors_wanted

log = logging.getLogger("pipeline")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="RUN[:ROUND]",
        help="run directories, each with all its measured rounds or just one; the first checkpoint is the baseline, "
        "and a single RUN:ROUND is compared with round 0",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print one JSON object with every number and interval")
    shown.add_argument("--csv", action="store_true", help="print one CSV row per number: interval, change, verdict")
    shown.add_argument("--html", metavar="OUT", type=Path, help="write one self-contained page")
    shown.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=_seconds,
        const=10.0,
        help="refresh the table until the runs are finished, every SECONDS (10 by default)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="show every score on every probe set and slice, changed or not; by default the headline score is shown "
        "on all of them, and the others on the first probe set that they have a score on",
    )
    parser.add_argument(
        "--pairs",
        nargs=2,
        metavar=("worst|changed|random", "N"),
        help="show N answers of the baseline and of the last checkpoint side by side, for the same prompt and sample "
        "number, with the changed words marked; harmful text is shown",
    )
    parser.add_argument("--scorer", metavar="SCORE", help="score that chooses --pairs; the headline score when unset")
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="AMOUNT/h|AMOUNT/Mtok",
        help="price of a device-hour, or of a million tokens read and sampled; may be given for both",
    )
    parser.add_argument(
        "--despite",
        action="append",
        default=[],
        choices=KINDS,
        help="compare even though this differs, on the prompts in common; may be repeated",
    )
    arguments = parser.parse_args(argv)
    if arguments.pairs and (arguments.csv or arguments.html):
        parser.error("argument --pairs: works only with the table, --watch or --json")
    return arguments


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise argparse.ArgumentTypeError(
            f"--watch takes seconds (0 to 86,400), found `{text}`; put the runs before --watch"
        )
    return seconds


def _resolve(given: Sequence[str]) -> list[Checkpoint]:
    found = find_checkpoints(given)
    alone = len(found) == 1 and found[0].round > 0
    return find_checkpoints([f"{found[0].run.path}:0", *given]) if alone else found


def _compare(arguments: argparse.Namespace, checkpoints: Sequence[Checkpoint]) -> str:
    """The comparison in the requested form."""
    from pipeline.comparing.comparison import compare_checkpoints
    from pipeline.comparing.context import context_report
    from pipeline.comparing.pairs import choose_pairs, pairs_report, read_choice
    from pipeline.comparing.records import as_csv, as_json
    from pipeline.comparing.table import checkpoints_report, comparison_report
    from pipeline.report.costs import read_price

    price = read_price(arguments.price)
    choice = read_choice(arguments.pairs) if arguments.pairs else None
    found = compare_checkpoints(checkpoints, despite=arguments.despite, everything=arguments.all)
    pairs = choose_pairs(found, *choice, arguments.scorer) if choice else []
    if arguments.json:
        return as_json(found, price, pairs)
    if arguments.csv:
        return as_csv(found)
    color = colors_wanted()
    parts = [
        checkpoints_report(found, color=color),
        comparison_report(found, everything=arguments.all, color=color),
        context_report(checkpoints, price, color=color),
    ]
    if choice:
        cells = shutil.get_terminal_size((120, 0)).columns
        parts.append(pairs_report(pairs, checkpoints, choice[0], cells=cells, color=color))
    return "\n\n".join(parts)


def main(argv: Sequence[str]) -> None:
    """Compare checkpoints, as a command."""
    arguments = _parse(argv)
    given = arguments.checkpoints
    if arguments.watch is not None:
        with contextlib.suppress(KeyboardInterrupt):
            for text in watch(given, lambda: _resolve(given), lambda one: _compare(arguments, one), arguments.watch):
                log.info("%s", text)
        return
    checkpoints = _resolve(given)
    if arguments.html:
        from pipeline.comparing.comparable import require_comparable
        from pipeline.report.page import write_page

        require_comparable(checkpoints, arguments.despite)
        write_page(checkpoints, arguments.html)
        log.info("Wrote %s.", arguments.html)
        return
    log.info("%s", _compare(arguments, checkpoints))
    where = "" if arguments.json or arguments.csv else standing(given)
    if where:
        log.info("\n%s", where)


if __name__ == "__main__":
    command.main(main)
