"""The placebo arm: the same training on the policy's own unrevised answers, to show what training alone does.

It has a run directory of its own, ``placebo/`` inside the run's, with the same round 0. Each round it answers the
same prompts, trains on those answers whose counterparts were revised in the run itself (as many rows and steps, except
for answers with defects for which a revision would be dropped), and is measured and screened like any policy.
``placebo: true`` turns it on.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from pipeline import alarm, distill, generate, measure
from pipeline.engines.base import Completion
from pipeline.report.trackers import mirror_of, mirror_rounds
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, write_text
from pipeline.runs.rundir import RunDir
from pipeline.runs.stage import Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import REFINEMENTS, read_table, to_table, write_table
from pipeline.scorers.defects import revision_defect

if TYPE_CHECKING:
    from pipeline.setup.session import Session


def run_round(session: Session, round_: int) -> dict[str, Any]:
    """Run a round of the placebo arm after the run's own, missing earlier rounds first; return its alarm."""
    arm = session.at(session.run.placebo)
    done = [arm.run.alarm(r) if r else arm.run.done(0) for r in range(round_)]  # round 0 is copied, its alarm too
    missing = ranks.from_main([earlier for earlier, path in enumerate(done) if not path.exists()])
    for earlier in missing:
        run_round(session, earlier)
    if round_:
        generate.run(arm, round_)
        _keep_unrevised(arm, session.run, round_)
        distill.run(arm, round_)
        measure.run(arm, round_)
    elif ranks.is_main() and not arm.run.done(0).exists():
        # Round 0 is the same base on the same probes.
        shutil.rmtree(arm.run.round_dir(0), ignore_errors=True)
        shutil.copytree(session.run.round_dir(0), arm.run.round_dir(0), ignore=shutil.ignore_patterns("DONE"))
        write_text(arm.run.done(0), "round 0 is that of the run\n")
    ranks.barrier()
    raised = alarm.run(arm, round_)
    if ranks.is_main():
        mirror_rounds(mirror_of(arm.parsed, arm.run), round_)
    return raised


def _keep_unrevised(arm: Session, run: RunDir, round_: int) -> None:
    """Stand in for refine: a sound answer is final as it is if the run's own answer to that prompt was revised."""
    refined = run.stage_dir(round_, "refine") / "refinements.parquet"
    responses = arm.run.stage_dir(round_, "generate") / "responses.parquet"
    stage = Stage(
        arm.run.stage_dir(round_, "refine"),
        "refine",
        round_,
        inputs={"revised": file_sha256(refined), "responses": file_sha256(responses)},
        settings=arm.settings("refine"),
    )
    if stage.is_complete():
        return
    output = "refinements.parquet"
    if ranks.is_main():
        taught = read_table(refined, ["prompt_id", "sample", "final"]).to_pylist()
        keys = {(row["prompt_id"], row["sample"]) for row in taught if row["final"] is not None}
        rows = []
        for row in read_table(responses).to_pylist():
            answer = Completion(row["response"] or "", [], row["finish_reason"], 0)
            defect = row["drop_reason"] or revision_defect("", answer)
            usable = defect is None or defect in arm.recipe.keep_dropped
            final = row["response"] if usable and (row["prompt_id"], row["sample"]) in keys else None
            stands_in = {"revision_index": 0, "drop_reason": defect, "final": final}
            rows.append(row | stands_in | {"prompt_tokens": 0, "new_tokens": 0})
        columns = REFINEMENTS.names
        table = to_table([{name: row.get(name) for name in columns} for row in rows], REFINEMENTS)
        write_table(stage.folder / output, [table], REFINEMENTS)
    ranks.barrier()
    facts = stage_facts(stage.folder, [output], arm.recipe.keep_dropped)
    stage.finish([output], facts | {"constitution": None} | arm.describe_engine())
