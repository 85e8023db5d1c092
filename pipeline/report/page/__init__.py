"""The page of a run, or of several: ``report.html``, one file that opens anywhere.

Data come only from the files of the run directories (``reading.py``). ``*_rows.py`` compute numbers from them with
``pipeline.tails``, ``*_charts.py`` draw those, ``figures.py`` adds captions, ``document.py`` puts the page together.
Charts are Vega-Lite specifications, written with Altair: they are data, so only Vega's own code runs in the page.
Vega's expressions are interpreted, so the content security policy does not have to allow the evaluation of strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.report.checkpoints import Checkpoint
from pipeline.runs.files import write_text

__all__ = ["write_page"]


def write_page(checkpoints: Sequence[Checkpoint], output: Path) -> None:
    """Write the page of one run's checkpoints, or of several runs', and the numbers of its figures as CSV beside it.

    Args:
        checkpoints: at least one; each is shown against round 0 of its run.
        output: path of the page; the CSV files go to the folder of the same name without suffix.

    Raises:
        RunError: a file of a run is missing or damaged.
    """
    from pipeline.report.page.document import render
    from pipeline.report.page.figure import to_csv
    from pipeline.report.page.figures import figures
    from pipeline.report.page.palette import palette
    from pipeline.report.page.reading import Page
    from pipeline.report.page.records import cost_rows
    from pipeline.report.page.samples import paired_samples, sample_rows

    page = Page(checkpoints)
    colors = palette(page)
    samples = paired_samples(page)
    drawn = figures(page, samples, colors)
    folder = output.with_suffix("")
    tables = {figure.key: figure.rows for figure in drawn}
    tables |= {"samples": sample_rows(samples), "cost": cost_rows(page)}
    for key, rows in tables.items():
        write_text(folder / f"{key}.csv", to_csv(rows))
    write_text(output, render(page, drawn, samples, colors, folder.name))
