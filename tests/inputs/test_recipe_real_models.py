"""The recipes for real models, as far as they can be tried without the Hub: on real files laid out as there."""

from __future__ import annotations

import gzip
import json
import os
from itertools import cycle
from pathlib import Path

import pytest

from pipeline.inputs.launch import check_launch, this_launch
from pipeline.inputs.recipe import parse_recipe
from pipeline.setup.loading import load_session
from pipeline.setup.plan import plan_report

ROOT = Path(__file__).parents[2]
REAL = sorted(path.parent.name for path in ROOT.glob("recipes/*/config.yaml") if "sandbox" not in path.parent.name)


@pytest.fixture
def hub(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which `datasets` finds hh-rlhf and XSTest by their Hub ids, with fewer dialogues."""
    with gzip.open(shared_data / "hh_rlhf" / "harmless-base-test.jsonl.gz", "rt") as lines:
        dialogues = [json.loads(line)["chosen"] for line in lines]
    hh = tmp_path / "Anthropic" / "hh-rlhf"
    for name in ("red-team-attempts", "helpful-base"):
        (hh / name).mkdir(parents=True)
    # As many rows as there are on the Hub; the tag tells repeated dialogues apart.
    attempts = [
        {"transcript": text.replace("\n\nHuman: ", f"\n\nHuman: ({i // len(dialogues)}) ", 1), "rating": 4.0}
        for i, text in zip(range(38_961), cycle(dialogues), strict=False)
    ]
    (hh / "red-team-attempts" / "red_team_attempts.jsonl").write_text(json.dumps(attempts))
    helpful = [json.dumps({"chosen": text, "rejected": text}) for text in reversed(dialogues)]
    for split in ("train", "test"):
        (hh / "helpful-base" / f"{split}.jsonl").write_text("\n".join(helpful))
    (tmp_path / "Paul" / "XSTest").mkdir(parents=True)
    prompts = (shared_data / "xstest" / "xstest_prompts.csv").read_bytes()
    (tmp_path / "Paul" / "XSTest" / "xstest_prompts.csv").write_bytes(prompts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def test_there_are_some() -> None:
    assert len(REAL) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_plan_of_a_recipe(name: str, hub: Path) -> None:
    # vLLM is in no environment of these tests.
    words = ["--config", str(ROOT / "recipes" / name / "config.yaml"), "--policy_engine", "local"]
    parsed = parse_recipe(words, default_config=None)
    check_launch(this_launch(parsed.training), parsed.model)
    session = load_session(parsed)
    report = plan_report(session)
    assert len(session.prompts.prompts) == session.recipe.max_prompts
    assert len(session.probe_sets["look_alike"].prompts) == 250
    assert session.helpful_prompts is not None
    assert {"calibration", "reserve"} == set(session.alarm_prompts)
    asked = [session.probe_sets["red_team"], *session.alarm_prompts.values(), session.prompts]
    ids = [prompt.id for loaded in asked for prompt in loaded.prompts]
    assert len(ids) == len(set(ids)), "no prompt is in two sets"
    assert "in all at most" in report


def test_the_template_without_thinking_keeps_prompts_as_prefixes(shared_data: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "minueza-chat")  # ChatML, as Qwen3's
    template = ROOT / "constitutions" / "templates" / "chat_qwen3_no_thinking.jinja"
    tokenizer.chat_template = template.read_text()
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "d"}], tokenize=False)
    assert whole == f"{prompt}d<|im_end|>\n"
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
