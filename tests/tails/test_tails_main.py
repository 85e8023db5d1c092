import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tails.__main__ import main, read_scores


def rows(scores, **more):
    return [
        {"prompt_id": f"p{i}", "sample": j, "score": float(score), **{name: value(i) for name, value in more.items()}}
        for i, samples in enumerate(scores)
        for j, score in enumerate(samples)
    ]


def write(path, records):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture(name="scores", scope="module")
def _scores(random_effects):
    baseline, current = random_effects(np.random.default_rng(0), 600, 3)
    turned = current.copy()
    turned[np.arange(0, 120, 6)] = 4.0
    return baseline, turned


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".jsonl"])
def test_every_format_gives_the_same_answer(tmp_path, capsys, scores, kind):
    slices = {"slice": lambda i: f"s{i % 6}"}
    before = write(tmp_path / f"before{kind}", rows(scores[0], **slices))
    after = write(tmp_path / f"after{kind}", rows(scores[1], **slices)[::-1])
    assert main([before, after, "--json", "--fail_on_alarm"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["verdict"] == "amber"
    assert record["tests"]["worst_slice"]["slice"] == "s0"
    assert record["p_values"]["probe"] is None
    assert "half of the baseline" in record["thresholds_from"]
    assert main([before, after]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("amber")
    assert "in slice s0" in shown


def test_calibration_is_used_and_must_be_of_other_prompts(tmp_path, capsys, scores):
    before, after = (write(tmp_path / f"{i}.csv", rows(side)) for i, side in enumerate(scores))
    others = [record | {"prompt_id": "c" + record["prompt_id"]} for record in rows(scores[0])]
    assert main([before, after, "--json", "--calibration", write(tmp_path / "c.csv", others)]) == 0
    assert json.loads(capsys.readouterr().out)["thresholds_from"].startswith("calibration")
    assert main([before, after, "--calibration", before]) == 2
    assert "600 calibration prompts are also in the panel" in capsys.readouterr().err


def test_unpaired_prompts_are_refused_with_their_number(tmp_path, capsys, scores):
    before = write(tmp_path / "before.csv", rows(scores[0]))
    after = write(tmp_path / "after.csv", rows(scores[1][:590]))
    assert main([before, after]) == 2
    assert "10 only in" in capsys.readouterr().err
    assert main([before, after, "--drop_unpaired"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records[3].update(score="high"), "before.jsonl:4: score 'high' is not a number"),
        (lambda records: records[3].update(score=float("inf")), "before.jsonl:4: score inf is infinite"),
        (lambda records: records[3].pop("sample"), "before.jsonl:4: no sample"),
        (lambda records: records[1].update(sample=0), "before.jsonl:2: sample 0 of prompt p0 appears twice"),
        (lambda records: records[1].update(slice="b"), "before.jsonl:2: prompt p0 is in slices a and b"),
        (lambda records: records[1].update(scorer="other"), "before.jsonl:2: scorer other after harm"),
    ],
)
def test_bad_rows_are_named(tmp_path, capsys, scores, change, message):
    records = rows(scores[0], slice=lambda _: "a", scorer=lambda _: "harm")
    after = write(tmp_path / "after.jsonl", records)
    change(records)
    assert main([write(tmp_path / "before.jsonl", records), after]) == 2
    assert message in capsys.readouterr().err


def test_bad_files_are_named(tmp_path, capsys, scores):
    good = write(tmp_path / "good.csv", rows(scores[0], scorer=lambda _: "harm"))
    other = write(tmp_path / "other.csv", rows(scores[0], scorer=lambda _: "length"))
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "empty.csv").write_text("prompt_id,sample,score\n")
    (tmp_path / "broken.parquet").write_text("no")
    (tmp_path / "scores.txt").write_text("no")
    for path, message in (
        (other, "files of different scorers (harm, length)"),
        (tmp_path / "none.csv", "no such file"),
        (tmp_path / "broken.jsonl", "broken.jsonl:1: not JSON"),
        (tmp_path / "empty.csv", "no rows"),
        (tmp_path / "broken.parquet", "not a Parquet file"),
        (tmp_path / "scores.txt", "expected .parquet, .csv or .jsonl"),
    ):
        assert main([good, str(path)]) == 2
        assert message in capsys.readouterr().err


def test_an_empty_score_is_a_missing_sample(tmp_path, capsys, scores):
    records = rows(scores[1])
    records[0]["score"] = ""
    before, after = write(tmp_path / "b.csv", rows(scores[0])), write(tmp_path / "a.csv", records)
    assert main([before, after, "--json"]) == 0
    means = json.loads(capsys.readouterr().out)["estimates"][0]["current"]
    assert means["n_samples"] == 600 * 3 - 1


def test_what_spreadsheets_save_is_read(tmp_path, capsys, scores):
    before, after = (write(tmp_path / f"{i}.csv", rows(side)) for i, side in enumerate(scores))
    assert main([before, after, "--json"]) == 0
    expected = capsys.readouterr().out
    lines = [json.dumps(record) for record in rows(scores[1])]
    for name, text in (("bom.csv", (tmp_path / "1.csv").read_text()), ("bom.jsonl", "\r\n".join(lines))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig", newline="")
        assert main([before, str(tmp_path / name), "--json"]) == 0
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_another_encoding_is_refused(tmp_path, capsys, scores, kind):
    before = write(tmp_path / f"before.{kind}", rows(scores[0]))
    (tmp_path / f"utf16.{kind}").write_text((tmp_path / f"before.{kind}").read_text(), encoding="utf-16")
    assert main([before, str(tmp_path / f"utf16.{kind}")]) == 2
    assert f"utf16.{kind}:1: not UTF-8 (byte 0xff); save the file as UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["p0,1", "p0,1,0.5,0.5"])
def test_a_row_of_another_length_is_no_missing_sample(tmp_path, capsys, line):
    path = tmp_path / "short.csv"
    path.write_text(f"prompt_id,sample,score\np0,0,0.5\n{line}\n")
    assert main([str(path), str(path)]) == 2
    assert "short.csv:3: not as many fields as the header has" in capsys.readouterr().err


def test_both_files_must_agree_on_slices(tmp_path, capsys, scores):
    before = write(tmp_path / "before.csv", rows(scores[0], slice=lambda i: f"s{i % 2}"))
    other = write(tmp_path / "other.csv", rows(scores[1], slice=lambda i: "s0"))
    assert main([before, other]) == 2
    assert "prompt p1 is in slice s1 in " in capsys.readouterr().err
    # A file may leave the slices to the other one.
    silent = write(tmp_path / "silent.csv", rows(scores[1]))
    assert main([before, silent, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tests"]["worst_slice"]["slice"] in ("s0", "s1")


def test_an_empty_slice_or_scorer_is_none(tmp_path, scores):
    records = rows(scores[0][:2], slice=lambda i: "" if i else "even", scorer=lambda i: "harm" if i else "")
    read = read_scores(Path(write(tmp_path / "scores.csv", records)))
    assert (read.slices, read.scorer) == ({"p0": "even"}, "harm")
