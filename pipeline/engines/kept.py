"""Answers of servers, each saved as it arrives, so that after an interrupted launch none has to be paid for again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.engines.base import Adapter, Completion, Request, Sampling

log = logging.getLogger("pipeline")


class KeptAnswers:
    """Files of answers next to the run's tables; what an earlier launch left there is handed out once.

    Answers that this launch received are not handed out again: a question asked twice is sent twice.

    Args:
        folder: folder of the files, one per process; every process reads all of them.
        process: index of this process.
        processes: number of processes in this launch.
    """

    def __init__(self, folder: Path, process: int, processes: int) -> None:
        self._path = folder / f"{process}.jsonl"
        paths = sorted(folder.glob("*.jsonl"))
        self._to_drop = {self._path, *(path for path in paths if int(path.stem) % processes == process)}
        self._earlier = {key: answer for path in paths for key, answer in _read(path)}
        self._file: IO[str] | None = None
        if self._earlier:
            log.info("%s: reusing answers of an earlier launch: %s", folder, f"{len(self._earlier):,}")

    def take(self, key: str) -> Completion | None:
        """The answer that an earlier launch received, or None."""
        return self._earlier.pop(key, None)

    def add(self, key: str, answer: Completion) -> None:
        """Save an answer, safe from a kill once this returns. Failures are not saved, so that they are tried again."""
        if answer.finish_reason == "error":
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
            self._file.write("\n")  # ends a line that a kill may have cut short
        self._file.write(json.dumps([key, *answer]) + "\n")
        self._file.flush()

    def drop(self) -> None:
        """Forget everything, once what the answers went into is complete."""
        self._earlier = {}
        if self._file is not None:
            self._file.close()
            self._file = None
        for path in self._to_drop:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: other processes have files there
            self._path.parent.rmdir()


def _read(path: Path) -> Iterator[tuple[str, Completion]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            key, *fields = json.loads(line)
            yield key, Completion(*fields)
        except (ValueError, TypeError):
            continue  # empty, or cut short by a kill


def answer_key(model: str, adapter: Adapter | None, sampling: Sampling, request: Request) -> str:
    """Digest of everything that an answer depends on."""
    asked = [model, adapter.sha256 if adapter else None, sampling, request.messages, request.seed]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
