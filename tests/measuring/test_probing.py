"""Scorers that are added to samples that are there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_run import small_run

from pipeline import command, iterate, measure
from pipeline.engines.base import Adapter
from pipeline.errors import InputError, RunError
from pipeline.inputs.constitution import load_constitution
from pipeline.runs.files import file_sha256, json_sha256, read_json, read_json_lines
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import SCORES, read_table, write_table
from pipeline.setup.loading import load_session
from pipeline.setup.plan import plan_report
from pipeline.setup.session import Session

FIELDS: dict[str, Any] = {"chunk_rows": 8, "scorers": ["length", "kl"]}


def questions(path: Path, topics: str) -> str:
    rows = [
        {"question": f"{topic} ?", "answer_matching_behavior": "no", "answer_not_matching_behavior": "step"}
        for topic in topics.split()
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"choice:{path}"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose round 0 is measured."""
    folder = tmp_path_factory.mktemp("done")
    measure.main(small_run(folder, **FIELDS))
    return folder / "run"


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(done, tmp_path / "run", symlinks=True))


def scores(run: Path) -> dict[str, dict[tuple[str, int], float]]:
    found: dict[str, dict[tuple[str, int], float]] = {}
    for row in read_table(run / "round-00" / "measure" / "scores.parquet").to_pylist():
        found.setdefault(row["scorer"], {})[row["prompt_id"], row["sample"]] = row["score"]
    return found


def test_the_page_of_a_run_follows_the_scorers_that_are_added(run: Path) -> None:
    page = run / "report.html"
    measure.main(["--run_dir", str(run), "--round", "all"])
    assert not page.exists(), "a run without a page gets none"
    page.write_text("old")
    measure.main(["--run_dir", str(run), "--add_scorers", "loops"])
    assert "</html>" in page.read_text()
    assert ",loops," in (run / "report" / "scores.csv").read_text()


def test_samples_name_the_chat_template_that_they_were_asked_with(done: Path) -> None:
    from pipeline.sandbox.tokenizer import CHAT_TEMPLATE

    manifest = read_json(done / "round-00" / "measure" / "samples.manifest.json")
    assert manifest["chat_template"] == json_sha256(CHAT_TEMPLATE)


def test_scorers_are_added_without_sampling_or_scoring_again(run: Path, tmp_path: Path) -> None:
    folder = run / "round-00" / "measure"
    before, samples = scores(run), file_sha256(folder / "samples.parquet")
    cells = read_json(run / "round-00" / "drift.json")["cells"]
    # Marked, so that a score that is made again would show.
    table = read_table(folder / "scores.parquet")
    marked = table.set_column(5, SCORES.field("score"), pc.add(table["score"], 1000.0))
    write_table(folder / "scores.parquet", [marked], SCORES)

    added = ["--add_scorers", questions(tmp_path / "likes.jsonl", "potion garden king"), "loops"]
    measure.main(["--run_dir", str(run), *added])
    after = scores(run)
    assert list(after) == ["length", "kl", "loops", "choice", "choice.prefers", "choice.neither"]
    for name in before:
        assert after[name] == {key: value + 1000 for key, value in before[name].items()}
    assert len(after["choice"]) == 3 and len(after["loops"]) == 12
    assert file_sha256(folder / "samples.parquet") == samples
    (entry,) = read_json_lines(run / "amendments.jsonl")
    assert entry["reason"] == "scorers were added" and "loops" in entry["changes"][0]
    assert "choice.likes" in {cell["probe_set"] for cell in read_json(run / "round-00" / "drift.json")["cells"]}
    assert {cell["probe_set"] for cell in cells} == {"p"}

    bytes_then = {path: file_sha256(path) for path in run.glob("round-*/**/*.*")}
    measure.main(["--run_dir", str(run), *added])
    assert {path: file_sha256(path) for path in run.glob("round-*/**/*.*")} == bytes_then, "once is enough"
    assert len(read_json_lines(run / "amendments.jsonl")) == 1


def test_a_killed_addition_goes_on_and_gives_the_same_table(
    done: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runs.stage import Stage

    added = [
        "--run_dir",
        str(run),
        "--add_scorers",
        questions(tmp_path / "a.jsonl", "potion garden king tea cat song"),
    ]
    finish = Stage.finish

    def killed(self: Stage, *arguments: Any) -> None:
        if self.name == "score":
            raise KeyboardInterrupt
        finish(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "finish", killed)  # the joined table is written, its manifest is not
        with pytest.raises(KeyboardInterrupt):
            measure.main(added)
    measure.main(added)
    resumed = file_sha256(run / "round-00" / "measure" / "scores.parquet")

    other = Path(shutil.copytree(done, tmp_path / "other", symlinks=True))
    measure.main(["--run_dir", str(other), *added[2:]])
    assert file_sha256(other / "round-00" / "measure" / "scores.parquet") == resumed


def test_an_edited_file_needs_a_reason_and_its_scores_alone_are_made_again(run: Path, tmp_path: Path) -> None:
    entries = [questions(tmp_path / "a.jsonl", "potion garden"), questions(tmp_path / "b.jsonl", "king tea")]
    measure.main(["--run_dir", str(run), "--add_scorers", *entries])
    before = read_table(run / "round-00" / "measure" / "scores.parquet")
    questions(tmp_path / "b.jsonl", "king cat")
    with pytest.raises(RunError, match=r"b\.jsonl: the content changed"):
        measure.main(["--run_dir", str(run), "--round", "all"])
    measure.main(["--run_dir", str(run), "--round", "all", "--amend", "a better question"])
    after = read_table(run / "round-00" / "measure" / "scores.parquet")

    def of(table: pa.Table, probe_set: str) -> list[dict[str, Any]]:
        return list(table.filter(pc.equal(table["probe_set"], probe_set)).to_pylist())

    assert of(after, "choice.a") == of(before, "choice.a") != []
    changed = {row["prompt_id"] for row in of(after, "choice.b")} ^ {
        row["prompt_id"] for row in of(before, "choice.b")
    }
    assert len(changed) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--round", "0", "--add_scorers", "loops"], "leave --round out"),
        (["--scorers", "length", "--add_scorers", "loops"], "--scorers: the run knows its own"),
        (["--add_scorers", "loop"], "did you mean `loops`"),
        (["--add_scorers", "likelihood"], "`batteries` and `likelihood` among the `scorers` need each other"),
    ],
)
def test_what_cannot_be_added_is_said_and_changes_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure.main([*small_run(tmp_path, **FIELDS), *arguments])
    assert not (tmp_path / "run").exists()


def test_a_battery_is_added_with_its_scorer(run: Path) -> None:
    battery = "constitutions/batteries/sandbox/harm.txt"
    measure.main(["--run_dir", str(run), "--add_scorers", "likelihood", "--add_batteries", battery])
    assert {"likelihood.harm", "likelihood.harm.undesired"} <= set(scores(run))


def test_questions_that_all_fail_are_told_of_with_the_reason(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "same.jsonl"
    row = {"question": "a potion ?", "answer_matching_behavior": "no", "answer_not_matching_behavior": "no no"}
    path.write_text(json.dumps(row))
    measure.main(["--run_dir", str(run), "--add_scorers", f"choice:{path}"])
    assert "choice on choice.same: no score for any of 1 (the tokens of one option begin another" in caplog.text
    caplog.clear()
    measure.main(["--run_dir", str(run), "--add_scorers", questions(tmp_path / "fine.jsonl", "potion")])
    assert "choice.fine: no score" not in caplog.text


def open_run(run: Path, *arguments: str) -> Session:
    argv = ["--run_dir", str(run), *arguments]
    return command.open_session(command.parse(argv, command.StageOptions), argv)


def test_the_files_of_scorers_are_inputs_of_the_scores_alone(run: Path, tmp_path: Path) -> None:
    session = open_run(run)
    sampling, scoring = session.settings("measure"), session.settings("measure", scoring=True)
    session.close()
    measure.main(["--run_dir", str(run), "--add_scorers", questions(tmp_path / "a.jsonl", "potion")])
    session = open_run(run)
    assert session.settings("measure") == sampling
    assert session.settings("measure", scoring=True) != scoring
    session.close()


def test_an_amended_constitution_concerns_the_refinements_alone(run: Path, tmp_path: Path, project: Path) -> None:
    constitution = project / "constitutions" / "sandbox" / "full.txt"
    amended = tmp_path / "amended.txt"
    amended.write_text(constitution.read_text(encoding="utf-8") + "\n# reworded\n")
    session = open_run(run)
    groups = [("prompts", "sampling"), ("measure", "sampling"), ("refine", "sampling")]
    before = [session.settings(*those) for those in groups]
    session.constitution = load_constitution(amended)
    del session.__dict__["input_digests"]
    after = [session.settings(*those) for those in groups]
    session.close()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_a_recipe_that_lacks_the_added_scorers_is_refused_with_the_way_on(run: Path, tmp_path: Path) -> None:
    launch = [*small_run(tmp_path, **FIELDS)[:2], "--run_dir", str(run), "--dry_run"]
    for changed in (["--chunk_rows", "4"], ["--scorers", "length", "diversity"]):
        with pytest.raises(RunError, match="started with different settings") as refused:
            iterate.main([*launch, *changed])
        assert "more than this recipe" not in str(refused.value)
    measure.main(["--run_dir", str(run), "--add_scorers", "loops", questions(tmp_path / "a.jsonl", "potion")])
    with pytest.raises(RunError, match=r"started with different settings:\n  scorers: ") as refused:
        iterate.main(launch)
    added = f"loops, choice:{tmp_path / 'a.jsonl'}"
    assert f"The run has more than this recipe (scorers: {added}), as after `measure.py --add_scorers`" in str(
        refused.value
    )
    assert f"give `--run_dir {run}` alone, or add this to the recipe" in str(refused.value)
    iterate.main(launch[2:])
    small_run(tmp_path, **FIELDS | {"scorers": [*FIELDS["scorers"], *added.split(", ")]})
    iterate.main(launch)


def test_files_of_one_name_and_missing_ones_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    entries = [questions(tmp_path / "a.jsonl", "potion"), questions(tmp_path / "more" / "a.jsonl", "king")]
    with pytest.raises(InputError, match=r"two files define the question set `choice\.a`; rename one"):
        measure.main(["--run_dir", str(run), "--add_scorers", *entries])
    with pytest.raises(InputError, match=r"scorers: no file `gone\.jsonl`"):
        measure.main(["--run_dir", str(run), "--add_scorers", "choice:gone.jsonl"])
    assert not (run / "amendments.jsonl").exists()


def test_questions_alone_are_a_recipe_and_are_no_alarms(tmp_path: Path) -> None:
    entry = questions(tmp_path / "likes.jsonl", "potion garden king")
    argv = small_run(tmp_path, scorers=[entry])
    assert "questions     choice.likes 3; read, not sampled" in plan_report(
        load_session(command.parse(argv, command.StageOptions))
    )
    iterate.main(argv)
    assert read_json(tmp_path / "run" / "round-00" / "drift.json")["headline"] == "choice"
    assert read_json(tmp_path / "run" / "round-00" / "alarm.json")["properties"] == []
    with pytest.raises(InputError, match="alarm_scorers: `choice` has questions of its own"):
        iterate.main([*argv, "--alarm_scorers", "choice"])


def test_the_headline_is_a_score_of_sampled_answers_where_there_is_one(tmp_path: Path) -> None:
    entry = questions(tmp_path / "likes.jsonl", "potion")
    argv = small_run(tmp_path, scorers=[entry, "length"])
    session = load_session(command.parse(argv, command.StageOptions))
    assert session.headline == "length"
    assert session.question_columns == {name for name in session.columns if name != "length"}


def test_rounds_with_other_files_behind_a_score_are_not_compared(
    run: Path, tmp_path: Path, make_adapter: Callable[[int], Adapter]
) -> None:
    asked = questions(tmp_path / "asked.jsonl", " ".join(f"topic{i}" for i in range(12)))
    measure.main(["--run_dir", str(run), "--add_scorers", asked])
    questions(tmp_path / "asked.jsonl", " ".join(f"other{i}" for i in range(12)))
    shutil.copytree(make_adapter(1).path, RunDir(run).adapter_dir(1))
    argv = ["--run_dir", str(run), "--num_rounds", "1"]
    session = command.open_session(command.parse([*argv, "--amend", "better questions"], command.StageOptions), argv)
    try:
        with pytest.raises(RunError, match=r"round 0 was scored with other files .* choice:.*--round all"):
            measure.run(session, 1)
        assert not session.run.drift(1).exists()
        measure.run(session, 0, rescore=True)
        with pytest.raises(RunError, match=r"train\.parquet: missing"):  # what comes next: nothing was trained here
            measure.run(session, 1)
    finally:
        session.close()
