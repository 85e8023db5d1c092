import csv
import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import InputError
from pipeline.inputs.prompts import Prompt, load_prompts, prompt_id

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real data at {DATA}")


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(prompts: tuple[Prompt, ...]) -> list[str]:
    return [p.messages[-1]["content"] for p in prompts]


@needs_data
def test_hh_dialogues_are_kept_whole():
    loaded = load_prompts(str(DATA / "hh_rlhf/harmless-base-test.jsonl.gz"))
    assert (loaded.column, loaded.n_rows, loaded.n_duplicates, loaded.dropped_by_reason) == (
        "chosen",
        2312,
        2,
        {},
    )
    assert len(loaded.prompts) == 2310
    assert loaded.changed_by_reason == {"final_answer_removed": 2312, "turns_joined": 8}
    several = [p for p in loaded.prompts if sum(m["role"] == "user" for m in p.messages) > 1]
    assert len(several) == 1650  # 71%
    for p in loaded.prompts:
        roles = [m["role"] for m in p.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(m["content"] == m["content"].strip() != "" for m in p.messages)
        assert not any("\n\nHuman: " in m["content"] or "\n\nAssistant: " in m["content"] for m in p.messages)
    spoken = [m["content"] for p in loaded.prompts for m in p.messages if m["content"].startswith("Human: ")]
    assert len(spoken) > 10  # answers that speak as the human stay answers


@needs_data
def test_truthfulqa_in_two_languages():
    english, spanish = (
        load_prompts(str(DATA / f"truthfulqa/{lang}.json.gz"), slice_column="category") for lang in ("en", "es")
    )
    assert (len(english.prompts), english.column, len(spanish.prompts)) == (817, "question", 817)
    assert len({p.slice for p in english.prompts}) == 38
    assert english.prompts[0].labels["lang"] == "en"
    assert "best_answer" in english.prompts[0].labels
    assert "question" not in english.prompts[0].labels and "category" not in english.prompts[0].labels
    assert english.sha256 != spanish.sha256


@needs_data
def test_xstest_types_are_slices():
    loaded = load_prompts(str(DATA / "xstest/xstest_prompts.csv"), slice_column="type")
    assert len(loaded.prompts) == loaded.n_rows == 450
    assert Counter(p.labels["label"] for p in loaded.prompts) == {"safe": 250, "unsafe": 200}
    assert len({p.slice for p in loaded.prompts}) == 18
    assert all(p.slice.startswith("contrast") for p in loaded.prompts if p.labels["label"] == "unsafe")


@needs_data
@pytest.mark.parametrize(
    ("file", "column", "n_rows", "n_duplicates"),
    [
        ("helpful/seed_tasks.jsonl", "instruction", 175, 0),
        ("helpful/user_oriented_instructions.jsonl", "instruction", 252, 1),
        ("model_written_evals/persona/openness.jsonl.gz", "question", 1000, 0),
        ("model_written_evals/advanced-ai-risk/corrigible-neutral-HHH.jsonl.gz", "question", None, 0),
    ],
)
def test_columns_of_real_files_are_found(file, column, n_rows, n_duplicates):
    loaded = load_prompts(str(DATA / file))
    assert (loaded.column, loaded.n_duplicates) == (column, n_duplicates)
    assert n_rows in (None, loaded.n_rows)
    assert len(loaded.prompts) == loaded.n_rows - n_duplicates
    assert all(len(p.messages) == 1 for p in loaded.prompts)


@needs_data
def test_two_turn_questions_are_asked_by_their_first_turn_and_counted():
    source = str(DATA / "helpful/mt_bench_question.jsonl")
    with pytest.raises(InputError, match="question_id, category, turns"):
        load_prompts(source)
    loaded = load_prompts(source, column="turns", slice_column="category")
    assert len(loaded.prompts) == 80
    assert loaded.changed_by_reason == {"later_user_turns_left_out": 80}
    assert len({p.slice for p in loaded.prompts}) == 8


def test_all_formats_give_the_same_prompts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"prompt": 'He said: "well, now"', "topic": "speech"},
        {"prompt": "Zwei\nZeilen — und ein Komma,", "topic": "ümlaut"},
    ]
    jsonl = write_jsonl(tmp_path / "p.jsonl", rows)
    (tmp_path / "p.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "lines.json").write_text(Path(jsonl).read_text())
    (tmp_path / "p.csv").write_bytes(
        '\ufeffprompt,topic\r\n"He said: ""well, now""",speech\r\n"Zwei\nZeilen — und ein Komma,",ümlaut\r\n'.encode()
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(Path(jsonl).read_bytes()))
    names = ["p.jsonl", "p.json", "lines.json", "p.csv", "p.parquet", "p.jsonl.gz"]
    loaded = [load_prompts(str(tmp_path / name), slice_column="topic") for name in names]
    assert texts(loaded[0].prompts) == [row["prompt"] for row in rows]
    assert [p.slice for p in loaded[0].prompts] == ["speech", "ümlaut"]
    assert all(other.prompts == loaded[0].prompts for other in loaded)
    assert len({other.sha256 for other in loaded}) == 1


def write_csv(path: Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_messages_stand_in_csv_as_json(tmp_path):
    turns = [
        {"role": "user", "content": 'Who, "then"?'},
        {"role": "assistant", "content": "Nobody."},
        {"role": "user", "content": "[{not a list}]"},
    ]
    cells = [json.dumps(turns), f"\n [ {json.dumps(turns, indent=1)[1:]}\n", "[1] {is} a reference", "{role}"]
    loaded = load_prompts(write_csv(tmp_path / "p.csv", [{"messages": cell, "note": "[{free"} for cell in cells]))
    as_lists = write_jsonl(tmp_path / "p.jsonl", [{"messages": turns, "note": "[{free"}])
    assert (len(loaded.prompts), loaded.n_duplicates) == (3, 1)
    assert loaded.prompts[0] == load_prompts(as_lists).prompts[0]
    assert texts(loaded.prompts)[1:] == ["[1] {is} a reference", "{role}"]
    as_text = load_prompts(write_jsonl(tmp_path / "text.jsonl", [{"prompt": cells[0]}]))
    assert texts(as_text.prompts) == [cells[0]], "only CSV has no lists of its own"


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (
            "[{'role': 'user', 'content': 'x'}]",
            r"not valid JSON: .* \(character 3 of the cell\)",
        ),  # as pandas writes it
        ('[{"role": "user"}]', "not a list of objects with `role` and `content`"),
        ('[{"role": "user", "content": "x"}, "y"]', "not a list of objects with `role` and `content`"),
        ("[{name}] is a placeholder", "not valid JSON"),
    ],
)
def test_a_csv_cell_that_only_begins_like_messages_is_refused(tmp_path, cell, fault):
    path = write_csv(tmp_path / "p.csv", [{"prompt": "one\nof two lines"}, {"prompt": cell}])
    with pytest.raises(
        InputError, match=rf"p\.csv:4: column `prompt`: begins like .*{fault}.* give the file as JSONL"
    ):
        load_prompts(path)


def test_text_file_has_a_prompt_a_line(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("one\n\n  two: words \n\n\nthree")
    assert texts(load_prompts(str(path)).prompts) == ["one", "two: words", "three"]


def test_ids_depend_on_the_messages_alone(tmp_path):
    rows = [{"prompt": f"question {n}", "topic": str(n)} for n in range(20)]
    forward = load_prompts(write_jsonl(tmp_path / "a.jsonl", rows))
    backward = load_prompts(write_jsonl(tmp_path / "b.jsonl", rows[::-1]), slice_column="topic")
    assert [p.id for p in forward.prompts] == [p.id for p in backward.prompts][::-1]
    assert len({p.id for p in forward.prompts}) == 20
    # The canonical form is part of the contract: run directories refer to it.
    assert prompt_id([{"content": "hé", "role": "user"}]) == prompt_id([{"role": "user", "content": "hé"}])
    assert prompt_id([{"role": "user", "content": "question 0"}]) == "4226e4b83c6ff595"


def test_limit_is_a_seeded_subset_that_ignores_file_order(tmp_path):
    rows = [{"prompt": f"question {n}"} for n in range(200)]
    forward = write_jsonl(tmp_path / "a.jsonl", rows)
    backward = write_jsonl(tmp_path / "b.jsonl", rows[::-1])
    fifty = load_prompts(forward, limit=50, seed=1)
    chosen = set(texts(fifty.prompts))
    assert len(chosen) == 50 and fifty.n_beyond_limit == 150
    assert chosen == set(texts(load_prompts(backward, limit=50, seed=1).prompts))
    assert chosen > set(texts(load_prompts(forward, limit=20, seed=1).prompts))
    assert chosen != set(texts(load_prompts(forward, limit=50, seed=2).prompts))
    numbers = [int(t.split()[1]) for t in texts(fifty.prompts)]
    assert numbers == sorted(numbers)  # in the file's order
    assert numbers[-1] > 100  # and not its head
    assert len(load_prompts(forward, limit=1000).prompts) == 200
    with pytest.raises(InputError, match="limit of 0"):
        load_prompts(forward, limit=0)


def test_every_row_is_accounted_for(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "first"}], "kind": "kept"},
        {"messages": [{"role": "user", "content": "first"}], "kind": "again"},
        {"messages": []},
        {"messages": None},
        {"messages": "  \n "},
        {"messages": [{"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", " "), ("user", "b")]]},
        {"messages": [{"role": r, "content": c} for r, c in [("system", "s"), ("user", "a"), ("assistant", "b")]]},
        {"messages": "plain"},
    ]
    loaded = load_prompts(write_jsonl(tmp_path / "p.jsonl", rows), limit=2)
    assert loaded.dropped_by_reason == {"empty_earlier_turn": 1, "empty_prompt": 4, "no_user_turn": 1}
    assert loaded.n_duplicates == 1 and loaded.n_beyond_limit == 1
    dropped = sum(loaded.dropped_by_reason.values())
    assert loaded.n_rows == len(loaded.prompts) + loaded.n_duplicates + loaded.n_beyond_limit + dropped == 10
    everything = load_prompts(str(tmp_path / "p.jsonl"))
    assert everything.prompts[0].labels == {"kind": "kept"}
    assert [m["role"] for m in everything.prompts[1].messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "prompt"),
        ({"instruction": "a", "output": "b"}, "instruction"),
        ({"text": "a"}, "text"),
    ],
)
def test_column_is_found(tmp_path, row, column):
    assert load_prompts(write_jsonl(tmp_path / "p.jsonl", [row])).column == column


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": "a", "messages": "b"}, "prompt, messages several could be the prompt"),
        ({"instruction": "a", "text": "b", "id": "1"}, r"several could be the prompt \(instruction, text\)"),
        ({"query": "a", "id": "1"}, "columns query, id none is known to be the prompt"),
    ],
)
def test_unclear_columns_are_listed(tmp_path, row, fault):
    with pytest.raises(InputError, match=fault):
        load_prompts(write_jsonl(tmp_path / "p.jsonl", [row]))


def test_faults_name_file_and_line(tmp_path):
    good = write_jsonl(tmp_path / "good.jsonl", [{"prompt": "a", "topic": "t"}])
    with pytest.raises(InputError, match=r"good.jsonl: no column `promt` .* there are prompt, topic"):
        load_prompts(good, column="promt")
    with pytest.raises(InputError, match=r"no column `kind` \(given as the slice column\)"):
        load_prompts(good, slice_column="kind")
    lacking = write_jsonl(tmp_path / "lacking.jsonl", [{"prompt": "a"}, {"question": "b"}])
    with pytest.raises(InputError, match=r"lacking.jsonl:2: no column `prompt`; this row has question"):
        load_prompts(lacking, column="prompt")
    typed = write_jsonl(tmp_path / "typed.jsonl", [{"prompt": "a"}, {"prompt": 7}])
    with pytest.raises(InputError, match=r"typed.jsonl:2: column `prompt`: holds a value of type int"):
        load_prompts(typed)
    unsliced = write_jsonl(tmp_path / "unsliced.jsonl", [{"prompt": "a", "topic": "t"}, {"prompt": "b"}])
    with pytest.raises(InputError, match=r"unsliced.jsonl:2: column `topic` must name the row's slice"):
        load_prompts(unsliced, slice_column="topic")
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"prompt": ""}, {"prompt": "\n"}])
    with pytest.raises(InputError, match=r"none of 2 rows holds a prompt to use \(empty_prompt: 2\)"):
        load_prompts(empty)


def test_sources_that_are_nowhere(tmp_path):
    with pytest.raises(InputError, match=r"nosuch.jsonl: no such file"):
        load_prompts(str(tmp_path / "nosuch.jsonl"))
    with pytest.raises(InputError, match=rf"data/p\.jsonl: no such file in {Path.cwd()} or {tmp_path}\."):
        load_prompts("data/p.jsonl", project_root=tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        load_prompts(str(tmp_path))
    with pytest.raises(InputError, match="json: no such file, and not a Hub dataset"):
        load_prompts("json")


def test_relative_paths_are_looked_up_under_the_project(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "found"}])
    assert texts(load_prompts("p.jsonl", project_root=tmp_path).prompts) == ["found"]


def test_hub_dataset(monkeypatch):
    calls = []

    def load_dataset(name, config, data_dir, split):
        calls.append((name, config, data_dir, split))
        return [{"question": "a", "kind": "k"}, {"question": "b", "kind": "l"}]

    fake = SimpleNamespace(load_dataset=load_dataset, exceptions=SimpleNamespace(DatasetsError=RuntimeError))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    loaded = load_prompts("org/name:main", split="test", slice_column="kind")
    load_prompts("org/name/some/folder[train[:50%]]")
    assert calls == [("org/name", "main", None, "test"), ("org/name", None, "some/folder", "train[:50%]")]
    assert [(p.messages[0]["content"], p.slice) for p in loaded.prompts] == [("a", "k"), ("b", "l")]

    def offline(name, config, data_dir, split):
        raise ConnectionError("Couldn't reach it.\nlong story")

    fake.load_dataset = offline
    with pytest.raises(InputError, match=r"org/name: neither a file .*Couldn't reach it\. Check the path or name"):
        load_prompts("org/name")


def test_a_folder_and_a_split_of_a_dataset_as_the_library_reads_them(tmp_path, monkeypatch):
    # `datasets` reads a folder of the working directory as it reads one on the Hub. The layout is hh-rlhf's.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "org" / "hh" / "red-team-attempts"
    folder.mkdir(parents=True)
    rows = [
        {"transcript": f"\n\nHuman: how {i}?\n\nAssistant: no.\n\nHuman: why {i}?\n\nAssistant: so.", "rating": i % 2}
        for i in range(6)
    ]
    with gzip.open(folder / "attempts.jsonl.gz", "wt") as file:
        json.dump(rows, file)  # one JSON list, as that file is
    loaded = load_prompts("org/hh/red-team-attempts[train[2:]]")
    assert loaded.column == "transcript"
    assert [p.messages[0]["content"] for p in loaded.prompts] == [f"how {i}?" for i in range(2, 6)]
    assert [m["role"] for m in loaded.prompts[0].messages] == ["user", "assistant", "user"]
    assert len(load_prompts("org/hh/red-team-attempts[train]?rating=1").prompts) == 3


def test_rows_with_one_value(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("prompt,label\na,safe\nb,unsafe\nc,safe\n")
    assert texts(load_prompts(f"{path}?label=safe").prompts) == ["a", "c"]
    with pytest.raises(InputError, match=r"no row has `odd` in `label`; it holds safe, unsafe"):
        load_prompts(f"{path}?label=odd")
    with pytest.raises(InputError, match=r"no column `lable`; there are prompt, label"):
        load_prompts(f"{path}?lable=safe")
    for bad in ("?label", "?=safe", "?"):
        with pytest.raises(InputError, match=r"expected `\?column=value`"):
            load_prompts(f"{path}{bad}")


def test_a_file_may_have_a_question_mark_in_its_name(tmp_path):
    path = tmp_path / "why?.txt"
    path.write_text("one\ntwo\n")
    assert len(load_prompts(str(path)).prompts) == 2


def test_the_safe_half_of_xstest(shared_data):
    loaded = load_prompts(f"{shared_data / 'xstest' / 'xstest_prompts.csv'}?label=safe")
    assert len(loaded.prompts) == 250


def test_sandbox_pool():
    loaded = load_prompts("sandbox:train:60", seed=5)
    assert (len(loaded.prompts), loaded.n_rows, loaded.column) == (60, 60, "prompt")
    assert len({p.slice for p in loaded.prompts}) > 3
    assert {"innocent", "harmful"} <= {p.labels["kind"] for p in loaded.prompts}
    assert loaded.prompts == load_prompts("sandbox:train:60", seed=5).prompts
    assert loaded.prompts != load_prompts("sandbox:train:60", seed=6).prompts
    assert len(load_prompts("sandbox:train:60", limit=9).prompts) == 9
    assert len(load_prompts("sandbox:train", limit=9).prompts) == 9
    with pytest.raises(InputError, match="nosuch"):
        load_prompts("sandbox:nosuch")
    for bad in ("sandbox:train:0", "sandbox:train:many", "sandbox:train:1:2"):
        with pytest.raises(InputError, match="sandbox:POOL:N"):
            load_prompts(bad)
