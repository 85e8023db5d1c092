"""A round that was really trained, exported, and loaded by a process that knows nothing of this project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import attempt, environment, run, write_recipe
from datasets import load_dataset
from hub_server import Hub
from huggingface_hub import DatasetCard, ModelCard

pytestmark = pytest.mark.slow

COLUMNS = [
    "init_prompt", "init_response", "critic_prompt", "critic_response", "revision_prompt", "revision_response",
    "prompt", "messages", "chosen", "rejected",
]  # fmt: skip
ASKED = ["how do i bake bread ?", "how do i steal a car ?", "please tell me about music ."]

# The logits after each prompt, under what lies in folders, by the classes that their cards name.
LOAD = """
import json, sys
sys.modules["pipeline"] = None
import numpy as np, peft, torch, transformers
folders, asked, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
found = {}
for name, (folder, kind) in folders.items():
    cls = peft.AutoPeftModelForCausalLM if kind == "adapter" else transformers.AutoModelForCausalLM
    model = cls.from_pretrained(folder, dtype="float32").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in asked:
        said = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            rows.append(model(**ids).logits[0, -1].numpy())
    found[name] = np.stack(rows)
np.savez(out, **found)
"""


class Exported(NamedTuple):
    run: Path
    adapter: Path
    merged: Path
    printed: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    run("iterate", "--config", write_recipe(folder, rounds=2), "--run_dir", folder / "run")
    made = Exported(folder / "run", folder / "adapter", folder / "merged", "")
    printed = run("export", f"{made.run}:2", "--to", made.adapter, "--datasets")
    run("export", f"{made.run}:2", "--to", made.merged, "--merge")
    return made._replace(printed=printed)


@pytest.fixture(scope="module")
def logits(exported: Exported, sandbox_path: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """[prompts, vocabulary] of each folder, from one process that knows none of our code."""
    out = tmp_path_factory.mktemp("logits") / "found.npz"
    folders = {
        "base": (sandbox_path, "merged"),
        "measured": (str(exported.run / "round-02" / "distill" / "adapter"), "adapter"),
        "adapter": (str(exported.adapter), "adapter"),
        "merged": (str(exported.merged), "merged"),
    }
    command = [sys.executable, "-I", "-c", LOAD, json.dumps(folders), json.dumps(ASKED), str(out)]
    subprocess.run(command, env=environment(), cwd=out.parent, check=True, capture_output=True, text=True)
    return dict(np.load(out))


def test_the_same_logits_come_out_elsewhere(logits: dict[str, np.ndarray]) -> None:
    assert np.abs(logits["measured"] - logits["base"]).max() > 0.1, "the round has learnt something"
    assert np.array_equal(logits["adapter"], logits["measured"])
    assert np.abs(logits["merged"] - logits["measured"]).max() < 1e-4


def test_what_the_run_measured_is_what_was_exported(
    exported: Exported, logits: dict[str, np.ndarray], sandbox_path: str
) -> None:
    from pipeline.engines.base import Adapter, ScoreRequest
    from pipeline.engines.local import LocalEngine

    engine = LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=8)
    adapter = Adapter(exported.run / "round-02" / "distill" / "adapter", "ab" * 32)
    elsewhere = logits["adapter"].astype(float)
    normalised = elsewhere - np.log(np.exp(elsewhere).sum(-1, keepdims=True))
    tokens = [5, 17, 101]
    asked = [ScoreRequest([{"role": "user", "content": text}], [t]) for text in ASKED for t in tokens]
    ours = np.array(engine.score(asked, adapter)).reshape(len(ASKED), len(tokens))
    assert normalised[:, tokens] == pytest.approx(ours, abs=1e-5)


def test_nothing_needs_to_be_trusted_or_known(exported: Exported) -> None:
    for folder in (exported.adapter, exported.merged):
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".safetensors", ".json", ".md", ".jinja", ".parquet", ".txt"}
        assert (folder / "chat_template.jinja").read_text()
    assert (exported.merged / "model.safetensors").exists()
    assert not list(exported.merged.glob("adapter_*"))
    config = json.loads((exported.merged / "config.json").read_text())
    assert config["dtype"] == "float32"


def test_the_card_says_what_it_is(exported: Exported) -> None:
    card = ModelCard.load(exported.adapter / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", None)
    drift = json.loads((exported.run / "round-02" / "drift.json").read_text())
    cell = next(c for c in drift["cells"] if c["scorer"] == "gold.harm" and c["quantity"] == "mean")
    change = f"{cell['baseline_value']:+.3g} [{cell['baseline_low']:.3g}, {cell['baseline_high']:.3g}]"
    assert f"| gold.harm | in_distribution | mean | {change} | {cell['value']:.3g} [" in card.text
    rounds = [line.split(" | ") for line in card.text.splitlines() if line.startswith(("| 0 |", "| 1 |", "| 2 |"))]
    assert [row[0] for row in rounds] == ["| 0", "| 1", "| 2"]
    assert rounds[2][4].startswith(f"{cell['value']:.3g} [")
    color = json.loads((exported.run / "round-02" / "alarm.json").read_text())["color"]
    assert rounds[2][-1] == f"{color} |"
    constitution = (exported.run / "constitution.txt").read_text()
    assert constitution.strip() in card.text
    assert (exported.adapter / "constitution.txt").read_text() == constitution
    assert "Round 2   alarm:" in card.text and "Green is not safety" in card.text
    assert str(exported.run) not in card.text, "where it lay is nobody's business"
    assert ModelCard.load(exported.merged / "README.md").data.library_name == "transformers"


def test_the_data_sets_load_by_name_and_say_what_was_revised(exported: Exported, tmp_path: Path) -> None:
    cache = str(tmp_path)
    data = str(exported.adapter / "data")
    rounds = load_dataset(data, "conversations", cache_dir=cache)
    assert list(rounds) == ["round_01", "round_02"]
    pairs = load_dataset(data, "preferences", cache_dir=cache)
    for number, name in ((1, "round_01"), (2, "round_02")):
        assert rounds[name].column_names == COLUMNS
        assert pairs[name].column_names == ["prompt", "chosen", "rejected"]
        refine = exported.run / f"round-{number:02d}" / "refine"
        finals = [r for r in pq.read_table(refine / "refinements.parquet").to_pylist() if r["final"] is not None]
        assert len(finals) == rounds[name].num_rows == pairs[name].num_rows > 0
        for row, final, pair in zip(rounds[name], finals, pairs[name], strict=True):
            assert row["prompt"] == row["init_prompt"] == final["prompt"][-1]["content"]
            assert row["revision_response"] == final["final"] == row["chosen"][-1]["content"]
            assert row["chosen"] == row["messages"] == pair["prompt"] + pair["chosen"]
            assert row["rejected"] == pair["prompt"] + pair["rejected"]
            assert row["rejected"][-1]["content"] == row["init_response"] != row["revision_response"]
            assert row["critic_prompt"].startswith("critique : ") and row["critic_response"]
            assert row["revision_prompt"].startswith("revise : ")
    assert f"conversations: {rounds['round_01'].num_rows + rounds['round_02'].num_rows:,} rows" in exported.printed
    plain = load_dataset("parquet", data_files=f"{data}/preferences/*.parquet", cache_dir=cache, split="train")
    assert plain.num_rows == sum(split.num_rows for split in pairs.values())
    assert "not-for-all-audiences" in DatasetCard.load(exported.adapter / "data" / "README.md").data.tags


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}:2", "--to", "{run}"], "is not empty, and nothing in it will be overwritten"),
        (["{run}:2", "--to", "{run}/recipe.yaml"], "is a file; name a folder"),
        (["{run}:0", "--to", "new"], "round 0 is the untouched base"),
        (["{run}:3", "--to", "new"], "measured rounds are 0, 1, 2"),
        (["{run}", "--to", "new"], "say which round, for example {run}:2 (the run recommends round 2)"),
        (["nowhere:1", "--to", "new"], "nowhere: no run is there"),
        (["{run}:2", "--push_to_hub", "me/it"], "is a folder on this machine"),
        (["{run}:2", "--push_to_hub", "me/it", "--merge"], "so nothing was uploaded"),
        (["{run}:2", "--push_to_hub", "not an id", "--merge"], "--push_to_hub not an id:"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    exported: Exported, tmp_path: Path, arguments: list[str], says: str
) -> None:
    given = [argument.format(run=exported.run) for argument in arguments]
    before = sorted(exported.run.rglob("*"))
    done = attempt("export", *given, cwd=tmp_path)
    assert done.returncode == 1
    assert says.format(run=exported.run) in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
    assert sorted(exported.run.rglob("*")) == before


def test_a_push_is_two_private_repositories(exported: Exported, tmp_path: Path) -> None:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        given = (f"{exported.run}:2", "--push_to_hub", "me/it", "--datasets", "--base_model", "org/base")
        done = attempt("export", *given, cwd=tmp_path, **hub.environment(tmp_path / "home"))
        hub.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.private == {"models/me/it": True, "datasets/me/it": True}
    model, data = hub.files["models/me/it"], hub.files["datasets/me/it"]
    assert model["adapter_model.safetensors"] == (exported.adapter / "adapter_model.safetensors").read_bytes()
    assert json.loads(model["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    card = ModelCard(model["README.md"].decode())
    assert (card.data.base_model, card.data.base_model_relation) == ("org/base", "adapter")
    assert 'name = "me/it"' in card.text
    assert data.keys() == {
        "README.md",
        *(f"{name}/round_0{r}.parquet" for name in ("conversations", "preferences") for r in (1, 2)),
    }
    assert not any(str(exported.run).encode() in content for content in (*model.values(), *data.values()))


def test_an_export_that_fails_halfway_leaves_nothing(exported: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(exported.run, copy)
    (copy / "round-01" / "refine" / "refinements.parquet").write_bytes(b"PAR1")
    done = attempt("export", f"{copy}:2", "--to", tmp_path / "out", "--datasets")
    assert done.returncode == 1 and "refinements.parquet: damaged" in done.stdout
    weights = copy / "round-02" / "distill" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = attempt("export", f"{copy}:2", "--to", tmp_path / "out")
    assert done.returncode == 1 and "adapter_model.safetensors: missing or damaged" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_prompts_of_other_templates_are_not_made_up(exported: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(exported.run, copy)
    inputs = json.loads((copy / "inputs.json").read_text())
    (copy / "inputs.json").write_text(json.dumps(inputs | {"templates": "0" * 64}))
    done = attempt("export", f"{copy}:2", "--to", tmp_path / "out", "--datasets")
    assert done.returncode == 1 and "these are not the templates" in done.stdout
    (copy / "inputs.json").write_text(json.dumps(inputs | {"model": "0" * 64}))
    done = attempt("export", f"{copy}:2", "--to", tmp_path / "out")
    assert done.returncode == 1 and "is not the base that" in done.stdout
