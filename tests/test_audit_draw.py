"""Which of a round's answers the judge rates before and after their rewrites."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.audit import _drawn
from pipeline.report.audit import FINAL, FIRST


@pytest.mark.parametrize("critique", ["It is rude.", None])
def test_rewrites_without_critiques_are_rated_too(critique: str | None) -> None:
    session: Any = SimpleNamespace(seed=0, recipe=SimpleNamespace(audit_answers=10))
    row: dict[str, Any] = {"sample": 0, "response": "No.", "critique": critique, "principle_id": "kind"}
    rows = [
        row | {"prompt_id": "mended", "final": "No, sorry."},
        row | {"prompt_id": "as it was", "final": None},
        row | {"prompt_id": "failed", "final": None, "critique": None, "principle_id": None},
    ]
    found = {(item["prompt_id"], item["probe_set"], item["response"]) for item in _drawn(session, rows)}
    assert found == {("mended", FIRST, "No."), ("mended", FINAL, "No, sorry."), ("as it was", FIRST, "No.")}
