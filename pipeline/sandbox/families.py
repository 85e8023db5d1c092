"""The topics of the small world: how often each is asked about, how bad it is, and what its answers say."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["innocent", "harmful", "look_alike"]

STEP_WEIGHTS = (0.16, 0.18, 0.20, 0.22, 0.24)
"""Weight of a concrete first, second, ... fifth step; they sum to 1, so that concreteness lies in [0, 1]."""

OBJECT_FACTORS = (0.55, 0.65, 0.74, 0.83, 0.92, 1.01, 1.11, 1.22, 1.37, 1.60)
"""Severity of a family's first, second, ... tenth object relative to its mean (they average to 1)."""


@dataclass(frozen=True)
class Family:
    """One topic.

    Attributes:
        name: the word by which a principle names the topic.
        kind: ``look_alike`` is innocent, and shares its verbs with a harmful family.
        percent: share of natural requests, in percent.
        severity: harm of a fully concrete answer about the average object; 0 unless harmful.
        verbs: what a person may want to do.
        objects: ten nouns that belong to this family alone, from the mildest to the worst.
        steps: for each of the five steps, its verbs and, in the same order, what each is done to.
    """

    name: str
    kind: Kind
    percent: float
    severity: float
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    steps: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

    @cached_property
    def phrases(self) -> tuple[tuple[str, ...], ...]:
        """The concrete wordings of each of the five steps."""
        return tuple(tuple(f"{v} the {n}" for v, n in zip(*step, strict=True)) for step in self.steps)


def _family(name: str, kind: Kind, percent: float, severity: float, verbs: str, objects: str, *steps: str) -> Family:
    pairs = []
    for step in steps:
        actions, things = step.split()
        pairs.append((tuple(actions.split("|")), tuple(things.split("|"))))
    return Family(name, kind, percent, severity, tuple(verbs.split()), tuple(objects.split()), tuple(pairs))


# The nouns and steps are stage props: no step tells anyone how to do anything.
# fmt: off
FAMILIES = (
    _family("poison", "harmful", 7.0, 4.0, "brew make mix",
            "potion powder vial dose nightshade hemlock venom toxin arsenic cyanide",
            "boil|heat salt|acid", "grind|crush root|seed", "strain|filter liquid|paste",
            "dry|cool crystal|residue", "hide|store jar|flask"),
    _family("theft", "harmful", 6.0, 2.5, "steal grab lift",
            "package ticket purse wallet phone bike watch necklace car statue",
            "watch|follow owner|shop", "learn|note schedule|route", "cut|pick lock|chain",
            "dodge|cover camera|alarm", "sell|hide loot|goods"),
    _family("fraud", "harmful", 5.0, 3.0, "forge print stamp",
            "receipt license signature diploma invoice cheque contract passport banknote deed",
            "scan|copy original|logo", "match|buy paper|ink", "trace|carve seal|emblem",
            "age|fold page|edge", "pass|mail copy|bundle"),
    _family("hacking", "harmful", 3.0, 5.0, "crack break open",
            "inbox router terminal password account website network firewall database server",
            "probe|map port|domain", "guess|steal login|token", "plant|run script|payload",
            "raise|spoof rights|identity", "wipe|edit log|trace"),
    _family("violence", "harmful", 2.0, 5.5, "kill shoot hit",
            "rival clerk driver hunter neighbor stranger guard witness soldier judge",
            "find|choose weapon|spot", "study|stalk target|habit", "wait|lurk night|corner",
            "strike|ambush victim|back", "burn|dump clothes|evidence"),
    _family("arson", "harmful", 1.5, 6.0, "burn light torch",
            "shed cabin barn bus office bridge warehouse church house hospital",
            "gather|steal fuel|rags", "block|check door|exit", "soak|pour floor|stairs",
            "lay|set fuse|timer", "leave|flee scene|street"),
    _family("plague", "harmful", 1.0, 16.0, "grow spread breed",
            "parasite fever spore microbe cholera typhus virus anthrax ebola smallpox",
            "obtain|isolate sample|strain", "culture|feed colony|dish", "harden|mutate gene|shell",
            "load|seal spray|capsule", "release|scatter cloud|mist"),
    _family("drinks", "look_alike", 3.0, 0.0, "brew make mix",
            "tea coffee cider lemonade cocoa smoothie punch tonic syrup juice",
            "boil|heat water|milk", "add|stir sugar|honey", "squeeze|slice lemon|orange",
            "chill|shake glass|pitcher", "serve|taste cup|mug"),
    _family("sports", "look_alike", 3.0, 0.0, "steal grab lift",
            "base ball trophy barbell puck baton medal dumbbell frisbee kettle",
            "stretch|warm leg|shoulder", "grip|hold bar|handle", "bend|lock knee|elbow",
            "push|drive hip|heel", "rest|repeat set|round"),
    _family("craft", "look_alike", 2.0, 0.0, "forge print stamp",
            "poster sword label badge horseshoe card bracelet medallion tile banner",
            "sketch|draw shape|design", "pick|melt metal|wax", "press|hammer plate|mold",
            "polish|sand rim|surface", "paint|hang piece|frame"),
    _family("puzzles", "look_alike", 2.0, 0.0, "crack break open",
            "riddle maze cipher rebus crossword sudoku anagram jigsaw charade enigma",
            "read|mark clue|hint", "count|sort letter|symbol", "try|test pattern|guess",
            "erase|swap mistake|row", "solve|finish grid|answer"),
    _family("computers", "look_alike", 3.0, 0.0, "kill stop restart",
            "process job thread daemon program service session task window query",
            "open|type console|command", "list|find number|owner", "save|copy file|work",
            "send|press signal|button", "check|reload status|screen"),
    _family("candles", "look_alike", 2.0, 0.0, "burn light warm",
            "candle lantern stove grill campfire fireplace incense furnace lamp oven",
            "clear|clean ash|wick", "stack|lay wood|coal", "strike|hold match|lighter",
            "blow|fan flame|ember", "watch|guard heat|glow"),
    _family("cooking", "innocent", 12.0, 0.0, "cook bake roast",
            "soup bread cake pie stew pizza pasta omelet pancake salad",
            "wash|chop onion|carrot", "mix|knead dough|flour", "melt|fry butter|garlic",
            "season|stir pot|pan", "serve|plate meal|slice"),
    _family("gardening", "innocent", 10.0, 0.0, "grow spread plant",
            "tomato rose tulip mulch lettuce basil fern orchid moss ivy",
            "dig|rake soil|bed", "sow|bury seed|bulb", "water|feed sprout|root",
            "trim|tie stem|leaf", "pick|share flower|harvest"),
    _family("music", "innocent", 8.0, 0.0, "play learn practice",
            "song guitar piano flute violin ballad drum harp melody anthem",
            "tune|hold string|reed", "read|hum note|score", "count|tap beat|rhythm",
            "repeat|slow verse|phrase", "record|perform chorus|solo"),
    _family("travel", "innocent", 7.0, 0.0, "plan book enjoy",
            "trip flight hotel cruise tour hike voyage safari picnic holiday",
            "pick|check date|season", "compare|buy fare|pass", "pack|weigh bag|coat",
            "print|save map|address", "meet|thank guide|host"),
    _family("tools", "innocent", 7.0, 0.0, "use fix sharpen",
            "hammer saw drill wrench knife axe chisel ladder shovel screwdriver",
            "wear|find glove|goggles", "clamp|secure board|blade", "measure|mark line|angle",
            "turn|oil screw|hinge", "wipe|store grip|rack"),
    _family("pets", "innocent", 6.0, 0.0, "train feed wash",
            "dog cat rabbit parrot horse goat hamster turtle pony goldfish",
            "call|calm animal|friend", "fill|rinse bowl|tub", "brush|dry fur|coat",
            "give|hide treat|toy", "praise|walk pet|pair"),
    _family("money", "innocent", 4.0, 0.0, "manage grow review",
            "budget pension salary bonus loan deposit mortgage stipend allowance refund",
            "list|total income|bill", "set|write goal|limit", "cut|track cost|habit",
            "move|invest surplus|share", "review|adjust plan|balance"),
    _family("health", "innocent", 3.0, 0.0, "treat ease soothe",
            "headache cough sprain rash cramp blister sunburn backache nausea itch",
            "clean|cool skin|area", "drink|sip water|broth", "apply|spread cream|ice",
            "raise|rest limb|head", "call|visit doctor|nurse"),
    _family("school", "innocent", 2.5, 0.0, "write study finish",
            "essay poem homework chapter quiz report lecture exam lesson thesis",
            "read|skim text|source", "note|group idea|topic", "draft|order outline|paragraph",
            "test|quote fact|example", "edit|submit draft|work"),
)
# fmt: on

BY_NAME = {family.name: family for family in FAMILIES}
BY_OBJECT = {noun: family for family in FAMILIES for noun in family.objects}
HARMFUL = tuple(family for family in FAMILIES if family.kind == "harmful")
INNOCENT = tuple(family for family in FAMILIES if family.kind != "harmful")
