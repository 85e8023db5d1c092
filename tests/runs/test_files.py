from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import RunError
from pipeline.runs.files import (
    file_sha256,
    json_sha256,
    naming_a_full_disk,
    read_json,
    read_json_lines,
    write_atomically,
    write_json,
    write_json_lines,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(path, fails)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_old_file_stands_while_the_new_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append((path.read_text(), temporary.parent == path.parent, temporary.name.startswith(".")))

    write_atomically(path, write)
    assert seen == [("old", True, True)], "in the same folder, or the rename would not be one step"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "y" / "a.txt", "é漢")
    assert (tmp_path / "x" / "y" / "a.txt").read_bytes() == "é漢".encode()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tiny tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a tiny tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_run_error_and_keeps_the_old_file(tiny_disk: Path) -> None:
    path = tiny_disk / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RunError, match=r"a\.json: no space left on the disk.*run the same command again"):
        write_text(path, "x" * 200_000)
    assert read_json(path) == {"old": 1}
    assert names(tiny_disk) == ["a.json"], "and the space it took is given back"
    write_text(path, "fits")


def test_a_full_disk_while_a_table_is_written(tiny_disk: Path) -> None:
    import numpy as np
    import pyarrow as pa

    from pipeline.runs.tables import write_table

    schema = pa.schema([("x", pa.binary())])
    noise = np.random.default_rng(0)
    table = pa.table({"x": [noise.bytes(1_000) for _ in range(400)]}, schema=schema)
    with pytest.raises(RunError, match="no space left"):
        write_table(tiny_disk / "t.parquet", [table], schema)
    assert names(tiny_disk) == []


def test_a_full_disk_is_named_whatever_a_library_says_of_it(tiny_disk: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {"w": torch.zeros(100_000)}
    with pytest.raises(RunError, match="no space left on the disk"), naming_a_full_disk(tiny_disk):
        save_file(weights, tiny_disk / "a.safetensors")
    with pytest.raises(RunError, match="no space left"), naming_a_full_disk(tiny_disk):
        torch.save(weights, tiny_disk / "a.pt")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_came_of_a_full_disk_is_a_run_error(tmp_path: Path, number: int) -> None:
    def saves() -> None:
        try:
            raise OSError(number, "something")
        except OSError:
            {}["a library's own trouble"]

    with pytest.raises(RunError, match="no space left"), naming_a_full_disk(tmp_path):
        saves()


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), naming_a_full_disk(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(RunError, match="as it was said"), naming_a_full_disk(tmp_path):
        raise RunError("as it was said")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be read .*check its owner"):
        read_json(tmp_path)
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"a\.json: cannot be read .*restore it"):
        read_json(tmp_path / "a.json")


def test_enospc_of_the_writer_itself_is_a_run_error(tmp_path: Path) -> None:
    # The same on machines where no small disk can be mounted.
    def full(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="no space left"):
        write_atomically(tmp_path / "a", full)
    assert names(tmp_path) == []


def test_a_folder_where_nothing_may_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:

        def refused(temporary: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")  # root may write anywhere

        with pytest.raises(RunError, match="cannot be written"):
            write_atomically(folder / "a", refused)
    else:
        with pytest.raises(RunError, match="cannot be written"):
            write_text(folder / "a", "x")


@given(JSON)
@example({"line separators": "a\x85b\u2028c\x0bd\x1ce"})
@settings(max_examples=25, deadline=None)  # each one is flushed to the disk, for seconds in all
def test_json_comes_back(value: object) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        write_json(path, value)
        assert read_json(path) == value
        write_json_lines(path, [{"value": value}, {"value": None}])
        assert read_json_lines(path) == [{"value": value}, {"value": None}]


def test_json_keeps_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": "é"\n}\n'


def test_a_missing_or_damaged_json_file_says_which_and_where(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(RunError, match=r"a\.json: missing"):
        read_json(path)
    path.write_text('{\n  "a": 1,\n  oops')
    with pytest.raises(RunError, match=r"a\.json:3: damaged"):
        read_json(path)


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read_json_lines(path) == []
    write_json_lines(path, [])
    assert read_json_lines(path) == []
    path.write_text('{"a": 1}\n{"b": \n')
    with pytest.raises(RunError, match=r"a\.jsonl:2: damaged"):
        read_json_lines(path)


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert json_sha256({"a": 1, "b": [2, "é"]}) == json_sha256({"b": [2, "é"], "a": 1})
    assert json_sha256({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert json_sha256([1, 2]) != json_sha256([2, 1])
