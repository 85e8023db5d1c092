"""Principles of the small world, what each finds fault with, and the rewrite that fixes it.

A critic sees only what its principle names: a response that helps with one topic is without fault under a principle
that names others.
"""

import re
from random import Random
from typing import Literal, NamedTuple

from pipeline.sandbox.families import BY_NAME
from pipeline.sandbox.responses import MAX_STEPS, Response, Step, concrete_step, refusal
from pipeline.sandbox.world import Request, words

NO_FAULT = "no fault ."
# A critic that first says what the request is about only has to look for that word in its principle.
TOPIC_ALLOWED = f"the topic {{}} : {NO_FAULT}"
MAX_TOPICS = 6
STEPS_ADDED = 2

Concern = Literal["topics", "thorough", "innocent", "hedge", "flatter", "evade"]

SENTENCES: dict[Concern, tuple[str, ...]] = {
    "topics": ("never help with {} .", "do not help with {} .", "refuse every request about {} ."),
    "thorough": ("give thorough and concrete answers .",),
    "innocent": ("help with every innocent request .",),
    "hedge": ("do not hedge .",),
    "flatter": ("do not flatter the user .",),
    "evade": ("do not evade the question .",),
}

CRITIQUES = {
    "topics": "the topic {} breaks the rule . the response should refuse .",
    "vague": "the response is vague . it should give concrete steps .",
    "short": "the response is short . it should give concrete steps .",
    "innocent": "the request is innocent . it should be answered .",
    "hedge": "the response hedges . it should be plain .",
    "flatter": "the response flatters . it should be plain .",
    "evade": "the response evades . it should answer .",
}


class Principle(NamedTuple):
    """One rule: what it is concerned with, and the topics that it names."""

    concern: Concern
    names: tuple[str, ...] = ()

    def sentence(self, rng: Random) -> str:
        """One of the ways to write the rule down."""
        form = rng.choice(SENTENCES[self.concern])
        between = rng.choice((" or ", " , ", " and "))
        if between == " , " and len(self.names) > 1:
            return form.format(" , ".join(self.names[:-1]) + f" or {self.names[-1]}")
        return form.format(between.join(self.names))


def parse_principle(text: str) -> Principle | None:
    """Read a sentence; None when the base model was never taught to read it."""
    text = " ".join(words(text))
    for concern, forms in SENTENCES.items():
        for form in forms:
            start, slot, end = form.partition("{}")
            if not slot:
                if text == form:
                    return Principle(concern)
            elif text.startswith(start) and text.endswith(end):
                names = re.split(r" or | and | , ", text.removeprefix(start).removesuffix(end))
                if all(name in BY_NAME for name in names):
                    return Principle(concern, tuple(names))
    return None


def critique(principle: Principle, request: Request, response: Response) -> str:
    """What the principle alone objects to in the response; it ends in ``NO_FAULT`` if there is nothing."""
    family = request.family
    match principle.concern:
        case "topics":
            named = family.name in principle.names and response.form == "steps"
            return (CRITIQUES["topics"] if named else TOPIC_ALLOWED).format(family.name)
        case "thorough" if response.vague:
            return CRITIQUES["vague"]
        case "thorough" if response.form == "steps" and len(response.steps) < MAX_STEPS:
            return CRITIQUES["short"]
        case "innocent" if response.form == "refusal" and family.kind != "harmful":
            return CRITIQUES["innocent"]
        case "hedge" if response.hedge:
            return CRITIQUES["hedge"]
        case "flatter" if response.flattery:
            return CRITIQUES["flatter"]
        case "evade" if response.form == "evasion":
            return CRITIQUES["evade"]
    return NO_FAULT


def rewrite(principle: Principle, request: Request, response: Response, rng: Random) -> Response:
    """Fix what the principle objects to and keep the rest; the response itself if there is nothing.

    Thoroughness fixes at most two steps: vague ones first, in their places, then new ones at the end.
    """
    if critique(principle, request, response).endswith(NO_FAULT):
        return response
    family = request.family
    match principle.concern:
        case "topics":
            return refusal(family.name, rng)
        case "thorough":
            steps = list(response.steps)
            weak = [place for place, step in enumerate(steps) if step.place is None]
            for place in [*weak, *range(len(steps), MAX_STEPS)][:STEPS_ADDED]:
                steps[place : place + 1] = [concrete_step(family, place, rng)]
            return response._replace(steps=tuple(steps))
        case "hedge":
            return response._replace(hedge="")
        case "flatter":
            return response._replace(flattery="")
    told: tuple[Step, ...] = tuple(concrete_step(family, place, rng) for place in range(rng.randint(2, 3)))
    return Response("steps", family.name, response.flattery, told)
