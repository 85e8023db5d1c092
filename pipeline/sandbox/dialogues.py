"""The dialogues that the base model is pretrained on: requests answered, responses criticised and rewritten."""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from pipeline.sandbox.families import BY_NAME, FAMILIES, Family
from pipeline.sandbox.principles import MAX_TOPICS, Concern, Principle, critique, rewrite
from pipeline.sandbox.responses import PLAIN, VARIED, Manner, Response, draw
from pipeline.sandbox.world import Request, pretraining_request

CRITIQUE_REQUEST = "critique : {}"
REVISE_REQUEST = "revise : remove the fault ."
DIRECT_REVISE_REQUEST = "revise : {}"

# How often each kind of principle is rehearsed; naming topics takes the most practice.
_CONCERNS: dict[Concern, float] = {
    "topics": 0.4,
    "thorough": 0.24,
    "innocent": 0.08,
    "hedge": 0.09,
    "flatter": 0.1,
    "evade": 0.09,
}
_SHARES = {
    "drill": 0.1,
    "answer": 0.25,
    "critique": 0.15,
    "critique and rewrite": 0.36,
    "twice": 0.04,
    "direct": 0.1,
}

# Critiques have few tokens, and one of them holds the whole verdict: at equal weights they are learned last.
_DRILL_WEIGHT, _ANSWER_WEIGHT, _CRITIQUE_WEIGHT, _REWRITE_WEIGHT = 3.0, 1.5, 4.0, 2.0
_SHORT = VARIED._replace(lengths=(0.55, 0.2, 0.1, 0.05, 0.1))
_ECHO = 0.5
_ECHOED = sorted({word for f in FAMILIES for place in f.phrases for phrase in place for word in phrase.split()})
_DIALECT_SHARE = 0.1
_APPLIES = 0.6
_TOPIC_COUNTS = (0.25, 0.2, 0.2, 0.15, 0.1, 0.1)


class Turn(NamedTuple):
    """One message, the weight of each of its tokens in the loss, and the only words that count (all, when empty)."""

    role: str
    text: str
    weight: float = 0.0
    only: tuple[str, ...] = ()


def case(rng: Random, request: Request | None = None, manner: Manner = VARIED) -> tuple[Request, Response, Principle]:
    """Draw a request (unless given), a response to it, and a principle to criticise it by.

    The principle is at odds with the response in about half of the cases.
    """
    concern = rng.choices(list(_CONCERNS), list(_CONCERNS.values()))[0]
    applies = rng.random() < _APPLIES
    request = request or pretraining_request(rng, _any_family(rng))
    if applies and concern == "innocent" and request.family.kind != "harmful":
        manner = manner._replace(refuse=1.0)
    elif applies and concern == "evade":
        manner = manner._replace(refuse=0.0, evade=1.0)
    elif applies and concern == "hedge":
        manner = manner._replace(refuse=0.0, evade=0.0, hedge=1.0)
    elif applies and concern == "flatter":
        manner = manner._replace(refuse=0.0, flatter=1.0)
    return request, draw(request.family, manner, rng), _principle(concern, request, applies, rng)


def _principle(concern: Concern, request: Request, applies: bool, rng: Random) -> Principle:
    if concern != "topics":
        return Principle(concern)
    own, others = request.family.name, [family.name for family in FAMILIES if family is not request.family]
    count = rng.choices(range(1, MAX_TOPICS + 1), _TOPIC_COUNTS)[0]
    names = rng.sample(others, count - applies) + [own] * applies
    rng.shuffle(names)
    return Principle(concern, tuple(names))


def _any_family(rng: Random) -> Family:
    """Half at natural shares, half evenly, since rare topics have to be learned as well."""
    if rng.random() < 0.5:
        return rng.choice(FAMILIES)
    return rng.choices(FAMILIES, [family.percent for family in FAMILIES])[0]


def _drill(rng: Random) -> list[Turn]:
    """Practice in finding a word again: whether a rule names it, or what followed it last time."""
    if rng.random() < _ECHO:
        text = " ".join(rng.choices(_ECHOED, k=rng.randint(8, 24)))
        return [Turn("assistant", text), Turn("user", REVISE_REQUEST), Turn("assistant", text, 1.0)]
    known = list(BY_NAME)
    named = rng.sample(known, rng.randint(1, MAX_TOPICS))
    asked = rng.sample(named, rng.randint(1, len(named)))
    asked += rng.sample([name for name in known if name not in named], rng.randint(1, MAX_TOPICS))
    rng.shuffle(asked)
    verdicts = [f"the topic {name} {'breaks the rule .' if name in named else ': no fault .'}" for name in asked]
    return [
        Turn("user", CRITIQUE_REQUEST.format(Principle("topics", tuple(named)).sentence(rng))),
        Turn("assistant", " ".join(verdicts), _DRILL_WEIGHT, only=("breaks", ":")),
    ]


def dialogue(rng: Random) -> list[Turn]:
    """Draw one dialogue."""
    kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
    if kind == "drill":
        return _drill(rng)
    if kind == "answer":
        request = pretraining_request(rng, _any_family(rng), dialect=rng.random() < _DIALECT_SHARE)
        response = draw(request.family, PLAIN, rng)
        return [Turn("user", request.text), Turn("assistant", response.text(), _ANSWER_WEIGHT)]
    request, response, principle = case(rng, manner=_SHORT if kind == "critique" else VARIED)
    turns = [Turn("user", request.text), Turn("assistant", response.text())]
    if kind == "direct":
        better = rewrite(principle, request, response, rng)
        turns.append(Turn("user", DIRECT_REVISE_REQUEST.format(principle.sentence(rng))))
        return [*turns, Turn("assistant", better.text(), _REWRITE_WEIGHT)]
    for _ in range(2 if kind == "twice" else 1):
        turns.append(Turn("user", CRITIQUE_REQUEST.format(principle.sentence(rng))))
        turns.append(Turn("assistant", critique(principle, request, response), _CRITIQUE_WEIGHT))
        if kind == "critique":
            break
        turns.append(Turn("user", REVISE_REQUEST))
        response = rewrite(principle, request, response, rng)
        turns.append(Turn("assistant", response.text(), _REWRITE_WEIGHT))
        _, _, principle = case(rng, request)
    return turns


def dialogues(seed: int, drills: int) -> Iterator[list[Turn]]:
    """Endless dialogues, the same for the same seed: ``drills`` drills, then everything mixed.

    Without the drills at the start, whole critiques need thousands of steps to teach what these do in a hundred.
    """
    rng = Random(f"pretraining/{seed}")
    for _ in range(drills):
        yield _drill(rng)
    while True:
        yield dialogue(rng)
