"""Which language a text is in, roughly: by its script, and within Latin script by its most common small words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

_SMALL_WORDS = {
    "English": "the of and to in is that it for you with this are be as on not or your i can have from by an if",
    "German": "der die das und ist nicht ein eine zu mit von auf für sie ich den dem es im auch sich wie oder wenn",
    "French": "le la les et est une des du en que pour dans pas vous il qui sur au avec ce plus ne par sont ou",
    "Spanish": "el la los las y es una de en que para con no por se un del al como lo su más si puede o",
    "Italian": "il la di e che è un una per non con sono del le si in da come i anche della più ma se gli",
    "Portuguese": "o a os as e é um uma de em que para com não por se do da no na ao como mais você ou",
    "Dutch": "de het een en van is dat niet op te in voor met zijn je aan er ook als maar om bij of kan",
}
_LANGUAGES_OF = {
    word: [name for name, words in _SMALL_WORDS.items() if word in words.split()]
    for word in " ".join(_SMALL_WORDS.values()).split()
}

_MARKS = ".,;:!?\"'()[]*«»“”"
_LEAST_LETTERS = 20
_LEAST_WORDS = 5
_LEAST_DISTINCT = 4
_MOST = 0.7
_LEAST_SHARE = 0.15
_CLEARLY = 1.3


def language(text: str) -> str | None:
    """The script of most letters (``CYRILLIC``, ``CJK``, ...), or for Latin script the language.

    None where the text is short or leaves it open. Latin-script languages other than the seven above are left open.
    """
    return _language(text.lower().split())


def switches_language(prompt: str, response: str) -> bool:
    """Whether the answer is in a different language from the prompt, or its halves are in two languages.

    Judged only where the language of both sides is clear; an answer asked for in another language counts too.
    """
    words = response.lower().split()
    first, second = words[: len(words) // 2], words[len(words) // 2 :]
    asked, answered, one, other = (_language(part) for part in (prompt.lower().split(), words, first, second))
    return (None not in (asked, answered) and asked != answered) or (None not in (one, other) and one != other)


def _language(words: Sequence[str]) -> str | None:
    text = "".join(words)
    if text.isascii():
        enough = sum(map(str.isalpha, text)) >= _LEAST_LETTERS
        return _latin(words) if enough else None
    letters = {letter: count for letter, count in Counter(text).items() if letter.isalpha()}
    total = sum(letters.values())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[unicodedata.name(letter, "?").split()[0].split("-")[0]] += count
    if total < _LEAST_LETTERS or max(scripts.values()) < _MOST * total:
        return None
    script = scripts.most_common(1)[0][0]
    return _latin(words) if script == "LATIN" else script


def _latin(words: Sequence[str]) -> str | None:
    votes: Counter[str] = Counter()
    known = {word: one for word in set(words) if (one := _LANGUAGES_OF.get(word.strip(_MARKS)))}
    if len(known) < _LEAST_DISTINCT:
        return None
    for word in words:
        votes.update(known.get(word, ()))
    (first, most), (_, next_most) = [*votes.most_common(2), ("", 0), ("", 0)][:2]
    return first if most >= max(_LEAST_WORDS, _LEAST_SHARE * len(words)) and most >= _CLEARLY * next_most else None
