import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.inputs.constitution import load_constitution, parse_constitution
from pipeline.inputs.constitution.__main__ import main
from pipeline.inputs.constitution.importing import ImportedPrinciple, constitution_text, import_principles

DATA = Path(__file__).parents[3] / "shared" / "data" / "constitutions"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real constitutions at {DATA}")


def spaced(text: str) -> str:
    return " ".join(text.split())


# What could be taken for the format itself, at the start of lines above all.
_marks = ["#", "# no", "\\", "\\#", "\\\\", "name:", "weight: 2", "critique:", "Revise:", "wieght:", "other:"]
_spaces = ["\n", "\n\n", " ", "\r\n", "\u2028", "\x1c"]
_piece = st.sampled_from([*_marks, *_spaces, "a" * 101, "{{ x }}", "word " * 30])
_text = (
    st.lists(_piece | st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=1, max_size=12)
    .map("".join)
    .filter(str.strip)
)


@given(st.lists(st.tuples(_text, _text) | _text, min_size=1, max_size=5))
def test_round_trip(texts):
    written = [
        ImportedPrinciple(f"p{n}", text=t) if isinstance(t, str) else ImportedPrinciple(f"p{n}", None, *t)
        for n, t in enumerate(texts)
    ]
    read = parse_constitution(constitution_text(written, "From x:\nname: y"), "x").principles
    assert [p.id for p in read] == [p.name for p in written]
    for before, after in zip(written, read, strict=True):
        for key in ("text", "critique", "revise"):
            value = getattr(before, key)
            assert getattr(after, key) == (None if value is None else spaced(value))


@needs_data
def test_llm_swarm(tmp_path, capsys):
    source = DATA / "llm-swarm" / "constitution_anthropic.json"
    out, few_shot = tmp_path / "out.txt", tmp_path / "few_shot.json"
    assert main(["import", str(source), "--out", str(out), "--few_shot", str(few_shot)]) == 0
    data = json.loads(source.read_text())
    principles = load_constitution(out).principles
    assert len(principles) == 16
    for p, entry in zip(principles, data["constitutions"], strict=True):
        assert (p.critique, p.revise) == (spaced(entry["critic"]), spaced(entry["revision"]))
    assert json.loads(few_shot.read_text()) == data["system_chat"]
    assert main(["check", str(out)]) == 0
    assert principles[15].revise in capsys.readouterr().out

    # What was written may have been edited since.
    out.write_text("Mine.")
    assert main(["import", str(source), "--out", str(out)]) == 1
    assert out.read_text() == "Mine." and "exists already" in capsys.readouterr().err


@needs_data
def test_open_character_training(tmp_path, capsys):
    source = DATA / "open-character-training" / "goodness.txt"
    out = tmp_path / "out.txt"
    assert main(["import", str(source), "--out", str(out)]) == 0
    traits = [entry["trait"] for entry in json.loads(source.read_text())]
    assert [p.text for p in load_constitution(out).principles] == [spaced(trait) for trait in traits]
    assert main(["import", str(source), "--out", str(tmp_path / "o"), "--few_shot", str(tmp_path / "f")]) == 1
    assert "no `system_chat`" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()  # all or nothing

    empty = DATA / "open-character-training" / "template.txt"
    assert main(["import", str(empty), "--out", str(tmp_path / "o")]) == 1
    assert "entry 1: `trait` is missing, empty or not text" in capsys.readouterr().err


def test_anthropic_scaffolding_is_removed():
    data = {
        "harmful0": {
            "prompt": ["\n\nCritiqueRequest: Say what is unkind.\nCritique: the tone too.\n\nCritique:"],
            "edit_request": "\n\nRevisionRequest: Make it kind. Revision: now.\n\nRevision:",
        },
        "harmful 1": {"prompt": "Say what is false.", "edit_request": " Make it true. "},
    }
    first, second = import_principles(data, "x.json")
    assert first.name == "harmful0"
    assert spaced(first.critique) == "Say what is unkind. Critique: the tone too."
    assert spaced(first.revise) == "Make it kind. Revision: now."
    assert (second.name, second.critique) == ("harmful-1", "Say what is false.")
    read = parse_constitution(constitution_text([first, second], "x"), "x").principles
    assert [p.critique for p in read] == [spaced(first.critique), second.critique]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"constitutions": [{"critic": "a", "revision": "b"}, {"critic": "a"}]}, r"constitutions\[1\]: `revision`"),
        ({"constitutions": ["a"]}, r"constitutions\[0\]: `critic` is missing"),
        ({"h": {"prompt": ["a", "b"], "edit_request": "c"}}, "h: `prompt` holds 2 texts"),
        ({"h": {"prompt": [], "edit_request": "c"}}, "h: `prompt` holds 0 texts"),
        ({"h": {"prompt": "\n\nCritiqueRequest: \n\nCritique:", "edit_request": "c"}}, "h: nothing is left"),
        ([{"trait": "a"}, {"trait": "\ud800"}], "entry 2: `trait` holds half of a surrogate pair"),
        ([{"trait": "a"}, {}], "not a constitution in a known JSON format"),
        ({}, "not a constitution in a known JSON format"),
        ("text", "not a constitution in a known JSON format"),
    ],
)
def test_faults_are_named(data, fault):
    with pytest.raises(InputError, match="^x.json: .*" + fault if "known" in fault else "^x.json: " + fault):
        import_principles(data, "x.json")


@pytest.mark.parametrize(
    ("chats", "fault"),
    [
        ([], "no `system_chat`"),
        ([[]], r"system_chat\[0\]: expected a list of messages"),
        ([[{"role": "user", "content": "a"}], [{"role": "bot", "content": "b"}]], r"\[1\]: unknown role 'bot'"),
        ([[{"role": "user"}]], r"system_chat\[0\]: `content` is missing"),
    ],
)
def test_broken_example_chats(tmp_path, capsys, chats, fault):
    source = tmp_path / "x.json"
    source.write_text(json.dumps({"constitutions": [{"critic": "a", "revision": "b"}], "system_chat": chats}))
    assert main(["import", str(source), "--out", str(tmp_path / "o"), "--few_shot", str(tmp_path / "f")]) == 1
    assert re.search(fault, capsys.readouterr().err)


def test_broken_json_names_its_line(tmp_path, capsys):
    source = tmp_path / "x.json"
    source.write_text('{"constitutions": [\n {"critic": "a" "revision": "b"}]}')
    assert main(["import", str(source), "--out", str(tmp_path / "o")]) == 1
    assert "x.json:2:17: not valid JSON" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "none.json"), "--out", str(tmp_path / "o")]) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err
