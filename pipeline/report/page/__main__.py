"""Write the page of a run again, or of checkpoints of several runs.

python -m pipeline.report.page runs/NAME
python -m pipeline.report.page runs/ONE:2 runs/OTHER:2 --to both.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.report.checkpoints import find_checkpoints
from pipeline.report.page import write_page
from pipeline.runs.rundir import RunDir


def main() -> None:
    """Write the page, and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.report.page", description="Write the page of a run, or of several."
    )
    parser.add_argument("checkpoints", nargs="+", metavar="RUN[:ROUND]", help="a run directory, or a round of one")
    parser.add_argument("--to", type=Path, help="where to write it; for a single RUN by default its report.html")
    given = parser.parse_args()
    if given.to is None and (len(given.checkpoints) > 1 or not Path(given.checkpoints[0]).is_dir()):
        parser.error("several runs, or a round of one, have no default place for the page: name one with --to")
    output = given.to or RunDir(Path(given.checkpoints[0])).report
    try:
        write_page(find_checkpoints(given.checkpoints), output)
    except PipelineError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{output}\n")


if __name__ == "__main__":
    main()
