from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.refine import pairs_of
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
