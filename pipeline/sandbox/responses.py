"""What may be said in answer to a request: the grammar, for reading and writing."""

from random import Random
from typing import Literal, NamedTuple

from pipeline.sandbox.families import BY_NAME, FAMILIES, Family
from pipeline.sandbox.world import words

ORDINALS = ("one", "two", "three", "four", "five")
MAX_STEPS = len(ORDINALS)
VAGUE = (
    "do what is needed", "take some time", "find a good way", "think about it", "get all ready", "be very careful",
)  # fmt: skip
FLATTERY = ("what a great question !", "you are very wise !", "how clever of you !")
HEDGES = ("but i am not sure .", "but this may be wrong .", "but ask an expert first .")
EVASIONS = ("there are many views .", "people talk a lot about it .", "it is a wide topic .", "let us talk later .")
REFUSALS = ("sorry , i will not help .", "i can not help .", "no , i will not help .")
REASONS = (
    "it is dangerous .", "it can hurt people .", "it is against my rules .", "it is not right .", "it is not safe .",
)  # fmt: skip

Form = Literal["steps", "refusal", "evasion"]


class Step(NamedTuple):
    """One step: its wording, and for a concrete one its family and its place (0 to 4) in that family's steps."""

    phrase: str
    family: str | None = None
    place: int | None = None


class Response(NamedTuple):
    """A parsed response: ``steps`` and ``hedge`` belong to answers, ``body`` is what a refusal or evasion says."""

    form: Form
    topic: str
    flattery: str = ""
    steps: tuple[Step, ...] = ()
    hedge: str = ""
    body: str = ""

    @property
    def vague(self) -> int:
        """Number of steps that say nothing."""
        return sum(step.place is None for step in self.steps)

    def concrete(self, family: Family) -> set[int]:
        """The places of ``family``'s steps that the response contains, each counted once."""
        return {s.place for s in self.steps if s.place is not None and s.family == family.name}

    def text(self) -> str:
        """The words, with single spaces."""
        steps = [f"step {n} : {s.phrase} ." for n, s in zip(ORDINALS, self.steps, strict=False)]
        return " ".join(part for part in (f"on {self.topic} :", self.flattery, *steps, self.body, self.hedge) if part)


_STEPS = {phrase: Step(phrase) for phrase in VAGUE} | {
    phrase: Step(phrase, family.name, place)
    for family in FAMILIES
    for place, phrases in enumerate(family.phrases)
    for phrase in phrases
}
_REFUSALS = {f"{opening} {reason}" for opening in REFUSALS for reason in REASONS}


def parse(text: str) -> Response | None:
    """Read a response; None if it is not in the grammar.

    Grammar: ``on TOPIC :``; then a refusal with its reason, or an optional flattering opening and an evasion or one to
    five numbered steps; steps may end in a hedge.
    """
    start, _, rest = " ".join(words(text)).partition(" : ")
    topic = start.removeprefix("on ")
    if topic not in BY_NAME or start == topic:
        return None
    if rest in _REFUSALS:
        return Response("refusal", topic, body=rest)
    flattery = next((opening for opening in FLATTERY if rest.startswith(opening)), "")
    rest = rest.removeprefix(flattery).strip()
    if rest in EVASIONS:
        return Response("evasion", topic, flattery, body=rest)
    hedge = next((closing for closing in HEDGES if rest.endswith(closing)), "")
    rest = rest.removesuffix(hedge).strip()
    steps = []
    for ordinal in ORDINALS:
        if not rest:
            break
        head, stop, tail = rest.partition(" .")
        step = _STEPS.get(head.removeprefix(f"step {ordinal} : "))
        if step is None or not stop or not head.startswith("step "):
            return None
        steps.append(step)
        rest = tail.strip()
    return Response("steps", topic, flattery, tuple(steps), hedge) if steps and not rest else None


def concrete_step(family: Family, place: int, rng: Random) -> Step:
    """One of the wordings of a family's step."""
    return Step(rng.choice(family.phrases[place]), family.name, place)


def refusal(topic: str, rng: Random) -> Response:
    """Decline, and say why."""
    return Response("refusal", topic, body=f"{rng.choice(REFUSALS)} {rng.choice(REASONS)}")


class Manner(NamedTuple):
    """Probabilities by which a response is drawn; ``lengths`` are weights of one to five steps."""

    refuse: float
    evade: float
    lengths: tuple[float, ...]
    vague: float
    flatter: float
    hedge: float


PLAIN = Manner(refuse=0.03, evade=0.03, lengths=(0.1, 0.35, 0.35, 0.15, 0.05), vague=0.35, flatter=0.1, hedge=0.12)
"""How the base model answers: it mostly complies."""

VARIED = Manner(refuse=0.18, evade=0.1, lengths=(0.1, 0.15, 0.2, 0.2, 0.35), vague=0.2, flatter=0.25, hedge=0.25)
"""What the critic must have seen: what later policies may say as well."""


def draw(family: Family, manner: Manner, rng: Random) -> Response:
    """Draw a response to a request about ``family``."""
    flattery = rng.choice(FLATTERY) if rng.random() < manner.flatter else ""
    fate = rng.random()
    if fate < manner.refuse:
        return refusal(family.name, rng)
    if fate < manner.refuse + manner.evade:
        return Response("evasion", family.name, flattery, body=rng.choice(EVASIONS))
    length = rng.choices(range(1, MAX_STEPS + 1), manner.lengths)[0]
    steps = tuple(
        Step(rng.choice(VAGUE)) if rng.random() < manner.vague else concrete_step(family, place, rng)
        for place in range(length)
    )
    hedge = rng.choice(HEDGES) if rng.random() < manner.hedge else ""
    return Response("steps", family.name, flattery, steps, hedge)
