from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.engines.base import Adapter
from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.inputs.battery import Battery, load_batteries, parse_battery
from pipeline.sandbox import prompts
from pipeline.sandbox.families import HARMFUL
from pipeline.scorers.base import SampledPrompt, Score
from pipeline.scorers.battery import BatteryLikelihood

COLUMN = "likelihood.harm"
UNDESIRED = "likelihood.harm.undesired"


@pytest.fixture(scope="module")
def battery(project: Path) -> Battery:
    (found,) = load_batteries([project / "constitutions" / "batteries" / "sandbox" / "harm.txt"])
    return found


@pytest.fixture(scope="module")
def policy(sandbox_path: str, make_adapter: Callable[..., Adapter]) -> Role:
    engine = LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=16)
    return Role(engine, make_adapter(3, scale=0.05))


@pytest.fixture(scope="module")
def asked() -> list[SampledPrompt]:
    rows = prompts("probe", 100)
    return [SampledPrompt([{"role": "user", "content": row["prompt"]}], row["slice"], []) for row in rows]


def values(scorer: BatteryLikelihood, asked: list[SampledPrompt], column: str = COLUMN) -> list[float | None]:
    return [score.value for score in scorer.score_prompts(asked)[column]]


def direct(asked: SampledPrompt, battery: Battery, policy: Role) -> tuple[float, float]:
    """The contrast, and its undesired side, by transformers and PEFT alone: no batch, no padding, ids by hand."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = policy.engine.tokenizer.name_or_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(bare, str(policy.adapter.path)).eval()
    prompt = [tokenizer.convert_tokens_to_ids(t) for t in ("<s>", "<|user|>")]
    for mark in ("<|end|>", "<|assistant|>"):
        words = asked.prompt[0]["content"] if mark == "<|end|>" else ""
        prompt += tokenizer(words, add_special_tokens=False)["input_ids"] + [tokenizer.convert_tokens_to_ids(mark)]

    def log_probability(text: str) -> float:
        opening = [tokenizer.convert_tokens_to_ids(word) for word in text.split()]
        with torch.inference_mode():
            log_p = model(input_ids=torch.tensor([prompt + opening])).logits[0].double().log_softmax(-1)
        return sum(float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(opening))

    sides = (battery.undesired(asked.slice), battery.benign(asked.slice))
    undesired, benign = (math.log(sum(math.exp(log_probability(text)) for text in texts)) for texts in sides)
    return undesired - benign, undesired


def test_it_is_what_transformers_computes_directly(battery: Battery, policy: Role, asked: list[SampledPrompt]) -> None:
    harmful = [one for one in asked if battery.undesired(one.slice)][:4]
    scorer = BatteryLikelihood(policy, [battery])
    contrasts, sums = values(scorer, asked), values(scorer, asked, UNDESIRED)
    for one in harmful:
        place = asked.index(one)
        assert (contrasts[place], sums[place]) == pytest.approx(direct(one, battery, policy), abs=1e-4)


def test_it_depends_neither_on_the_order_nor_on_the_batch(
    battery: Battery, policy: Role, asked: list[SampledPrompt], sandbox_path: str
) -> None:
    harmful = [one for one in asked if battery.undesired(one.slice)]
    found = values(BatteryLikelihood(policy, [battery]), harmful)
    assert len(set(found)) == len(harmful), "every prompt has a value of its own"
    backwards = values(BatteryLikelihood(policy, [battery]), harmful[::-1])[::-1]
    assert backwards == pytest.approx(found, abs=1e-5)
    engine = LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=5)
    few = values(BatteryLikelihood(Role(engine, policy.adapter), [battery]), harmful[3:8])
    assert few == pytest.approx(found[3:8], abs=1e-5)


def test_a_prompt_that_no_block_applies_to_has_no_score(
    battery: Battery, policy: Role, asked: list[SampledPrompt]
) -> None:
    harmful = {family.name for family in HARMFUL}
    scores = BatteryLikelihood(policy, [battery]).score_prompts(asked)[COLUMN]
    for one, score in zip(asked, scores, strict=True):
        assert (score.value is not None) == (one.slice in harmful)
        assert (score.reason is None) == (one.slice in harmful)
    assert BatteryLikelihood(policy, [battery]).score_prompts([]) == {COLUMN: [], UNDESIRED: []}


def test_a_prompt_without_room_for_an_opening_has_no_score(battery: Battery, policy: Role) -> None:
    def of_length(n: int) -> SampledPrompt:  # <s> <|user|> words <|end|> <|assistant|>
        return SampledPrompt([{"role": "user", "content": "potion " * (n - 4)}], "poison", [])

    longest = max(len(text.split()) for text in (*battery.undesired("poison"), *battery.benign("poison")))
    fits, over = BatteryLikelihood(policy, [battery]).score_prompts(
        [of_length(512 - longest), of_length(513 - longest)]
    )[COLUMN]
    assert fits.value is not None
    assert over == Score(None, "an opening has no tokens or does not fit the context")


def test_several_batteries_are_scored_side_by_side(battery: Battery, policy: Role, asked: list[SampledPrompt]) -> None:
    swapped = battery.source_text.replace("benign:", "?:").replace("undesired:", "benign:").replace("?:", "undesired:")
    other = parse_battery(swapped.replace("name: harm", "name: other"), "other.txt")
    scorer = BatteryLikelihood(policy, [battery, other])
    assert scorer.columns == dict.fromkeys(
        [COLUMN, UNDESIRED, "likelihood.other", "likelihood.other.undesired"], "high"
    )
    for one, two in zip(values(scorer, asked[:20]), values(scorer, asked[:20], "likelihood.other"), strict=True):
        assert (one is None and two is None) or one == pytest.approx(-two, abs=1e-9)


def test_the_base_prefers_to_comply_and_is_told_so(battery: Battery, policy: Role, asked: list[SampledPrompt]) -> None:
    found = [v for v in values(BatteryLikelihood(Role(policy.engine, None), [battery]), asked) if v is not None]
    assert sum(found) / len(found) > 1


def test_every_word_of_the_sandbox_battery_is_in_the_small_world(battery: Battery, policy: Role) -> None:
    unknown = policy.engine.tokenizer.unk_token_id
    texts = [text for block in battery.blocks for text in (*block.undesired, *block.benign)]
    assert len(texts) == 8 * len(HARMFUL)
    assert all(unknown not in policy.engine.encode_opening(text) for text in texts)
    assert {name for block in battery.blocks for name in block.applies_to} == {family.name for family in HARMFUL}


def test_the_sandbox_battery_says_what_the_grammar_allows(battery: Battery) -> None:
    from pipeline.sandbox.responses import parse

    for block in battery.blocks:
        (family,) = (family for family in HARMFUL if (family.name,) == block.applies_to)
        for text in block.undesired:
            assert parse(text).concrete(family) == {0, 1}
        for text in block.benign:
            assert parse(text).form == "refusal" or parse(text).vague == 2
