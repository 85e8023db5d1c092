"""What is known about the critics of a run, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.inputs.prompt_sources import of_sandbox
from pipeline.report.audit import Knowledge, critic_record, panel_value
from pipeline.report.checkpoints import measured_rounds
from pipeline.report.critic_words import critic_report
from pipeline.report.proxy import proxy_report
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir


def audit_report(run_: RunDir, *, rounds: Sequence[int] | None = None) -> str:
    """What is known about a run's critics, round by round, and the table of proxy against gold.

    Args:
        run_: run directory. On the sandbox, whose truth is known, rounds without ``critic.json`` are evaluated from
            their tables.
        rounds: rounds whose critics are reported; all available ones when None.
    """
    resolved = read_json(run_.resolved)
    records = []
    for round_ in range(1, 1 + int(resolved["num_rounds"])):
        if run_.critic(round_).exists():
            records.append(read_json(run_.critic(round_)))
        elif of_sandbox(resolved["prompts"]) and (run_.stage_dir(round_, "refine") / "manifest.json").exists():
            records.append(critic_record(run_, round_, Knowledge(sandbox=True)))
    told = [critic_report(one) for one in records if (rounds is None or one["round"] in rounds) and _known(one)]
    for gold, proxies in _proxies_of(records).items():
        told.append(proxy_report(proxies, _panel_by_round(run_, measured_rounds(run_), gold)))
    return "\n\n".join(told)


def _known(record: Mapping[str, Any]) -> bool:
    return bool(record["sources"] or record["rewrites_by_judge"])


def _proxies_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
    """The proxies of critic records by gold score, each with its policy's round: the one before the critic's."""
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for record in records:
        for proxy in record["proxies"]:
            found.setdefault(proxy["gold"], []).append((record["round"] - 1, proxy))
    return found


def _panel_by_round(run: RunDir, rounds: Sequence[int], gold: str) -> dict[int, dict[str, float | None]]:
    """The gold score and the KL of every round on its first probe set."""
    return {
        r: {
            "mean": panel_value(run, r, gold, "mean"),
            "cvar_1pct": panel_value(run, r, gold, "cvar_1pct"),
            "kl": panel_value(run, r, "kl", "mean"),
        }
        for r in rounds
    }
