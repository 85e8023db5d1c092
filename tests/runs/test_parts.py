from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import RunError
from pipeline.runs.parts import read_notes, read_part, write_part
from pipeline.runs.tables import RESPONSES, SCORES, to_table

PROMPT = [{"role": "user", "content": "é\u2028"}]
ROWS = to_table([{"prompt_id": f"p{i}", "prompt": PROMPT} for i in range(5)], RESPONSES)

NOTES = {"seconds": {"work": 0.5}, "failed": {"503: büsy": 2}}


def test_rows_and_notes_come_back(tmp_path: Path) -> None:
    write_part(tmp_path / "new" / "0.arrow", ROWS, NOTES)
    rows, notes = read_part(tmp_path / "new" / "0.arrow")
    assert rows.equals(ROWS, check_metadata=True)
    assert notes == read_notes(tmp_path / "new" / "0.arrow") == NOTES
    write_part(tmp_path / "1.arrow", SCORES.empty_table(), {})
    assert read_part(tmp_path / "1.arrow") == (SCORES.empty_table(), {})
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["1.arrow"], "nothing temporary is left"


@pytest.mark.parametrize("read", [read_part, read_notes])
@pytest.mark.parametrize("damage", [slice(0, 0), slice(0, -40)])
def test_a_missing_or_damaged_part_says_what_to_do(tmp_path: Path, read: object, damage: slice) -> None:
    path = tmp_path / "0.arrow"
    assert callable(read)
    with pytest.raises(RunError, match=r"0\.arrow: missing"):
        read(path)
    write_part(path, ROWS, {})
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(RunError, match=r"0\.arrow: damaged .*run the same command again"):
        read(path)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left") as raised, pa.OSFile("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)
    assert raised.value.errno == 28, "write_atomically tells a full disk by the error's number"
