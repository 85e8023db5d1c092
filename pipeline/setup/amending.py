"""What no amendment may change: how round 0 was measured, what alarms watch and spend, a LoRA that goes on.

Every later round is compared with round 0. With another base or other probes, the comparison would be of settings, not
of rounds; and the tests of alarms keep their error rates only if what they share was fixed before the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RunError
from pipeline.runs.files import read_json
from pipeline.runs.tables import read_table
from pipeline.setup.session import Session
from pipeline.setup.watched import properties_of, thresholds_of
from pipeline.training.lora import LISTS, VALUES, require_same_lora

LENGTH = "longest answer to a probe"
OF_THE_BASE = ("dtype", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")
"""The fields that decide its precision; the last two only count in 4 bits."""


def check_amendment(session: Session, *, adding: bool = False) -> None:
    """Check that what was already measured and trained can still be compared with and continued; write nothing.

    Before round 0 is sampled, everything may change. Where scorers are only added to rounds (``adding``), no alarm is
    raised, so what alarms watch does not matter.

    Raises:
        RunError: the base or the probes would be other ones, or sampled otherwise, than at round 0; or an alarm would
            watch what round 0 fixed no thresholds for, spend what other rounds have spent, or take for fresh what a
            round has answered to train on.
        InputError: the round before, which ``start_from: previous`` continues, has another LoRA.
    """
    run = session.run
    if not run.resolved.exists():
        return
    if (run.stage_dir(0, "measure") / "samples.manifest.json").exists():
        _check_probes(session)
    if run.alarm(0).exists() and not adding:
        for watched in properties_of(session):
            thresholds_of(session, watched)
        _check_horizon(session)
        _check_reserve(session)
    _check_lora(session)


def _check_probes(session: Session) -> None:
    run = session.run
    before = _sampled_with(read_json(run.resolved), read_json(run.inputs))
    now = _sampled_with(session.parsed.resolved, session.input_digests)
    changed = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    if not changed:
        return
    lines = [f"{name}: {_change(name, before.get(name), now.get(name))}" for name in changed]
    if LENGTH in changed and session.recipe.probe_max_new_tokens is None:
        lines[changed.index(LENGTH)] += (
            f" (`max_new_tokens` decides it while `probe_max_new_tokens` is unset; `probe_max_new_tokens: "
            f"{before[LENGTH]}` keeps it)"
        )
    if "model" in changed and "@" in before["model"]:
        lines[changed.index("model")] += f" (`model_revision: {before['model'].rpartition('@')[2]}` keeps it)"
    raise RunError(
        f"{run.path}: round 0 was measured with other settings, and later rounds are compared with it, so an "
        "amendment cannot change them:\n  " + "\n  ".join(lines) + "\nGive another --run_dir to start a new run, or "
        "leave them as they were."
    )


def _sampled_with(resolved: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """What decides the scores of a checkpoint and its tests, besides its adapter and the engine that runs it."""
    # Files and columns count by what is read from them: a file may have moved.
    contents = {name: digest for name, digest in inputs.items() if _is_content(name)}
    of_base = OF_THE_BASE if resolved["load_in_4bit"] else OF_THE_BASE[:2]
    return {
        **{name: resolved[name] for name in of_base},
        "probe_sets": [entry.partition("=")[0] for entry in resolved["probe_sets"]],
        **contents,
        "probe_samples": resolved["probe_samples"],
        "probe_temperature": resolved["probe_temperature"],
        "top_p": resolved["top_p"],
        LENGTH: resolved["probe_max_new_tokens"] or resolved["max_new_tokens"],
        "vllm_max_model_len": resolved["vllm_max_model_len"],  # what does not fit is refused
        "seed": resolved["seed"],  # of the noise that rounds share, and of the half of the panel that is tested
    }


def _is_content(name: str) -> bool:
    return name in ("model", "chat_template_path", "calibration") or name.startswith("probe_sets.")


def _change(name: str, before: Any, now: Any) -> str:
    if _is_content(name) and "@" not in str(before):  # a model of the Hub is known by its name and commit
        # A set's name stands in the line of `probe_sets` if it is new or gone.
        return "is new" if before is None else "is gone" if now is None else "the content changed"
    shown = [", ".join(value) if isinstance(value, list) else str(value) for value in (before, now)]
    return f"{shown[0]} -> {shown[1]}"


def _check_horizon(session: Session) -> None:
    run = session.run
    before, now = read_json(run.resolved)["horizon"], session.recipe.horizon
    screened = [round_ for round_ in run.trained_rounds() if (run.stage_dir(round_, "alarm") / "screen.json").exists()]
    if screened and before != now:
        raise RunError(
            f"{run.path}: horizon: {before} -> {now}, but round {screened[0]} has spent its part of the false alarms "
            f"under `horizon: {before}`. Leave it; later rounds than that are measured but can raise no red by a "
            "confirmation. Or give another --run_dir."
        )


def _check_reserve(session: Session) -> None:
    """Prompts may be added to a reserve at any time, but not those that rounds before have answered to train on."""
    run = session.run
    before, now = read_json(run.inputs), session.input_digests
    for key in ("reserve", "slice_reserve"):
        if key not in now or before.get(key) == now[key]:
            continue
        fresh = {prompt.id for prompt in session.alarm_prompts[key].prompts}
        for round_ in run.rounds_begun():
            for path in sorted(run.stage_dir(round_, "generate").glob("*.parquet")):
                used = fresh.intersection(read_table(path, ["prompt_id"])["prompt_id"].to_pylist())
                if used:
                    raise RunError(
                        f"{key}: {len(used)} of its {len(fresh)} prompts are no longer fresh: round {round_} answered "
                        f"them to train on ({path}). Take them out of the reserve."
                    )


def _check_lora(session: Session) -> None:
    run, resolved = session.run, session.parsed.resolved
    last = max(run.trained_rounds(), default=0)
    old = read_json(run.resolved)
    if not last or resolved["start_from"] != "previous" or old == resolved:
        return
    changed = [name for name in (*VALUES, *LISTS) if name in old and old[name] != resolved[name]]
    require_same_lora(resolved, run.adapter_dir(last), changed)
