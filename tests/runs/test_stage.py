from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.errors import RunError
from pipeline.runs.files import file_sha256, read_json
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.tables import SCORES, read_table

OUTPUT = "scores.parquet"


class Work:
    """Doubles numbers, and stops at the item it is told to stop at, as a crash would."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.seen: list[list[int]] = []
        self.seconds = 0.0

    def __call__(self, items: Sequence[int]) -> Chunk:
        self.seen.append(list(items))
        if self.stop_at in items:
            raise ZeroDivisionError("stopped here")
        rows = [{"prompt_id": str(i), "sample": 0, "scorer": "double", "score": 2.0 * i} for i in items]
        self.seconds += 0.5
        return Chunk(rows)


def stage_of(folder: Path, **inputs: Any) -> Stage:
    return Stage(folder / "stage", "score", 1, inputs={"samples": "abc", **inputs})


def collect(stage: Stage, work: Work, n: int = 10, chunk_rows: int = 4) -> None:
    stage.collect(range(n), work, SCORES, OUTPUT, chunk_rows, clock=lambda: work.seconds)


def complete(stage: Stage, work: Work, n: int = 10, chunk_rows: int = 4) -> None:
    collect(stage, work, n, chunk_rows)
    stage.finish([OUTPUT], {"rows": {OUTPUT: n}})


def test_rows_are_joined_in_order(tmp_path: Path) -> None:
    work = Work()
    complete(stage_of(tmp_path), work)
    assert work.seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    table = read_table(tmp_path / "stage" / OUTPUT)
    assert table.schema == SCORES
    assert table["score"].to_pylist() == [2.0 * i for i in range(10)]


def test_kept_rows_stand_before_what_is_added_to_them(tmp_path: Path) -> None:
    complete(stage_of(tmp_path), Work(), n=3)
    path = tmp_path / "stage" / OUTPUT
    added = stage_of(tmp_path, more=1)
    for _ in range(2):  # the second time as after a kill between the table and its manifest
        table = read_table(path)
        added.collect([10, 11], Work(), SCORES, OUTPUT, 4, kept=table.filter(pc.less(table["score"], 20.0)))
        assert read_table(path)["score"].to_pylist() == [0.0, 2.0, 4.0, 20.0, 22.0]


def test_an_exception_in_the_second_chunk_keeps_the_first(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        collect(stage_of(tmp_path), Work(stop_at=5))
    assert not stage_of(tmp_path).is_complete()
    assert not (tmp_path / "stage" / OUTPUT).exists()
    again = Work()
    complete(stage_of(tmp_path), again)
    assert again.seen == [[4, 5, 6, 7], [8, 9]], "work is not asked again for what is done"
    assert read_table(tmp_path / "stage" / OUTPUT)["score"].to_pylist() == [2.0 * i for i in range(10)]


def test_the_bytes_do_not_tell_how_often_the_work_was_cut_short(tmp_path: Path) -> None:
    complete(stage_of(tmp_path / "undisturbed"), Work())
    for stop_at in (0, 5, 9):
        with pytest.raises(ZeroDivisionError):
            collect(stage_of(tmp_path / "disturbed"), Work(stop_at=stop_at))
    complete(stage_of(tmp_path / "disturbed"), Work())
    one, other = (tmp_path / name / "stage" for name in ("undisturbed", "disturbed"))
    assert (
        sorted(p.name for p in one.iterdir())
        == sorted(p.name for p in other.iterdir())
        == [
            "manifest.json",
            OUTPUT,
        ]
    )
    assert (one / OUTPUT).read_bytes() == (other / OUTPUT).read_bytes()
    manifests = [read_json(folder / "manifest.json") for folder in (one, other)]
    for manifest in manifests:
        assert manifest.pop("timing")["model_seconds"] == pytest.approx(1.5), "of all chunks, over all attempts"
    assert manifests[0] == manifests[1]


def test_the_manifest_says_what_was_made_from_what(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, adapter=None)
    complete(stage, Work())
    manifest = stage.manifest()
    assert manifest["stage"] == "score" and manifest["round"] == 1
    assert manifest["inputs"] == {"samples": "abc", "adapter": None}
    assert manifest["outputs"] == {OUTPUT: file_sha256(tmp_path / "stage" / OUTPUT)}
    assert manifest["rows"] == {OUTPUT: 10}
    assert manifest["timing"]["wall_seconds"] >= manifest["timing"]["work_seconds"] >= 0


def test_a_folder_among_the_outputs_is_digested_file_by_file(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    collect(stage, Work())
    (stage.folder / "adapter").mkdir()
    (stage.folder / "adapter" / "weights").write_bytes(b"w")
    stage.finish([OUTPUT, "adapter"], {})
    assert stage.manifest()["outputs"]["adapter"] == {"weights": file_sha256(stage.folder / "adapter" / "weights")}


def test_a_complete_stage_with_the_same_inputs_is_complete(tmp_path: Path) -> None:
    assert not stage_of(tmp_path).is_complete()
    complete(stage_of(tmp_path), Work())
    assert stage_of(tmp_path).is_complete()


def test_a_complete_stage_whose_outputs_are_gone_says_what_to_delete(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    collect(stage, Work())
    weights = stage.folder / "adapter" / "weights"
    weights.parent.mkdir()
    weights.touch()
    stage.finish([OUTPUT, "adapter"], {})
    weights.unlink()
    with pytest.raises(
        RunError, match=r"stage: adapter/weights missing, but manifest\.json says .*delete .*stage to make it"
    ):
        stage_of(tmp_path).is_complete()
    (stage.folder / OUTPUT).unlink()
    with pytest.raises(RunError, match=f"{OUTPUT} and adapter/weights missing"):
        stage_of(tmp_path).is_complete()


def test_a_complete_stage_with_other_inputs_is_refused(tmp_path: Path) -> None:
    complete(stage_of(tmp_path, constitution="old", gone=1), Work())
    before = (tmp_path / "stage" / OUTPUT).read_bytes()
    with pytest.raises(
        RunError,
        match=r"other inputs \(constitution, gone, new changed\).*Delete .*stage.*drift.json, alarm.json and DONE",
    ):
        stage_of(tmp_path, constitution="edited", new=1).is_complete()
    assert (tmp_path / "stage" / OUTPUT).read_bytes() == before


def test_parts_of_other_inputs_are_set_aside_and_not_mixed_in(tmp_path: Path) -> None:
    for old in ("old", "older"):
        with pytest.raises(ZeroDivisionError):
            collect(stage_of(tmp_path, constitution=old), Work(stop_at=5))
    work = Work()
    collect(stage_of(tmp_path, constitution="new"), work)
    assert work.seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    aside = sorted(p.name for p in (tmp_path / "stage").iterdir() if "superseded" in p.name)
    assert aside == ["parts-scores.superseded-1", "parts-scores.superseded-2"]
    assert (tmp_path / "stage" / aside[0] / "000000.arrow").exists(), "nothing is deleted"


def test_work_of_another_shape_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage, folder = stage_of(tmp_path), tmp_path / "stage" / "trainer"
    for shape in ((2, "DDP"), (2, "DDP"), (1, "one process")):
        stage.claim(folder, *shape)
        (folder / "-".join(map(str, shape))).touch()
    assert {p.name for p in folder.iterdir()} == {"made-from.sha256", "1-one process"}
    assert (folder.with_name("trainer.superseded-1") / "2-DDP").exists()
    assert caplog.text.count("set aside as trainer.superseded-1") == 1


def test_the_seconds_of_several_tables_add_up(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    work = Work()
    collect(stage, work)
    first = stage.timing.model
    stage.collect(range(10), work, SCORES, "more.parquet", 4, clock=lambda: work.seconds)
    assert first > 0 and stage.timing.model == pytest.approx(2 * first)


def test_parts_left_by_a_kill_after_the_manifest_are_dropped(tmp_path: Path) -> None:
    complete(stage_of(tmp_path), Work())
    (tmp_path / "stage" / "parts-scores").mkdir()
    assert stage_of(tmp_path).is_complete()
    assert not (tmp_path / "stage" / "parts-scores").exists()


def test_other_chunk_sizes_do_not_mix(tmp_path: Path) -> None:
    # Part 0 of four rows is not part 0 of three: an amended `chunk_rows` must not lose or repeat a row.
    with pytest.raises(ZeroDivisionError):
        collect(stage_of(tmp_path), Work(stop_at=9), chunk_rows=4)
    complete(stage_of(tmp_path), Work(), chunk_rows=3)
    assert read_table(tmp_path / "stage" / OUTPUT)["score"].to_pylist() == [2.0 * i for i in range(10)]


def test_no_items(tmp_path: Path) -> None:
    work = Work()
    complete(stage_of(tmp_path), work, n=0)
    assert work.seen == []
    assert read_table(tmp_path / "stage" / OUTPUT).schema == SCORES
    assert stage_of(tmp_path).is_complete()


def test_a_damaged_part_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        collect(stage_of(tmp_path), Work(stop_at=5))
    (tmp_path / "stage" / "parts-scores" / "000000.arrow").write_bytes(b"not a table")
    with pytest.raises(RunError, match=r"000000\.arrow: damaged"):
        complete(stage_of(tmp_path), Work())


def test_two_ranks_do_each_its_own_chunks_and_rank_0_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each rank in turn, in one process: what may not depend on the number of processes is what lands on the disk.
    from pipeline.runs import ranks

    monkeypatch.setattr(ranks, "barrier", lambda: None)
    monkeypatch.setattr(ranks, "from_main", lambda value: value)
    complete(stage_of(tmp_path / "alone"), Work())
    monkeypatch.setenv("WORLD_SIZE", "2")
    second, first = Work(), Work()
    stage_of(tmp_path / "two").claim(tmp_path / "two" / "stage" / "parts-scores", 10, 4)  # what rank 0 does first
    monkeypatch.setenv("RANK", "1")
    collect(stage_of(tmp_path / "two"), second)
    monkeypatch.setenv("RANK", "0")
    complete(stage_of(tmp_path / "two"), first)
    assert second.seen == [[4, 5, 6, 7]] and first.seen == [[0, 1, 2, 3], [8, 9]]
    one, other = ((tmp_path / name / "stage" / OUTPUT).read_bytes() for name in ("alone", "two"))
    assert one == other


def test_the_headline_counts(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    line = stage.headline(
        {
            "rows": {"a": 1200, "b": 34},
            "tokens": {"new": 5000},
            "dropped": {"a": {"loop": 2}, "b": {"loop": 1, "empty": 4}},
            "timing": {"wall_seconds": 12.5, "work_seconds": 10.0},
        }
    )
    assert "1,200 rows" in line and "500 tokens/s" in line and "dropped: loop 3, empty 4" in line


FAILING = pa.schema([("i", pa.int64()), ("error", pa.string())])


def failing(bad: set[int]) -> Callable[[Sequence[int]], Chunk]:
    def work(chunk: Sequence[int]) -> Chunk:
        rows = [{"i": i, "error": "503: busy" if i in bad else None} for i in chunk]
        return Chunk(rows, failed=["503: busy" for i in chunk if i in bad])

    return work


def test_few_failed_rows_are_kept_and_many_fail_the_stage(tmp_path: Path) -> None:
    items = list(range(40))
    stage = Stage(tmp_path / "few", "s", 1, inputs={})
    stage.collect(items, failing({3, 4}), FAILING, "t.parquet", 10, max_failed=0.05)
    assert [row["error"] for row in read_table(stage.folder / "t.parquet").to_pylist()].count("503: busy") == 2

    stage = Stage(tmp_path / "many", "s", 1, inputs={})
    with pytest.raises(
        RunError, match=r"3 of 40 rows failed.*`max_failed_rows` \(0.05\).*503: busy.*same command again"
    ):
        stage.collect(items, failing({3, 13, 14}), FAILING, "t.parquet", 10, max_failed=0.05)
    assert not (stage.folder / "t.parquet").exists()

    asked: list[int] = []

    def again(chunk: Sequence[int]) -> Chunk:
        asked.extend(chunk)
        return failing(set())(chunk)

    stage.collect(items, again, FAILING, "t.parquet", 10, max_failed=0.05)
    # The first two chunks had failures; the last two had not been begun when it was clear that there were too many.
    assert asked == items
    assert [row["i"] for row in read_table(stage.folder / "t.parquet").to_pylist()] == items


def test_only_the_chunks_with_failed_rows_are_done_again(tmp_path: Path) -> None:
    items = list(range(40))
    stage = Stage(tmp_path, "s", 1, inputs={})
    with pytest.raises(RunError, match="2 of 40"):
        stage.collect(items, failing({30, 31}), FAILING, "t.parquet", 10, max_failed=0.04)
    asked: list[int] = []

    def again(chunk: Sequence[int]) -> Chunk:
        asked.extend(chunk)
        return failing(set())(chunk)

    stage.collect(items, again, FAILING, "t.parquet", 10, max_failed=0.04)
    assert asked == list(range(30, 40))
