import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.prompt_files import is_prompt_file, read_rows

_text = st.text(st.characters(exclude_categories=["Cs"]))
_rows = st.lists(st.dictionaries(_text, _text | st.none() | st.integers() | st.lists(_text)), min_size=1)


@given(rows=_rows, ascii_only=st.booleans(), gz=st.booleans())
def test_jsonl_round_trip(rows, ascii_only, gz, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / ("p.jsonl.gz" if gz else "p.jsonl")
    raw = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(raw) if gz else raw)
    read = read_rows(path)
    assert [row.fields for row in read] == rows
    assert [row.where for row in read] == [f"{path}:{n}" for n in range(1, len(rows) + 1)]


@given(records=st.lists(st.tuples(_text, _text), min_size=1))
def test_csv_round_trip(records, tmp_path_factory):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("prompt", "note"), *records])
    path = tmp_path_factory.mktemp("rows") / "p.csv"
    path.write_bytes(buffer.getvalue().encode())
    assert [tuple(row.fields.values()) for row in read_rows(path)] == records


def test_broken_line_17(tmp_path):
    lines = [json.dumps({"prompt": f"question {n}"}) for n in range(30)]
    lines[16] = '{"prompt": "question 16"'
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"p.jsonl:17: not valid JSON: Expecting ',' delimiter \(column 25\)"):
        read_rows(path)
    lines[16] = "17"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"p.jsonl:17: expected an object .* found int"):
        read_rows(path)
    path.write_bytes(b"\n".join([b'{"prompt": "x"}'] * 16 + [b'{"prompt": "\xff"}']))
    with pytest.raises(InputError, match=r"p.jsonl:17: not UTF-8 \(byte 0xff\)"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("p.json", b'[{"prompt": "a"},\n {"prompt": }]', r"p.json:2: not valid JSON"),
        ("p.json", b'[{"prompt": "a"}, 3]', r"p.json: entry 2: expected an object"),
        ("p.json", b'{"prompt":\n "a"}', r"p.json:1: not valid JSON.* one whole JSON object"),
        ("p.csv", b'prompt,topic\na,b\n"c\nd",e\nf,g,h\n', r"p.csv:5: 3 fields under a header of 2"),
        ("p.csv", b'prompt,topic\na,b\n"c,d\n', r"p.csv:3: not valid CSV"),
        ("p.csv", b"prompt,prompt\na,b\n", r"p.csv:1: the header has an empty or repeated name"),
        ("p.csv", b"prompt\n", "holds no rows"),
        ("p.jsonl", b"\n \n", "holds no rows"),
        ("p.txt", b"", "holds no rows"),
        ("p.txt", b"ok\nbad \xe9\n", r"p.txt:2: not UTF-8"),
        ("p.parquet", b"PAR1 but not really", "not a readable Parquet file"),
        ("p.jsonl.gz", b'{"prompt": "a"}', "not a complete gzip file"),
        ("p.jsonl.gz", gzip.compress(b'{"prompt": "a"}', mtime=0)[:-9], "not a complete gzip file"),
        ("p.tsv", b"a\tb", "unknown kind of file; give one of .json, .jsonl, .csv, .parquet, .txt"),
    ],
)
def test_faults_are_named(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=fault):
        read_rows(tmp_path / name)


def test_kinds_of_file():
    assert all(map(is_prompt_file, ["a.json", "a/b.JSONL.gz", "x.parquet", "x.csv.gz", "x.txt"]))
    assert not any(map(is_prompt_file, ["org/name", "org/name.v2", "sandbox:train", "x.gz"]))
