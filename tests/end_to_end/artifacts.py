"""What a run left on the disk, without what the clock, the launch or the machine wrote into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_OF_THE_LAUNCH = {"provenance.json", ".lock", ".lock.holder", "report.html", "report/cost.csv"}


def artifacts(run_dir: Path) -> dict[str, bytes]:
    """Every file of a run by its path; of manifests everything but ``timing``."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        if path.is_dir() or name in _OF_THE_LAUNCH or name.startswith("logs/"):
            continue
        found[name] = _without_clock(path) if name.endswith("manifest.json") else path.read_bytes()
    return found


def _without_clock(path: Path) -> bytes:
    manifest: dict[str, Any] = json.loads(path.read_text())
    assert set(manifest.pop("timing")) == {"wall_seconds", "work_seconds", "model_seconds", "processes"}
    return json.dumps(manifest).encode()


def assert_same(left: Path, right: Path) -> None:
    a, b = artifacts(left), artifacts(right)
    assert sorted(a) == sorted(b)
    assert [name for name in a if a[name] != b[name]] == []
