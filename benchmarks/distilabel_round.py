"""One round (generate, critique, rewrite) as a distilabel pipeline; runs in distilabel's environment, without ours.

    python benchmarks/distilabel_round.py ROUND.json

`against_distilabel.py` writes ROUND.json. Settings of distilabel: the requested batch size, the CPU, no cache of
earlier runs, and by default all steps loaded at once, each in a process of its own, so that one step works on a batch
while the next one works on the batch before.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from distilabel.models import TransformersLLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import Task


class TimedLLM(TransformersLLM):
    """distilabel's in-process model, which also notes when each call began and ended.

    Attributes:
        calls: file that gets one line per call.
        step: name of the step that makes the calls.
        rows_at_once: number of rows that transformers' pipeline decodes together. distilabel hands it a whole batch
            of texts and has no setting for this, so transformers' own default applies, which is 1.
    """

    calls: str
    step: str
    rows_at_once: int = 1

    def load(self) -> None:
        """Load the model, in the process of its step."""
        super().load()
        self._pipeline._batch_size = self.rows_at_once

    def generate_outputs(self, inputs: list[Any], num_generations: int = 1, **kwargs: Any) -> list[Any]:
        """Generate as distilabel does, and note the time."""
        started = time.time()
        outputs: list[Any] = super().generate_outputs(inputs=inputs, num_generations=num_generations, **kwargs)
        with Path(self.calls).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "began": started, "ended": time.time()}) + "\n")
        return outputs


class Turn(Task):
    """The next turn of a dialogue.

    Attributes:
        turns: columns that hold the dialogue so far, alternately the user's and the assistant's.
        says: column for the answer.
    """

    turns: list[str]
    says: str

    @property
    def inputs(self) -> list[str]:
        """Columns that are read."""
        return self.turns

    @property
    def outputs(self) -> list[str]:
        """Columns that are written."""
        return [self.says, "model_name"]

    def format_input(self, input: dict[str, Any]) -> list[dict[str, str]]:
        """The dialogue."""
        return [{"role": ("user", "assistant")[i % 2], "content": input[name]} for i, name in enumerate(self.turns)]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer under its name."""
        return {self.says: output}


def build(given: dict[str, Any], rows: list[dict[str, str]]) -> Pipeline:
    """The round."""

    def speaker(step: str) -> TimedLLM:
        return TimedLLM(
            calls=given["calls"],
            step=step,
            rows_at_once=given["rows_at_once"],
            model=given["model"],
            torch_dtype="float32",
            device="cpu",
            generation_kwargs={
                "max_new_tokens": given["max_new_tokens"],
                "temperature": 1.0,
                "top_p": 1.0,
                "repetition_penalty": 1.0,
            },
        )

    turns = ["prompt", "response", "critique_request", "critique", "rewrite_request"]
    size = given["batch_size"]
    with Pipeline(name="round", cache_dir=given["cache"]) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=size)
        steps = [
            Turn(name=says, llm=speaker(says), turns=turns[:upto], says=says, input_batch_size=size)
            for upto, says in ((1, "response"), (3, "critique"), (5, "revision"))
        ]
        load >> steps[0] >> steps[1] >> steps[2]
    return pipeline


def main() -> None:
    """Run the round; write its rows, one JSON object a line."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in Path(given["prompts"]).read_text(encoding="utf-8").splitlines()]
    found = build(given, rows).run(use_cache=False)
    done = [
        json.dumps({name: row[name] for name in ("response", "critique", "revision")})
        for row in found["default"]["train"]
    ]
    Path(given["rows"]).write_text("".join(f"{line}\n" for line in done), encoding="utf-8")


if __name__ == "__main__":
    main()
