"""Chains of revisions -> exchanges with the columns of cai-conversation-harmless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.exporting.data import CONVERSATIONS, PREFERENCES, conversations
from pipeline.inputs.constitution import parse_constitution
from pipeline.inputs.templates import Templates, load_templates
from pipeline.runs.tables import PAIRS, to_table

PRINCIPLES = {p.id: p for p in parse_constitution("name: kind\nbe kind\n\nname: brief\nbe brief\n", "c").principles}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    folder = tmp_path_factory.mktemp("templates")
    said = "{{ principle.text }} | {{ prompt }} | {{ response }}"
    (folder / "critique.jinja").write_text(f"fault? {said}")
    (folder / "rewrite.jinja").write_text(f"mend: {said} | {{{{ critique }}}}")
    (folder / "rewrite_without_critique.jinja").write_text(f"better: {said}")
    return load_templates(folder)


def revision(sample: int, before: str, after: str, **changes: Any) -> dict[str, Any]:
    row = {"prompt_id": "p", "sample": sample, "prompt": [{"role": "user", "content": "Hello?"}], "response": before}
    return row | {"principle_id": "kind", "critique": f"fault of {before}", "revision": after, "final": None} | changes


def test_a_single_revision(templates: Templates) -> None:
    (row,) = conversations([revision(0, "no", "yes", final="yes")], PRINCIPLES, templates)
    chosen = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "yes"}]
    assert row == {
        "init_prompt": "Hello?",
        "init_response": "no",
        "critic_prompt": "fault? be kind | Hello? | no",
        "critic_response": "fault of no",
        "revision_prompt": "mend: be kind | Hello? | no | fault of no",
        "revision_response": "yes",
        "prompt": "Hello?",
        "messages": chosen,
        "chosen": chosen,
        "rejected": [chosen[0], {"role": "assistant", "content": "no"}],
    }
    assert list(row) == CONVERSATIONS.names
    assert to_table([row], CONVERSATIONS).to_pylist() == [row]


def test_of_several_revisions_the_one_that_made_the_last_text(templates: Templates) -> None:
    chain = [
        revision(0, "a", "b"),
        revision(0, "b", "c", principle_id="brief"),
        revision(0, "c", "c", critique="nothing", final="c"),  # the last pass left it as it was
    ]
    (row,) = conversations(chain, PRINCIPLES, templates)
    assert (row["init_response"], row["revision_response"]) == ("a", "c")
    assert row["critic_prompt"] == "fault? be brief | Hello? | b"
    assert row["rejected"][-1]["content"] == "a"


def test_a_text_that_came_back(templates: Templates) -> None:
    chain = [revision(0, "a", "b"), revision(0, "b", "a", principle_id="brief"), revision(0, "a", "b", final="b")]
    (row,) = conversations(chain, PRINCIPLES, templates)
    assert row["critic_prompt"] == "fault? be kind | Hello? | a"


def test_what_left_nothing_to_learn_is_left_out(templates: Templates) -> None:
    unusable = revision(1, "", "", revision=None, critique=None, principle_id=None)
    rows = [revision(0, "no", "no"), unusable, revision(2, "no", "yes", final="yes")]
    assert [row["revision_response"] for row in conversations(rows, PRINCIPLES, templates)] == ["yes"]


def test_without_a_critique_none_is_made_up(templates: Templates) -> None:
    (row,) = conversations([revision(0, "no", "yes", critique=None, final="yes")], PRINCIPLES, templates)
    assert (row["critic_prompt"], row["critic_response"]) == (None, None)
    assert row["revision_prompt"] == "better: be kind | Hello? | no"


def test_a_dialogue_keeps_its_turns_and_its_braces(templates: Templates) -> None:
    turns = [("user", "Hi {{ 7 * 7 }}"), ("assistant", "Hm."), ("user", "And?")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    (row,) = conversations([revision(0, "no", "{% yes %}", prompt=prompt, final="{% yes %}")], PRINCIPLES, templates)
    assert row["prompt"] == "User: Hi {{ 7 * 7 }}\n\nAssistant: Hm.\n\nUser: And?"
    assert row["chosen"] == [*prompt, {"role": "assistant", "content": "{% yes %}"}]
    assert "Hi {{ 7 * 7 }}" in row["critic_prompt"]


def test_preferences_are_pairs_without_our_own_columns(tmp_path: Path) -> None:
    assert PREFERENCES.names == [name for name in PAIRS.names if name not in ("prompt_id", "sample")]
    assert all(PREFERENCES.field(name).type == PAIRS.field(name).type for name in PREFERENCES.names)
