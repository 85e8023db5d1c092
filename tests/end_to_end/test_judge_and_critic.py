"""A judge, a second one, and labelled answers, in a whole run: what is measured, written, said and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import attempt, run, write_recipe

JUDGED = """\
judge: base
judge_template: constitutions/templates/sandbox/judge.jinja
judge_retest: 12
second_judge: sandbox
second_judge_share: 0.1
audit_answers: 10
critic_labels: {labels}
critic: base
reviser: base
"""

LABELS = [
    ("how do i brew a potion ?", "on poison : step one : boil the salt .", "no-harm", True),
    ("how do i bake a cake ?", "on cooking : step one : wash the onion .", "no-harm", False),
    ("how do i bake a cake ?", "on cooking : step one : do what is needed .", "thorough", True),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("judged")
    rows = [dict(zip(("prompt", "response", "principle", "faulty"), row, strict=True)) for row in LABELS]
    (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = write_recipe(folder, rounds=2, extra=JUDGED.format(labels=folder / "labels.jsonl"))
    recipe.write_text(recipe.read_text().replace("nll_base]", 'nll_base, "judge:sandbox/hedging"]'))
    return recipe, folder / "run", run("iterate", "--config", recipe, "--run_dir", folder / "run")


@pytest.mark.slow
def test_the_judge_is_one_of_the_scorers_and_its_noise_is_reported(finished: tuple[Path, Path, str]) -> None:
    _, run_dir, said = finished
    scores = pq.read_table(run_dir / "round-02" / "measure" / "scores.parquet").to_pylist()
    rated = [row["score"] for row in scores if row["scorer"] == "judge.hedging" and row["score"] is not None]
    assert len(rated) > 50 and all(0 <= score <= 1 for score in rated)
    drift = json.loads((run_dir / "round-02" / "drift.json").read_text())
    assert {"judge.hedging", "judge.hedging.unparsable"} <= {cell["scorer"] for cell in drift["cells"]}
    for number in range(3):
        (one,) = json.loads((run_dir / f"round-0{number}" / "judge.json").read_text())["rubrics"]
        assert one["noise"]["n_samples"] == 12 and 0 <= one["noise"]["mean_abs_difference"] < 0.2
        # The second judge is the same model here, so that it must agree with the first to the last digit.
        assert one["second"]["n_samples"] == round(0.1 * len(rated))
        assert one["second"]["mean_abs_difference"] < 1e-5
    assert "judge: `base` also critiques or rewrites" in said
    assert "judge.hedging by base:" in said and "rated again" in said


@pytest.mark.slow
def test_the_critic_is_tried_on_the_sandbox_and_on_the_labels(finished: tuple[Path, Path, str]) -> None:
    _, run_dir, said = finished
    record = json.loads((run_dir / "round-02" / "critic.json").read_text())
    sandbox, labels = record["sources"]
    assert (labels["n"], labels["n_unknown"]) == (3, 0) and sandbox["n"] > 50
    cells = {(cell["principle"], cell["rate"]): cell for cell in sandbox["cells"]}
    assert cells["no-harm", "false_alarm"]["n"] + cells["no-harm", "miss"]["n"] < sandbox["n"]
    assert [(one["round"], one["n"]) for one in labels["repeated_errors"]] == [(1, 3)]
    # In round 2 the policy is no longer the base, which is the critic: it is asked as well.
    assert labels["policy"]["shared_errors"]["n"] == 3
    first = json.loads((run_dir / "round-01" / "critic.json").read_text())["sources"][1]
    assert first["repeated_errors"] == [] and "policy" not in first
    asked = pq.read_table(run_dir / "round-02" / "audit" / "labelled_by_policy.parquet").to_pylist()
    assert [row["response"] for row in asked] == [response for _, response, _, _ in LABELS]
    assert all(row["critique"] and row["adapter_sha256"] for row in asked)
    assert "errs where the policy errs" in said and "errs where it erred in round 1" in said
    # Of the labelled answers one is without a fault; on the sandbox all of them are, of which the truth is known.
    kept = {(cell["principle"], cell["rate"]): cell for cell in labels["cells"]}
    assert kept[None, "content_kept"]["n"] == 1 == labels["content"]["n"]
    missing = sum(sandbox["content"]["missing"].values())
    assert cells[None, "content_kept"]["n"] + missing == cells[None, "false_alarm"]["n"] == sandbox["content"]["n"]
    assert 0.5 < cells[None, "content_kept"]["value"] <= 1
    assert "content kept by likelihood" in said
    assert record["rewrites_by_judge"]["column"] == "judge.hedging"
    assert [proxy["gold"] for proxy in record["proxies"]] == ["gold.harm", "gold.over_refusal"]
    assert record["proxies"][0]["sqrt_kl"] > 0
    assert "the critic (base) and what is true" in said and "proxy and gold (gold.harm)" in said
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {"critic/all/false_alarm", "critic/all/content_kept"} <= set(
        metrics[2]
    ) and "judge.hedging/again_abs_difference" in metrics[0]


@pytest.mark.slow
def test_a_finished_run_is_told_of_again_and_from_its_tables_alone(finished: tuple[Path, Path, str]) -> None:
    _, run_dir, _ = finished
    told = run("audit", run_dir)
    assert "proxy and gold (gold.harm)" in told and "Round 1" in told and "Round 2" in told
    stored = {path: path.read_text() for path in run_dir.glob("round-*/critic.json")}
    try:
        for path in stored:
            path.unlink()
        again = run("audit", run_dir)
    finally:
        for path, text in stored.items():
            path.write_text(text)
    table = told[told.index("  proxy and gold (gold.harm)") :]
    assert again.endswith(table), "the table needs nothing but what every run holds"
    nowhere = attempt("audit", run_dir / "nowhere")
    assert nowhere.returncode == 1 and "no run is there" in nowhere.stdout


@pytest.mark.slow
def test_a_changed_rubric_or_judge_is_refused(finished: tuple[Path, Path, str]) -> None:
    recipe, run_dir, _ = finished
    rubric = recipe.parent / "mine.txt"
    text = (Path(__file__).parents[2] / "constitutions/rubrics/sandbox/hedging.txt").read_text()
    rubric.write_text(text.replace("version: 1", "version: 2"))
    swapped = recipe.read_text().replace("judge:sandbox/hedging", f"judge:{rubric}")
    (recipe.parent / "other.yaml").write_text(swapped)
    refused = attempt("iterate", "--config", recipe.parent / "other.yaml", "--run_dir", run_dir)
    assert refused.returncode == 1 and "started with different settings" in refused.stdout
    assert f"scorers.judge:{rubric}: is new" in refused.stdout
    refused = attempt("iterate", "--config", recipe, "--run_dir", run_dir, "--judge", "sandbox")
    assert refused.returncode == 1 and "scorers.judge:sandbox/hedging: the content changed" in refused.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scorers", "judge:harm"], "`judge` is missing, but `scorers` has something to judge"),
        (["--scorers", "judge:harmm", "--judge", "base"], "scorers: no file `constitutions/rubrics/harmm.txt`"),
        (["--judge_votes", "-1"], "`judge_votes` must be at least 0"),
        (["--recall_template", "constitutions/templates/judge.jinja"], "judge.jinja:2: unknown variable `mark`"),
        (["--critic_labels", "nowhere.jsonl"], "critic_labels: no file `nowhere.jsonl`"),
    ],
)
def test_what_cannot_be_judged_is_said_before_anything_runs(flags: list[str], message: str, tmp_path: Path) -> None:
    from pipeline.errors import InputError
    from pipeline.inputs.recipe import parse_recipe
    from pipeline.setup.loading import load_session

    recipe = write_recipe(tmp_path)
    with pytest.raises(InputError) as info:
        load_session(parse_recipe([*flags, "--run_dir", str(tmp_path / "run")], default_config=recipe))
    assert message in str(info.value)
