"""The recipe fields of this project itself; those of model and training are TRL's.

A new field is added here and nowhere else: a line in `Recipe`, with its group, its help and, for a number,
its range. The parser, `--help`, the resolved recipe and the resume check follow from it. Its name must not be
one of TRL's `SFTConfig` or `ModelConfig` (a test guards it), which own `seed`, `output_dir` and many more.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from typing import Any, Literal, NamedTuple

from pipeline.errors import InputError
from pipeline.inputs.addresses import is_address, read_addresses, read_key_variables
from pipeline.inputs.scorer_names import describe_names, name_problem, split_name

SANDBOX = "sandbox"
"""The value of `model_name_or_path` that selects the model shipped with the package, and its small world."""

OTHER_ROLES = ("critic", "reviser", "judge", "second_judge")
"""Keys that may name another model than the policy."""


class Range(NamedTuple):
    """The values that a number may take; both ends are included, except the lower one if `above` is set."""

    low: float = -inf
    high: float = inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the range."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == inf else f"{low} and at most {self.high:g}"


COUNT = Range(1)
SHARE = Range(0, 1)
TEMPERATURE = Range(0)


def _about(group: str, text: str, range: Range | None = None) -> dict[str, Any]:
    return {"group": group, "help": text, "range": range}


def _setting(group: str, default: Any, text: str, range: Range | None = None) -> Any:
    return field(default=default, metadata=_about(group, text, range))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run does, apart from the model and its training.

    Raises:
        InputError: a value outside its range, or values that do not go together; names every such key.
    """

    run_dir: str | None = _setting(
        "run",
        None,
        "Folder of the run; runs/<recipe folder>, or runs/<file> for a recipe not named config.yaml.",
    )
    num_rounds: int = _setting("run", 3, "Rounds after round 0, which measures the untouched base.", Range(0))
    chunk_rows: int = _setting("run", 512, "Rows written at once: a killed run loses at most this many.", COUNT)
    start_from: Literal["base", "previous"] = _setting(
        "run", "base", "Weights that a round trains from: the frozen base, or those of the round before."
    )
    data_policy: Literal["replace", "accumulate", "anchor"] = _setting(
        "run",
        "replace",
        "Rows that a round trains on: its own, those of all rounds so far, or its own and round 1's.",
    )
    helpful_fraction: float = _setting(
        "run",
        0.0,
        "Share of the training rows that are helpful examples: the policy's own answers.",
        Range(0, 0.99),
    )

    prompts: str | None = _setting(
        "prompts",
        None,
        "Training prompts: a Hub id or a file (JSON, JSONL, CSV, Parquet, text). The sandbox has its own.",
    )
    prompt_column: str | None = _setting("prompts", None, "Column with the prompts; found by its name when unset.")
    prompt_split: str | None = _setting("prompts", None, "Split of the prompt set; `train` when unset.")
    prompt_slice_column: str | None = _setting("prompts", None, "Column with the slice that a prompt belongs to.")
    max_prompts: int | None = _setting(
        "prompts", None, "Use at most this many prompts, a random subset drawn with the run's seed.", COUNT
    )
    near_duplicate: float = _setting(
        "prompts",
        0.8,
        "Leave out training prompts at least this similar to a probe prompt (Jaccard similarity of word triples; 1 is "
        "identical).",
        Range(0, 1, above=True),
    )
    helpful_prompts: str | None = _setting("prompts", None, "Prompts of the helpful examples, as for `prompts`.")
    helpful_column: str | None = _setting("prompts", None, "Column with the prompts in `helpful_prompts`.")

    samples_per_prompt: int = _setting("sampling", 1, "Responses sampled for each prompt.", COUNT)
    temperature: float = _setting("sampling", 1.0, "Sampling temperature of responses; 0 is greedy.", TEMPERATURE)
    top_p: float = _setting("sampling", 1.0, "Nucleus (top-p) of all sampling in the run.", Range(0, 1, above=True))
    max_new_tokens: int = _setting("sampling", 256, "Longest response, in tokens.", COUNT)
    batch_size: int = _setting("sampling", 32, "Rows generated or scored at once, per process.", COUNT)

    constitution: str = field(metadata=_about("refine", "Constitution file: the principles critiques are based on."))
    templates: str = _setting("refine", "constitutions/templates", "Folder of the critique and rewrite templates.")
    num_revisions: int = _setting("refine", 1, "Critique and rewrite passes over a response; the paper used 4.", COUNT)
    critique: bool = _setting("refine", True, "Critique before rewriting; false rewrites from the principle alone.")
    draw_with_replacement: bool = _setting(
        "refine", True, "Whether the passes over one response may draw the same principle twice."
    )
    critic: str = _setting(
        "refine",
        "policy",
        "Who critiques: `policy`, `base`, another model (`id`, `id@revision` or path), or http://host:8000/v1#model.",
    )
    reviser: str = _setting(
        "refine",
        "policy",
        "Who rewrites: `policy`, `base`, another model, or an address, as for `critic`; commas separate several.",
    )
    see_exchange: bool = _setting(
        "refine",
        True,
        "Show the exchange as chat turns; false needs templates that quote it (constitutions/templates/standalone).",
    )
    few_shot: str | None = _setting("refine", None, "JSON file of example exchanges shown to critic and reviser.")
    critique_temperature: float = _setting(
        "refine", 1.0, "Sampling temperature of critiques and revisions; 0 is greedy.", TEMPERATURE
    )
    critique_max_new_tokens: int = _setting("refine", 256, "Longest critique or revision, in tokens.", COUNT)
    keep_dropped: list[str] = field(
        default_factory=list,
        metadata=_about("refine", "Drop reasons whose revisions are trained on anyway."),
    )

    policy_engine: Literal["local", "vllm", "server"] = _setting(
        "engines",
        "local",
        "What samples and scores the policy: this process, a vLLM that the run starts, or servers already running.",
    )
    prefix_memory: float = _setting(
        "engines",
        4.0,
        "With `local`: GiB for keys and values of critiques, so that a rewrite reads only what is new; 0 keeps none.",
        Range(0),
    )
    policy_endpoints: list[str] = field(
        default_factory=list,
        metadata=_about("engines", "With `server`: vLLM addresses of the base model, such as http://host:8000/v1."),
    )
    api_keys: list[str] = field(
        default_factory=lambda: ["api.openai.com=OPENAI_API_KEY"],
        metadata=_about("engines", "`host=VARIABLE`: environment variable with a host's key, never the key itself."),
    )
    max_concurrent_requests: int = _setting(
        "engines", 256, "Maximum number of simultaneous requests to one address, per process.", COUNT
    )
    request_timeout: float = _setting(
        "engines", 600.0, "Seconds that one attempt of a request may take.", Range(0, above=True)
    )
    request_retries: int = _setting("engines", 5, "How often a failed request is retried.", Range(0))
    max_failed_rows: float = _setting(
        "engines",
        0.01,
        "Share of a stage's rows that may fail in every attempt; the reasons are kept. Beyond it the stage fails.",
        SHARE,
    )
    vllm_python: str | None = _setting(
        "engines",
        None,
        "With `vllm`: Python of the environment with vLLM; that of the `vllm` on the path when unset.",
    )
    vllm_max_model_len: int | None = _setting(
        "engines",
        None,
        "With `vllm`: longest prompt and answer together, in tokens; the model's own when unset.",
        COUNT,
    )
    vllm_tensor_parallel: int = _setting(
        "engines",
        1,
        "With `vllm`: GPUs that share one copy of the model; the node's other GPUs hold further copies.",
        COUNT,
    )
    vllm_gpu_memory: float = _setting(
        "engines",
        0.9,
        "With `vllm`: share of each GPU's memory that it takes; on the CPU at most half of what is free.",
        Range(0, 1, above=True),
    )
    vllm_keep_running: bool = _setting(
        "engines", False, "With `vllm`: keep it running while the policy trains; else it stops to free the memory."
    )

    probe_sets: list[str] = field(
        default_factory=list,
        metadata=_about("measure", "Fixed probe sets: `name=source`, such as `in_distribution=sandbox:probe:1000`."),
    )
    probe_samples: int = _setting("measure", 4, "Responses sampled for each probe prompt.", COUNT)
    probe_temperature: float = _setting("measure", 1.0, "Sampling temperature of probes; 0 is greedy.", TEMPERATURE)
    probe_max_new_tokens: int | None = _setting(
        "measure", None, "Longest probe response, in tokens; `max_new_tokens` when unset.", COUNT
    )
    probe_column: str | None = _setting("measure", None, "Column with the prompts in the probe sets.")
    probe_slice_column: str | None = _setting("measure", None, "Column with the slice in the probe sets.")
    scorers: list[str] = field(
        default_factory=lambda: ["refusal", "length", "loops", "kl", "nll_base"],
        metadata=_about(
            "measure",
            f"What is measured: {describe_names()}; `gold` needs the sandbox, `likelihood` needs `batteries`.",
        ),
    )
    batteries: list[str] = field(
        default_factory=list,
        metadata=_about("measure", "Files of the `likelihood` scorer, such as `constitutions/batteries/harm.txt`."),
    )
    sycophancy_templates: str = _setting(
        "measure",
        "constitutions/templates/sycophancy",
        "Folder of the texts that the `sycophancy` scorer puts around a question.",
    )
    classifier_template: str | None = _setting(
        "measure",
        None,
        "Jinja template (of `prompt` and `response`) of what a `classifier:MODEL` sees; the answer alone when unset.",
    )
    headline_scorer: str | None = _setting("measure", None, "Column that heads the drift table, such as `gold.harm`.")

    judge: str | None = _setting(
        "judge",
        None,
        "Who rates for `judge:RUBRIC`: `base`, or another model, as for `critic`; `policy` would judge itself.",
    )
    judge_template: str = _setting(
        "judge", "constitutions/templates/judge.jinja", "Template of the question that a judge is asked."
    )
    judge_swap: bool = _setting(
        "judge", False, "Rate with the ratings listed in both orders and take the mean; twice the cost."
    )
    judge_votes: int = _setting(
        "judge",
        0,
        "Ratings sampled per answer and averaged; 0 uses the judge's probabilities, which most servers do not return.",
        Range(0),
    )
    judge_retest: int = _setting(
        "judge",
        100,
        "Samples per round that are rated a second time, with the question reworded, to measure the judge's noise.",
        Range(0),
    )
    critic_labels: str | None = _setting(
        "judge", None, "JSONL file of answers labelled faulty or not, on which the critic is tested every round."
    )
    audit_answers: int = _setting(
        "judge", 100, "Answers per round that the judge rates before and after their rewrites.", Range(0)
    )
    recall_template: str | None = _setting(
        "judge",
        None,
        "Template of the request to say an answer again, used to measure content lost in rewrites; "
        "`recall.jinja` of `templates`, or the project's, when unset.",
    )
    second_judge: str | None = _setting(
        "judge", None, "Another judge, given as for `judge`, that rates each round's worst samples by the first one."
    )
    second_judge_share: float = _setting(
        "judge", 0.02, "Share of the samples, the worst ones, that the second judge rates.", Range(0, 1, above=True)
    )

    alarm_scorers: list[str] = field(
        default_factory=list,
        metadata=_about("alarms", "Columns whose tails raise alarms; the headline scorer alone when empty."),
    )
    calibration: str | None = _setting(
        "alarms",
        None,
        "Prompts, as for `prompts`, that set round 0's frozen thresholds; half of the panel when unset.",
    )
    reserve: str | None = _setting(
        "alarms",
        None,
        "Fresh prompts, drawn like the first probe set's; each is used once. Without them no alarm gets beyond amber.",
    )
    slice_reserve: str | None = _setting(
        "alarms", None, "Fresh prompts rich in rare slices, to confirm an alarm in one; `reserve` when unset."
    )
    horizon: int = _setting(
        "alarms", 10, "Rounds over which the 5% of false alarms are spent; fixed before the first.", Range(1, 200)
    )
    confirm_prompts: int = _setting(
        "alarms",
        2000,
        "Fresh prompts per confirmation, at most: what is left in the reserve, or of the slice in it, is also divided "
        "among the remaining rounds.",
        COUNT,
    )
    watch_prompts: int = _setting(
        "alarms",
        500,
        "Fresh prompts per round for the e-process, which runs whether or not anything is suspected; 0 turns it off.",
        Range(0),
    )
    placebo: bool = _setting(
        "alarms", False, "Also run a placebo arm: the same steps on the policy's own unrevised answers."
    )
    on_alarm: Literal["warn", "stop", "rollback"] = _setting(
        "alarms", "warn", "After a red alarm: continue, end the run there, or end it with the last round without one."
    )
    select: Literal["last", "best"] = _setting(
        "alarms", "last", "Round whose adapter the run recommends: the last, or the best by `guard`."
    )
    guard: str | None = _setting(
        "alarms",
        None,
        "SCORER/QUANTITY that selects the best round, on the first probe set that the scorer has a score on; the "
        "headline's cvar_1pct when unset.",
    )

    def __post_init__(self) -> None:
        if found := find_problems(vars(self)):
            raise InputError("\n".join(f"`{name}` {problem}" for name, problem in found.items()))


def find_problems(values: Mapping[str, Any]) -> dict[str, str]:
    """Problems with well-typed values of `Recipe`'s fields: name -> what is required, and what was found.

    Fields that `values` lacks count as having their default, and may be missing even if they are required.
    """
    found = {}
    for spec in fields(Recipe):
        value, range = values.get(spec.name), spec.metadata.get("range")
        if range is not None and value is not None and not range.holds(value):
            found[spec.name] = f"must be {range}, found {value}"
    if values.get("helpful_fraction") and not values.get("helpful_prompts"):
        found.setdefault("helpful_fraction", "needs `helpful_prompts`, the prompts of the helpful examples")
    if values.get("helpful_prompts") and not values.get("helpful_fraction"):
        found["helpful_prompts"] = (
            "needs `helpful_fraction`, their share of the training rows; without it none is used"
        )
    if problem := _probe_set_problem(values.get("probe_sets", [])):
        found["probe_sets"] = problem
    scorers = values.get("scorers", [])
    if problem := _scorers_problem(scorers):
        found["scorers"] = problem
    if ("likelihood" in scorers) != bool(values.get("batteries")):
        found.setdefault("batteries", "and `likelihood` among the `scorers` need each other")
    if any(split_name(entry).name == "judge" for entry in scorers) and not values.get("judge"):
        found.setdefault("judge", "is missing, but `scorers` has something to judge; name a model, or `base`")
    if values.get("second_judge") and not values.get("judge"):
        found["second_judge"] = "needs a first judge; name one as `judge`"
    found |= _engine_problems(values)
    if values.get("constitution", MISSING) == "":
        found["constitution"] = "must name a file, found nothing"
    if values.get("run_dir") == "":
        found["run_dir"] = "must name a folder, found nothing"
    return found


def _scorers_problem(scorers: list[str]) -> str | None:
    if repeated := [name for i, name in enumerate(scorers) if name in scorers[:i]]:
        return f"names `{repeated[0]}` twice"
    return next((problem for entry in scorers if (problem := name_problem(entry))), None)


def _engine_problems(values: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    endpoints = values.get("policy_endpoints") or []
    if (values.get("policy_engine") == "server") != bool(endpoints):
        found["policy_endpoints"] = "and `policy_engine: server` need each other"
    given = {name: str(values.get(name) or "") for name in OTHER_ROLES}
    given = {name: text for name, text in given.items() if is_address(text)}
    if endpoints:
        given["policy_endpoints"] = ",".join(endpoints)
    for name, text in given.items():
        try:
            read_addresses(text)
        except ValueError as error:
            found[name] = str(error)
    try:
        read_key_variables(values.get("api_keys") or [])
    except ValueError as error:
        found["api_keys"] = str(error)
    return found


def _probe_set_problem(probe_sets: list[str]) -> str | None:
    names = set()
    for probe_set in probe_sets:
        name, _, source = probe_set.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not source:
            return f"must be `name=source` with a name of letters, digits, `_` and `-`, found `{probe_set}`"
        if name in names:
            return f"names `{name}` twice"
        names.add(name)
    return None
