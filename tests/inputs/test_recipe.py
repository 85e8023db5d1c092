import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from pipeline.errors import InputError
from pipeline.inputs import recipe as recipe_module
from pipeline.inputs.recipe import UNRESOLVED, diff_resolved, fit_to_machine, parse_recipe

MINIMAL = "model_name_or_path: sandbox\nconstitution: c.txt\n"


@dataclass
class Options:
    """Iterates."""

    dry_run: bool = False
    amend: str | None = None


@pytest.fixture(autouse=True)
def restore_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture
def write(tmp_path):
    def write(text, name="x.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def parse(path, *argv, **keywords):
    return parse_recipe(["--config", str(path), *argv], default_config=None, **keywords)


def test_three_levels_of_precedence(write):
    path = write(MINIMAL + "num_rounds: 5\nlora_r: 4\nlearning_rate: 1e-3\n")
    parsed = parse(path, "--num_rounds", "7", "--seed", "9")
    assert (parsed.recipe.num_rounds, parsed.recipe.chunk_rows) == (7, 512)
    assert (parsed.model.lora_r, parsed.model.lora_alpha) == (4, 32)
    assert (parsed.training.learning_rate, parsed.training.seed) == (1e-3, 9)
    assert parsed.given == {
        "model_name_or_path": "sandbox",
        "constitution": "c.txt",
        "num_rounds": 7,
        "lora_r": 4,
        "learning_rate": 1e-3,
        "seed": 9,
    }
    assert parsed.source == path


def test_valid_input_means_what_it_means_to_trl(write):
    from trl import ModelConfig, SFTConfig, TrlParser

    text = """
use_cpu: true
bf16: 'no'
learning_rate: 1e-4
warmup_steps: 0.1
num_train_epochs: 2
optim: sgd
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
lora_target_modules: [q_proj, v_proj]
use_peft: true
dtype: bfloat16
max_length: null
report_to: none
save_strategy: "no"
pad_to_multiple_of: 8
model_init_kwargs: {use_kernels: false}
activation_checkpointing: false
"""
    flags = ["--lora_r", "4", "--packing", "--lora-target-modules", "q_proj", "--eval_strategy", "epoch"]
    flags += ["--max_steps", "-1", "--neftune_noise_alpha", "5", "--fsdp_config", '{"min_num_params": 2000}']
    theirs_model, theirs = TrlParser([ModelConfig, SFTConfig]).parse_args_and_config(
        ["--config", str(write(text, "theirs.yaml")), *flags]
    )
    ours = parse(write(MINIMAL + text), *flags)
    theirs_model.model_name_or_path = "sandbox"
    assert ours.model == theirs_model
    assert ours.training.to_dict() == theirs.to_dict()
    assert ours.training.fsdp_config["min_num_params"] == 2000


def test_default_config_and_equals_sign(write):
    default, other = write(MINIMAL + "num_rounds: 1"), write(MINIMAL + "num_rounds: 2", "other.yaml")
    assert parse_recipe([], default_config=default).recipe.num_rounds == 1
    assert parse_recipe([f"--config={other}"], default_config=default).recipe.num_rounds == 2
    with pytest.raises(InputError, match="--config expects one file, found 2"):
        parse_recipe(["--config", "a", "b"], default_config=default)


def test_run_dir_has_the_name_of_the_recipe(write):
    assert parse(write(MINIMAL, "demo/config.yaml")).recipe.run_dir == "runs/demo"
    assert parse(write(MINIMAL, "demo/blind-spot.yaml")).recipe.run_dir == "runs/blind-spot"
    assert parse(write(MINIMAL), "--run_dir", "elsewhere").recipe.run_dir == "elsewhere"


def test_options_stand_on_the_command_line_only(write):
    parsed = parse(write(MINIMAL), "--dry-run", "--amend", "a longer run", command=Options)
    assert parsed.options == Options(dry_run=True, amend="a longer run")
    assert "dry_run" not in parsed.resolved
    assert parse(write(MINIMAL)).options is None
    with pytest.raises(InputError, match=r"x\.yaml:3: `dry_run` is a flag of the command, not a key of a recipe"):
        parse(write(MINIMAL + "dry_run: true"), command=Options)
    with pytest.raises(InputError, match="unknown flag `--dry_run`"):
        parse(write(MINIMAL), "--dry_run")


def test_every_mistake_with_its_line(write):
    path = write(MINIMAL + "top_p: 3\ntemprature: 1\nlora_r: 2.7\nhelpful_fraction: 0.5\nseed: null\n")
    with pytest.raises(InputError) as raised:
        parse(path, "--chunk_rows", "0")
    assert str(raised.value).replace(str(path), "x.yaml").splitlines() == [
        "x.yaml:3: `top_p` must be above 0 and at most 1, found 3.0",
        "x.yaml:4: unknown key `temprature`; did you mean `temperature`?",
        "x.yaml:5: `lora_r` expects an integer, found `2.7`",
        "x.yaml:6: `helpful_fraction` needs `helpful_prompts`, the prompts of the helpful examples",
        "x.yaml:7: `seed` expects an integer, found `null`",
        "command line: `chunk_rows` must be at least 1, found 0",
    ]


def test_what_must_be_given(write):
    with pytest.raises(InputError) as raised:
        parse(write("num_rounds: 1"))
    assert [line.split("`")[1] for line in str(raised.value).splitlines()] == [
        "constitution",
        "model_name_or_path",
        "prompts",
    ]
    with pytest.raises(InputError, match="`prompts` is missing"):
        parse(write("model_name_or_path: org/name\nconstitution: c.txt"))
    with pytest.raises(InputError, match="`--run_dir` is missing"):
        parse_recipe(["--model_name_or_path", "sandbox", "--constitution", "c"], default_config=None)


def test_refusals_of_trl_are_input_errors(write):
    with pytest.raises(InputError, match=r"x\.yaml: ModelConfig refuses .*8 bit and 4 bit"):
        parse(write(MINIMAL + "load_in_8bit: true\nload_in_4bit: true"))
    with pytest.raises(InputError, match=r"x\.yaml: SFTConfig refuses .*warmup_steps"):
        parse(write(MINIMAL + "warmup_steps: -1"))


def test_env_of_the_gpus_comes_too_late(write):
    with pytest.raises(InputError, match=r"x\.yaml:\d+: `env`: CUDA_VISIBLE_DEVICES comes too late, "):
        parse(write(MINIMAL + "env: {CUDA_VISIBLE_DEVICES: '1'}"))


def test_env_is_set(write):
    parse(write(MINIMAL + "env: {DRIFT_TEST_FLAG: 1}"))
    assert os.environ["DRIFT_TEST_FLAG"] == "1"


def test_resolved_is_everything_as_asked_for(write):
    parsed = parse(write(MINIMAL), "--hub_token", "secret", "--lr_scheduler_kwargs", '{"num_cycles": 1}')
    names = {name for group in (parsed.recipe, parsed.model, parsed.training) for name in group.__dataclass_fields__}
    assert parsed.resolved.keys() == names - UNRESOLVED
    assert names >= UNRESOLVED
    assert list(parsed.resolved) == sorted(parsed.resolved)
    assert json.loads(json.dumps(parsed.resolved, allow_nan=False)) == parsed.resolved
    assert "secret" not in json.dumps(parsed.resolved)
    assert parsed.resolved["report_to"] == "none"
    parsed.training.lr_scheduler_kwargs.clear()
    assert parsed.resolved["lr_scheduler_kwargs"] == parsed.given["lr_scheduler_kwargs"] == {"num_cycles": 1}
    # What the machine decides stays out: these are the defaults as written.
    assert (parsed.resolved["bf16"], parsed.resolved["use_cpu"]) == (None, False)


def test_resolved_does_not_depend_on_spelling_place_or_machine(write, monkeypatch):
    one = parse(write(MINIMAL + "learning_rate: 1e-4\nnum_train_epochs: 2\nscorers: gold"))
    monkeypatch.setattr(
        recipe_module, "fit_to_machine", lambda values, given: {**values, "use_cpu": True, "bf16": True}
    )
    argv = [
        "--num_train_epochs",
        "2.0",
        "--learning-rate",
        "0.0001",
        "--scorers",
        "gold",
        "--run_dir",
        "there",
    ]
    assert parse(write(MINIMAL, "other.yaml"), *argv).resolved == one.resolved


@pytest.mark.parametrize(
    ("accelerator", "bf16", "environment", "given", "expected"),
    [
        (False, False, {}, {}, (True, False)),
        (False, False, {}, {"bf16": True}, (True, True)),
        (False, False, {}, {"use_cpu": False}, (False, False)),
        (True, True, {}, {}, (False, None)),
        (True, False, {}, {}, (False, False)),
        (True, True, {}, {"use_cpu": True}, (True, False)),
        (True, True, {"ACCELERATE_USE_CPU": "true"}, {}, (True, False)),
        (False, False, {"ACCELERATE_USE_DEEPSPEED": "true"}, {}, (False, False)),
    ],
)
def test_fit_to_machine(monkeypatch, accelerator, bf16, environment, given, expected):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: accelerator)
    monkeypatch.setattr("transformers.utils.is_torch_bf16_gpu_available", lambda: bf16)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # of the launch configuration
    values = {"use_cpu": False, "bf16": None, "fp16": False, "deepspeed": None, **given}
    fitted = fit_to_machine(values, given)
    assert (fitted["use_cpu"], fitted["bf16"]) == expected
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == ("no" if expected[1] is False else "bf16")
    assert values == {"use_cpu": False, "bf16": None, "fp16": False, "deepspeed": None, **given}


def test_parsing_writes_nothing(write, tmp_path, monkeypatch):
    path = write(MINIMAL)
    monkeypatch.chdir(tmp_path)
    parse(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.yaml"]


@pytest.mark.filterwarnings("error:.gradient_checkpointing")
def test_gradient_checkpointing_in_either_name(write):
    assert parse(write(MINIMAL)).training.activation_checkpointing is True
    assert parse(write(MINIMAL), "--gradient_checkpointing", "no").training.activation_checkpointing is False
    assert parse(write(MINIMAL), "--activation_checkpointing", "no").training.gradient_checkpointing is False


def test_diff_is_one_readable_line_a_field():
    old = {"learning_rate": 0.0002, "dtype": "bfloat16", "same": [1], "gone": None, "flag": True}
    new = {"learning_rate": 0.001, "dtype": None, "same": [1], "new": "x", "flag": 1}
    assert diff_resolved(old, new) == [
        'dtype: "bfloat16" -> null',
        "flag: true -> 1",
        "gone: null -> (no such field)",
        "learning_rate: 0.0002 -> 0.001",
        'new: (no such field) -> "x"',
    ]
    assert diff_resolved(old, old) == []


def test_help_is_fast_and_complete():
    code = (
        "import sys; from pipeline.inputs.recipe import parse_recipe\n"
        "try: parse_recipe(sys.argv[1:], default_config=None)\n"
        "finally: print([name for name in ('torch', 'trl') if name in sys.modules], file=sys.stderr)"
    )
    seconds = []
    for flag in ("--help", "-h", "--help"):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        assert done.stderr.strip() == "[]"
        assert "--help_all" in done.stdout
    assert min(seconds) < 1
    for name in recipe_module.Recipe.__dataclass_fields__:
        assert f"\n  --{name}\n" in done.stdout
    assert "Longest response, in tokens. Takes an integer; default 256." in done.stdout


def test_help_all_lists_trl_and_the_command(capsys):
    with pytest.raises(SystemExit) as raised:
        parse_recipe(["--help_all"], default_config=None, command=Options)
    assert raised.value.code == 0
    out = capsys.readouterr().out
    for text in (
        "Iterates.",
        "(command line only):\n  --dry_run",
        "\nSFTConfig:",
        "\nModelConfig:",
        "--adam_beta2",
    ):
        assert text in out
    assert "%%" not in out
