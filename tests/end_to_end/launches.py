"""Launches of several processes, watched, killed and read."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from commands import PROJECT, environment
from safetensors.torch import load_file

KILLED_IN = "round-01/distill/trainer/checkpoint-2/COMPLETE"
HALVED = ("--per_device_train_batch_size", "4")
"""The same global batch: two processes with half of it each."""


def manifest(run_dir: Path, round_: int) -> dict[str, Any]:
    return dict(json.loads((run_dir / f"round-{round_:02d}" / "distill" / "manifest.json").read_text()))


def losses(run_dir: Path, round_: int) -> list[float]:
    return [entry["loss"] for entry in manifest(run_dir, round_)["loss_curve"]]


def weights(run_dir: Path, round_: int) -> dict[str, torch.Tensor]:
    return dict(load_file(run_dir / f"round-{round_:02d}" / "distill" / "adapter" / "adapter_model.safetensors"))


class Watched:
    """A launch, and the memory of its processes at the end of every round."""

    def __init__(self, words: list[str], **variables: str) -> None:
        self.process = psutil.Popen(
            words,
            cwd=PROJECT,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.printed = self.process.stdout.read()

    def workers(self) -> list[psutil.Process]:
        return [p for p in self.process.children(recursive=True) if "--run_dir" in p.cmdline()]

    def kill_when(self, appears: Path, timeout: float = 300) -> None:
        """SIGKILL to the launcher and all that it started, as when a machine loses its power."""
        deadline = time.monotonic() + timeout
        while not appears.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.stop()
            time.sleep(0.002)
        self.stop()

    def stop(self) -> str:
        for one in [self.process, *self.process.children(recursive=True)]:
            one.kill()
        self._reader.join()
        return self.printed

    def memory_at(self, marks: list[Path], timeout: float = 600) -> list[list[float]]:
        """MB resident of every worker as each mark appears."""
        found, deadline = [], time.monotonic() + timeout
        for mark in marks:
            while not mark.exists():
                assert self.process.poll() is None and time.monotonic() < deadline, self.stop()
                time.sleep(0.002)
            found.append(sorted(worker.memory_info().rss / 1e6 for worker in self.workers()))
        return found

    def wait(self, timeout: float = 600) -> int:
        try:
            status = int(self.process.wait(timeout))
        finally:
            self.stop() if self.process.poll() is None else self._reader.join()
        return status
