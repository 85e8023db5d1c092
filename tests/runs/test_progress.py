"""The bar of a stage: on a terminal, on rank 0, with tokens a second and the time left."""

from __future__ import annotations

import io
import sys
import time

import pytest

from pipeline.runs.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, terminal: io.StringIO, done: int = 0) -> str:
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(100, done, "round 1 refine") as progress:
        for _ in range(4):
            time.sleep(0.11)  # tqdm draws ten times a second
            progress.sampled(50)
            progress.advance(10)
    return terminal.getvalue()


def test_rows_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    last = drawn(monkeypatch, Terminal()).split("\r")[-3]
    assert "round 1 refine  40%" in last and "40 of 100 rows" in last and "left" in last
    speed = float(last.split(" tokens/s")[0].split()[-1].replace(",", ""))
    assert 200 < speed < 500, "fifty tokens in 0.11 seconds and a little"


def test_what_an_earlier_launch_did_counts_as_done_and_not_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    lines = drawn(monkeypatch, Terminal(), done=60).split("\r")
    assert any("60 of 100 rows" in line for line in lines)
    assert any("90 of 100 rows" in line and "00:00 left" in line for line in lines)


def test_nothing_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert drawn(monkeypatch, io.StringIO()) == ""
    monkeypatch.setenv("RANK", "1")
    assert drawn(monkeypatch, Terminal()) == ""
