from __future__ import annotations

import pytest

from pipeline.scorers.base import Sample
from pipeline.scorers.degeneration import KINDS, Degeneration, degenerations
from pipeline.scorers.language import language, switches_language

ENGLISH = "The house of my aunt is on the hill and you can see the sea from there if it is not foggy in the morning."
GERMAN = "Das Haus ist auf dem Berg und von dort kann ich das Meer nicht sehen, wenn es neblig ist."
FRENCH = "La maison est sur la colline et on ne voit pas la mer, mais les arbres sont dans le jardin pour vous."
SPANISH = "La casa de mi tía está en la colina y desde allí se ve el mar, pero no si hay niebla por la mañana."
RUSSIAN = "Дом моей тёти стоит на холме, и оттуда видно море."
JAPANESE = "丘の上の家から海が見えます。朝は霧がかかることもあります。"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ENGLISH, "English"),
        (GERMAN, "German"),
        (FRENCH, "French"),
        (SPANISH, "Spanish"),
        (RUSSIAN, "CYRILLIC"),
        ("", None),
        ("Yes, sure.", None),
        ("ls -la | grep foo && cat bar.txt > out.log; sudo systemctl restart nginx", None),
        ("1234 5678 !!!! ???? 9999 0000 1111 2222", None),
    ],
)
def test_language(text: str, name: str | None) -> None:
    assert language(text) == name


def test_japanese_is_not_latin() -> None:
    assert language(JAPANESE) in {"CJK", "HIRAGANA", None}
    assert switches_language(ENGLISH, "丘上之家可見大海，晨間多霧，山下有河，河邊有樹，樹下有人。")


@pytest.mark.parametrize(
    ("prompt", "response", "switches"),
    [
        (ENGLISH, ENGLISH, False),
        (ENGLISH, GERMAN, True),
        (ENGLISH, RUSSIAN, True),
        (ENGLISH, f"{ENGLISH} {ENGLISH} {RUSSIAN} {RUSSIAN} {RUSSIAN}", True),
        ("", f"{ENGLISH} {GERMAN}", True),
        (GERMAN, "Ja.", False),
        ("Hi", ENGLISH, False),
    ],
)
def test_switches(prompt: str, response: str, switches: bool) -> None:
    assert switches_language(prompt, response) == switches


@pytest.mark.parametrize(
    ("response", "finish_reason", "kinds"),
    [
        (ENGLISH, "stop", set()),
        ("I am sorry. " * 8, "stop", {"loop"}),
        ("Sorry.", "stop", {"fragment"}),
        ("", "stop", {"fragment"}),
        (ENGLISH, "length", {"cut_off"}),
        (GERMAN, "stop", {"language_switch"}),
        ("Here is a revised version of the answer: wash your hands first.", "stop", {"rewrite_talk"}),
        ("no " * 20, "length", {"loop", "cut_off"}),
    ],
)
def test_each_kind(response: str, finish_reason: str, kinds: set[str]) -> None:
    found = degenerations(ENGLISH, response, finish_reason)
    assert {kind for kind, shown in found.items() if shown} == kinds
    assert tuple(found) == KINDS


def test_scores() -> None:
    prompt = [{"role": "user", "content": ENGLISH}]
    scores = Degeneration()([Sample(prompt, GERMAN, [1]), Sample([], "so " * 9, [1], finish_reason="length")])
    assert list(scores) == list(Degeneration.columns)
    assert [score.value for score in scores["degeneration.language_switch"]] == [1.0, 0.0]
    assert [score.value for score in scores["degeneration.loop"]] == [0.0, 1.0]
    assert [score.value for score in scores["degeneration.cut_off"]] == [0.0, 1.0]
