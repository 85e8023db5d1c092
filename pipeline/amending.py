"""What no amendment may change: how the probes of round 0 were sampled, what alarms watch, a LoRA that goes on.

Every later round is compared with round 0. With other probes, the comparison would be of settings, not of rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RunError
from pipeline.runs.files import read_json
from pipeline.screening import properties_of, thresholds_of
from pipeline.session import Session
from pipeline.training.lora import LISTS, VALUES, require_same_lora

LENGTH = "longest answer to a probe"


def check_amendment(session: Session, *, adding: bool = False) -> None:
    """Check that what was already measured and trained can still be compared with and continued; write nothing.

    Before round 0 is sampled, everything may change. Where scorers are only added to rounds (``adding``), no alarm is
    raised, so what alarms watch does not matter.

    Raises:
        RunError: the probes would be other ones, or sampled otherwise, than at round 0; or an alarm would watch what
            round 0 fixed no thresholds for.
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
    raise RunError(
        f"{run.path}: round 0 was measured with other settings, and later rounds are compared with it, so an "
        "amendment cannot change them:\n  " + "\n  ".join(lines) + "\nGive another --run_dir to start a new run, or "
        "leave them as they were."
    )


def _sampled_with(resolved: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """What decides the probe samples of a checkpoint, besides the model and what runs it."""
    # Files and columns count by what is read from them: a file may have moved.
    contents = {name: digest for name, digest in inputs.items() if name.startswith("probe_sets.")}
    return {
        "probe_sets": [entry.partition("=")[0] for entry in resolved["probe_sets"]],
        **contents,
        "probe_samples": resolved["probe_samples"],
        "probe_temperature": resolved["probe_temperature"],
        "top_p": resolved["top_p"],
        LENGTH: resolved["probe_max_new_tokens"] or resolved["max_new_tokens"],
        "chat_template_path": inputs.get("chat_template_path"),
    }


def _change(name: str, before: Any, now: Any) -> str:
    if name == "chat_template_path" or name.startswith("probe_sets."):
        # A set's name stands in the line of `probe_sets` if it is new or gone.
        return "is new" if before is None else "is gone" if now is None else "the content changed"
    shown = [", ".join(value) if isinstance(value, list) else str(value) for value in (before, now)]
    return f"{shown[0]} -> {shown[1]}"


def _check_lora(session: Session) -> None:
    run, resolved = session.run, session.parsed.resolved
    last = max(run.trained_rounds(), default=0)
    old = read_json(run.resolved)
    if not last or resolved["start_from"] != "previous" or old == resolved:
        return
    changed = [name for name in (*VALUES, *LISTS) if name in old and old[name] != resolved[name]]
    require_same_lora(resolved, run.adapter_dir(last), changed)
