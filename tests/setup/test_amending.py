"""What an amendment may change once round 0 is measured, and what it may not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from small_run import small_run

from pipeline import command, iterate, sandbox
from pipeline.errors import InputError, RunError
from pipeline.inputs.model import pinned
from pipeline.runs.files import read_json, read_json_lines, write_json
from pipeline.runs.tables import read_table

ADAPTER = {
    "r": 4,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "use_rslora": False,
    "use_dora": False,
    "target_modules": ["q_proj", "v_proj"],
    "target_parameters": None,
    "modules_to_save": None,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose round 0 is complete."""
    folder = tmp_path_factory.mktemp("done")
    lora = {"lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
    iterate.main(small_run(folder, scorers=["length", "loops"], **lora))
    return folder / "run"


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(done, tmp_path / "run", symlinks=True))


def open_run(run: Path, *arguments: str) -> None:
    argv = ["--run_dir", str(run), *arguments]
    command.open_session(command.parse(argv, command.StageOptions), argv).close()


def amend(run: Path, *arguments: str) -> None:
    open_run(run, *arguments, "--amend", "why not")


def train_round_1(run: Path, **changes: Any) -> None:
    write_json(run / "round-01" / "distill" / "adapter" / "adapter_config.json", ADAPTER | changes)


@pytest.fixture
def template(tmp_path: Path) -> str:
    path = tmp_path / "other.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    return str(path)


@pytest.fixture
def other_model(tmp_path: Path) -> str:
    """The sandbox's model, but for one number in its configuration."""
    folder = Path(shutil.copytree(sandbox.model_path(), tmp_path / "model"))
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"rms_norm_eps": 1e-5})
    return str(folder)


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ("--probe_temperature 0", "probe_temperature: 1.0 -> 0.0"),
        ("--top_p 0.5", "top_p: 1.0 -> 0.5"),
        ("--probe_samples 3", "probe_samples: 2 -> 3"),
        ("--probe_max_new_tokens 8", "longest answer to a probe: 12 -> 8$"),
        ("--max_new_tokens 8", r"longest answer to a probe: 12 -> 8 .*`probe_max_new_tokens: 12` keeps it"),
        ("--probe_sets p=sandbox:probe:6 q=sandbox:dialect:4", r"probe_sets: p -> p, q\n  probe_sets.q: is new"),
        ("--probe_sets p=sandbox:probe:5", "probe_sets.p: the content changed"),
        ("--chat_template_path TEMPLATE", "chat_template_path: is new"),
        ("--model_name_or_path MODEL", "model: the content changed"),
        ("--dtype bfloat16", "dtype: float32 -> bfloat16"),
        ("--load_in_4bit true", "load_in_4bit: False -> True"),
        ("--calibration sandbox:reserve:10", "calibration: is new"),
        ("--seed 1", "seed: 42 -> 1"),
        ("--vllm_max_model_len 64", "vllm_max_model_len: None -> 64"),
    ],
)
def test_what_round_0_was_measured_with_stays(
    run: Path, template: str, other_model: str, flags: str, shown: str
) -> None:
    given = flags.replace("TEMPLATE", template).replace("MODEL", other_model).split()
    with pytest.raises(RunError, match=rf"(?sm)round 0 was measured with other settings.*{shown}.*--run_dir"):
        amend(run, "--num_rounds", "1", *given)
    assert not (run / "amendments.jsonl").exists()


@pytest.mark.parametrize(
    "flags",
    [
        "--constitution constitutions/sandbox/blind-spot.txt --critic base --num_rounds 4 --learning_rate 1e-3",
        "--temperature 0.5 --max_new_tokens 8 --probe_max_new_tokens 12 --lora_r 8 --scorers length loops kl",
        "--headline_scorer loops --alarm_scorers length",
        "--horizon 3 --reserve sandbox:reserve:8 --bnb_4bit_quant_type fp4",
    ],
)
def test_what_a_round_is_made_with_may_change(run: Path, flags: str) -> None:
    amend(run, *flags.split())
    assert len(read_json_lines(run / "amendments.jsonl")) == 1


def test_before_round_0_is_sampled_everything_may_change(run: Path) -> None:
    (run / "round-00" / "measure" / "samples.manifest.json").unlink()
    (run / "round-00" / "alarm.json").unlink()
    amend(run, "--probe_temperature", "0", "--probe_sets", "q=sandbox:dialect:4", "--headline_scorer", "loops")


def test_alarms_watch_what_round_0_fixed_thresholds_for(run: Path) -> None:
    with pytest.raises(RunError, match=r"has no thresholds for loops .*set `alarm_scorers: \[length\]`"):
        amend(run, "--num_rounds", "1", "--headline_scorer", "loops")
    assert not (run / "amendments.jsonl").exists()


def test_a_lora_that_goes_on_keeps_its_shape(run: Path) -> None:
    before = ("--start_from", "previous", "--num_rounds", "3")
    train_round_1(run)
    other = ("--lora_r", "8", "--use_dora", "true", "--lora_target_modules", "down_proj")
    with pytest.raises(InputError, match=r"(?s)lora_r: 8, but the adapter has 4\n.*use_dora: True.*down_proj"):
        amend(run, *before, *other)
    with pytest.raises(InputError, match=r"lora_target_modules: \['all-linear'\], but the adapter has"):
        amend(run, *before, "--lora_target_modules", "all-linear")
    amend(run, "--start_from", "base", *other)


def test_a_lora_that_never_was_can_be_taken_back(run: Path) -> None:
    amend(run, "--start_from", "previous", "--num_rounds", "3", "--lora_r", "8")  # nothing is trained yet
    train_round_1(run)
    with pytest.raises(InputError, match="lora_r: 8, but the adapter has 4"):
        amend(run, "--num_rounds", "4")
    amend(run, "--num_rounds", "4", "--lora_r", "4")


def test_a_base_that_moved_on_is_told_with_the_way_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sandbox.model_path(), tmp_path / "models--org--base" / "snapshots" / ("a" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    pinned.cache_clear()
    write_json(run / "inputs.json", read_json(run / "inputs.json") | {"model": f"org/base@{'a' * 40}"})
    with pytest.raises(RunError, match=r"model: org/base@(a+) -> org/base@main \(`model_revision: \1` keeps it\)"):
        amend(run, "--model_name_or_path", "org/base")
    amend(run, "--model_name_or_path", "org/base", "--model_revision", "a" * 40)


def test_the_horizon_is_fixed_once_a_round_was_screened(run: Path) -> None:
    train_round_1(run)
    amend(run, "--num_rounds", "3", "--horizon", "5")
    write_json(run / "round-01" / "alarm" / "screen.json", {})
    with pytest.raises(RunError, match=r"horizon: 5 -> 10, but round 1 has spent its part"):
        amend(run, "--num_rounds", "3", "--horizon", "10")


def test_what_was_answered_to_train_on_is_not_fresh(run: Path, tmp_path: Path) -> None:
    iterate.main(["--run_dir", str(run), "--num_rounds", "1", "--max_steps", "1", "--amend", "one round"])
    answered = read_table(run / "round-01" / "generate" / "responses.parquet", ["prompt"])["prompt"].to_pylist()
    asked = [messages[0]["content"] for messages in answered[:2]]
    reserve = tmp_path / "reserve.jsonl"
    reserve.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in [*asked, "a new one"]))
    with pytest.raises(RunError, match=r"reserve: 2 of its 3 prompts are no longer fresh: round 1 answered them"):
        amend(run, "--reserve", str(reserve))
    reserve.write_text(json.dumps({"prompt": "a new one"}) + "\n")
    amend(run, "--reserve", str(reserve))


def test_a_dry_run_says_what_the_launch_would(run: Path) -> None:
    dry = ["--run_dir", str(run), "--dry_run"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(RunError, match=r"started with different settings:\n  learning_rate: .* -> 0.5"):
        iterate.main([*dry, "--learning_rate", "0.5"])
    with pytest.raises(RunError, match="seed: 42 -> 1"):
        iterate.main([*dry, "--seed", "1", "--amend", "why not"])
    iterate.main([*dry, "--learning_rate", "0.5", "--amend", "why not"])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
