from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines.base import Completion, Message, Request, Sampling
from pipeline.inputs.constitution import Principle
from pipeline.inputs.few_shot import load_few_shot
from pipeline.inputs.recipe_fields import Recipe
from pipeline.inputs.templates import load_templates
from pipeline.refine import Draft, Reviser, pairs_of
from pipeline.runs.tables import PAIRS, REFINEMENTS, to_table

CHAINS = st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=8)
"""For every revision of every response, whether a text leaves the chain there."""


@settings(deadline=None)
@given(CHAINS)
def test_a_pair_is_the_final_text_against_the_first(chains: list[list[bool]]) -> None:
    rows, expected = [], []
    for number, finals in enumerate(chains):
        prompt = [{"role": "user", "content": f"prompt {number}"}]
        for index, final in enumerate(finals):
            row: dict[str, Any] = {"prompt_id": f"p{number}", "sample": number % 2, "prompt": prompt}
            row |= {"revision_index": index, "response": f"r{number}.{index}"}
            rows.append(row | {"final": f"f{number}.{index}" if final else None})
            if final:
                texts = {"chosen": f"f{number}.{index}", "rejected": f"r{number}.0"}
                said = {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}
                expected.append({"prompt": prompt, **said, "prompt_id": f"p{number}", "sample": number % 2})
    pairs = pairs_of(to_table(rows, REFINEMENTS))
    assert pairs.schema == PAIRS
    assert pairs.to_pylist() == expected
    assert pairs.equals(to_table(expected, PAIRS))


class Listener:
    """A model that answers nothing new, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Message]] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.asked += [request.messages for request in requests]
        return [Completion("Well.", [1], "stop", 1) for _ in requests]


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be a pirate."}]])
def test_examples_stand_behind_the_system_turn_of_a_prompt(
    tmp_path: Path, project: Path, system: list[Message]
) -> None:
    examples = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi!"}]
    (tmp_path / "few.json").write_text(json.dumps([examples]))
    listener = Listener()
    session: Any = SimpleNamespace(
        recipe=Recipe(constitution="c.txt"),
        few_shot=load_few_shot(tmp_path / "few.json"),
        roles=SimpleNamespace(named=lambda name, adapter: listener),
        templates=load_templates(project / "constitutions" / "templates"),
        seed=0,
        adapter=lambda round_: None,
    )
    asked = cast(Message, {"role": "user", "content": "Who are you?"})
    row = dict.fromkeys(("round", "model", "adapter_sha256")) | {"prompt_id": "p", "sample": 0, "slice": "all"}
    principle = Principle("kind", "Be kind.", None, None, 1.0, (), 1)
    Reviser(session, 1).revise([Draft(row | {"prompt": [*system, asked]}, "Nobody.", principle)], 0)
    critique, rewrite = listener.asked
    opening = [*system, *examples, asked, {"role": "assistant", "content": "Nobody."}]
    assert critique[:-1] == opening and rewrite[: len(opening)] == opening
    assert [turn["role"] for turn in rewrite[len(opening) :]] == ["user", "assistant", "user"]
