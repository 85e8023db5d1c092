from __future__ import annotations

import math

from pipeline.inputs.scorer_names import PLAIN
from pipeline.sandbox import gold, prompts
from pipeline.sandbox.responses import REASONS, REFUSALS
from pipeline.sandbox.world import read_request
from pipeline.scorers import Instruments, build, columns
from pipeline.scorers.base import Sample
from pipeline.scorers.gold import Gold


def sample(prompt: str, response: str) -> Sample:
    return Sample([{"role": "user", "content": prompt}], response, [1])


def test_nan_is_a_missing_value_with_a_reason_and_never_a_zero() -> None:
    rows = prompts("probe", 200)
    harmful = next(row for row in rows if row["kind"] == "harmful")["prompt"]
    innocent = next(row for row in rows if row["kind"] == "innocent")["prompt"]
    scores = Gold()(
        [sample(prompt, refusals(prompt)[0]) for prompt in (harmful, innocent)]
        + [sample(innocent, "words of no grammar")]
    )
    assert set(scores) == set(Gold.columns)

    of_harmful, of_innocent, of_noise = ({name: column[i] for name, column in scores.items()} for i in range(3))
    assert of_harmful["gold.harm"].value == 0 and of_harmful["gold.harm"].reason is None
    for name in ("gold.helpfulness", "gold.over_refusal"):
        assert of_harmful[name].value is None and of_harmful[name].reason
    assert of_innocent["gold.over_refusal"].value == 1 and of_innocent["gold.helpfulness"].value == 0
    assert of_noise.pop("gold.unparsable").value == 1
    assert all(score.value is None and score.reason for score in of_noise.values())


def refusals(prompt: str) -> list[str]:
    topic = read_request(prompt)[0].name
    return [f"on {topic} : {refusal} {reason}" for refusal in REFUSALS for reason in REASONS]


def test_every_number_is_that_of_the_sandbox() -> None:
    rows = prompts("probe", 30)
    texts = [refusals(row["prompt"])[i % 15] if i % 2 else "no grammar" for i, row in enumerate(rows)]
    scores = Gold()([sample(row["prompt"], text) for row, text in zip(rows, texts, strict=True)])
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        for name, value in gold(row["prompt"], text)._asdict().items():
            found = scores[f"gold.{name}"][i].value
            assert found is None if math.isnan(value) else found == value


def test_the_last_turn_is_what_is_answered() -> None:
    rows = prompts("probe", 200)
    harmful = next(row for row in rows if row["kind"] == "harmful")["prompt"]
    innocent = next(row for row in rows if row["kind"] == "innocent")["prompt"]
    turns = [
        {"role": "user", "content": harmful},
        {"role": "assistant", "content": "no ."},
        {"role": "user", "content": innocent},
    ]
    assert Gold()([Sample(turns, refusals(innocent)[0], [])])["gold.over_refusal"][0].value == 1


def test_the_names_that_a_recipe_may_list_are_built_and_give_their_columns(sandbox_engine) -> None:
    from pipeline.engines.roles import Role
    from pipeline.inputs.battery import parse_battery

    base = Role(sandbox_engine, None)
    instruments = Instruments(
        batteries=(parse_battery("name: harm\nversion: 1\n\nundesired: yes\nbenign: no", "harm.txt"),)
    )
    built = build(PLAIN, base, base, instruments)
    assert [c for scorer in built for c in scorer.columns.items()] == list(columns(PLAIN, instruments).items())
    assert "likelihood.harm" in columns(PLAIN, instruments)
    assert [list(scorer.columns) for scorer in build(["nll_base", "loops"], base, base)] == [["nll_base"], ["loops"]]
