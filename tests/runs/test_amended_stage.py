"""A stage that was cut short, and goes on under an amended recipe: one table is never of two settings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline import command, generate
from pipeline.engines.local import LocalEngine
from pipeline.runs.tables import read_table
from pipeline.setup.session import Session

RECIPE = {
    "model_name_or_path": "sandbox",
    "dtype": "float32",
    "num_rounds": 1,
    "constitution": "constitutions/sandbox/full.txt",
    "templates": "constitutions/templates/sandbox",
    "prompts": "sandbox:train:24",
    "max_new_tokens": 32,
    "samples_per_prompt": 1,
    "temperature": 1.0,
    "chunk_rows": 8,
    "probe_sets": "[p=sandbox:probe:8]",
    "scorers": "[length]",
}


def open_run(folder: Path, *arguments: str, **changes: Any) -> Session:
    path = folder / "recipe.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in (RECIPE | changes).items()))
    argv = ["--config", str(path), "--run_dir", str(folder / "run"), *arguments]
    return command.open_session(command.parse(argv, command.StageOptions), argv)


def responses(session: Session) -> list[dict[str, Any]]:
    generate.run(session, 1)
    session.close()
    return read_table(session.run.stage_dir(1, "generate") / "responses.parquet").to_pylist()


@pytest.mark.parametrize(
    "changes",
    [{"max_new_tokens": 3}, {"temperature": 0.0}, {"samples_per_prompt": 2}, {"chunk_rows": 5}],
    ids=lambda changes: next(iter(changes)),
)
def test_an_amended_recipe_does_not_mix_with_parts_of_the_old_one(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    undisturbed = responses(open_run(tmp_path / "a", **changes))
    cut_short = open_run(tmp_path / "b")
    calls = Counter[str]()
    whole = LocalEngine.generate

    def stops_at_the_second_chunk(self: LocalEngine, *arguments: Any) -> Any:
        calls["generate"] += 1
        if calls["generate"] == 2:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "generate", stops_at_the_second_chunk)
        with pytest.raises(KeyboardInterrupt):
            generate.run(cut_short, 1)
    cut_short.close()
    found = responses(open_run(tmp_path / "b", "--amend", "the old settings were wrong", **changes))
    keys = Counter((row["prompt_id"], row["sample"]) for row in found)
    assert max(keys.values()) == 1 and len(keys) == len(undisturbed), "each sample once, and none lost"
    assert found == undisturbed, "no row is of the old settings"


def test_the_limit_that_vllm_is_given_is_a_setting_of_every_stage(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    short, long = (open_run(tmp_path / name, vllm_max_model_len=n) for name, n in (("a", 64), ("b", 128)))
    for groups in (("prompts", "sampling"), ("refine", "sampling"), ("measure",)):
        assert short.settings(*groups) != long.settings(*groups)
    entries = ["length"]
    assert short.scorer_digests(entries) == long.scorer_digests(entries), "scores do not change with it"
