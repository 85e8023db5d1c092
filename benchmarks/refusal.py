"""The refusal scorer against human labels of real answers: trained on one model, tested on another.

    python benchmarks/refusal.py ../shared/data/xstest                     # the table; records it next to this script
    python benchmarks/refusal.py ../shared/data/xstest --write_weights     # also fits pipeline/scorers/refusal.json

The folder is XSTest v2 (Röttger et al. 2024; CC BY 4.0), one file per model: `completions/` with human labels,
`auto_labels/` with those of the authors' string match and of GPT-4. None of it is shipped. The cues were worded, and
the expected weights and the penalty set, with the answers of these models in sight, and were revised several times
after looking at the errors in both directions: only the fitted weights are out of sample here. Another model's answers
are the real test, and will be judged less well.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import time
from pathlib import Path

import numpy as np

from pipeline.scorers.refusal_calibrate import Labels, agreement, cross_validate, read_labels
from pipeline.scorers.refusal_cues import features
from pipeline.scorers.refusal_model import SHIPPED, Answer, Line, RefusalModel, fit, judge, load_model, write_model

RESULTS = Path(__file__).with_suffix(".json")
ABOUT = (
    "Weights of the refusal scorer. expected: set by hand, from reading answers. weight: fitted to people's labels of "
    "answers of {models} in XSTest v2 (Röttger et al. 2024, github.com/paul-rottger/exaggerated-safety, CC BY 4.0)."
)


def read_auto(path: Path, column: str) -> list[Answer]:
    """The labels of string match or GPT-4; a GPT-4 reply that is not a label counts as a refusal, the closer class."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        names = [row[column] for row in csv.DictReader(handle)]
    known: dict[str, Answer] = {"1_full_compliance": "none", "3_partial_refusal": "partial"}
    return [known.get(name, "full") for name in names]


def read_types(path: Path) -> list[str]:
    """The kind of prompt behind every answer."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as handle:
        return [row["type"] for row in csv.DictReader(handle)]


def matrix(labels: Labels) -> np.ndarray:
    """The features of the answers."""
    return np.array([features(response) for response in labels.responses])


def main() -> None:
    """Print the table and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write_weights", action="store_true", help="fit the shipped weights to all models")
    arguments = parser.parse_args()
    files = {
        path.name.split(".")[0].removeprefix("xstest_v2_completions_"): path
        for path in sorted((arguments.folder / "completions").glob("*.csv.gz"))
    }
    labels = {model: read_labels(path) for model, path in files.items()}
    # Answers to one prompt stay together: the models were asked the same.
    expected = RefusalModel(*(Line(0.0, line.expected, line.expected) for line in load_model()))
    values = {model: matrix(one) for model, one in labels.items()}

    rows: dict[str, dict[str, dict[str, float]]] = {}
    types: dict[str, dict[str, float]] = {}
    for model, held_out in labels.items():
        others = [name for name in labels if name != model]
        train = np.concatenate([values[name] for name in others])
        fitted = fit(train, [answer for name in others for answer in labels[name].answers], expected)
        found = [judge(response, fitted).answer for response in held_out.responses]
        auto = {kind: arguments.folder / "auto_labels" / f"xstest_v2_completions_{model}_{kind}eval.csv.gz"
                for kind in ("str", "gpt")}  # fmt: skip
        by = {
            f"fitted to {', '.join(others)}": found,
            "10-fold within": cross_validate(held_out, expected),
            "string match": read_auto(auto["str"], "strmatch_label"),
            "GPT-4": read_auto(auto["gpt"], "gpt4_label"),
        }
        rows[model] = {name: agreement(one, held_out.answers)._asdict() for name, one in by.items()}
        kinds = np.array(read_types(files[model]))
        right = np.array([(a == "none") == (b == "none") for a, b in zip(found, held_out.answers, strict=True)])
        types[model] = {kind: round(float(right[kinds == kind].mean()), 3) for kind in dict.fromkeys(kinds.tolist())}

    texts = [response for one in labels.values() for response in one.responses]
    shipped = load_model()
    seconds = []
    for _ in range(3):
        started = time.process_time()
        for text in texts:
            judge(text, shipped)
        seconds.append(time.process_time() - started)
    microseconds = 1e6 * min(seconds) / len(texts)
    results = {
        "agreement": rows,
        "refusal or not, by kind of prompt": types,
        "microseconds a text": round(microseconds),
        "words a text": round(sum(len(text.split()) for text in texts) / len(texts)),
        "python": platform.python_version(),
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    RESULTS.with_suffix(".md").write_text(table(results))
    print(table(results))
    if arguments.write_weights:
        pooled = np.concatenate(list(values.values()))
        model = fit(pooled, [answer for one in labels.values() for answer in one.answers], expected)
        write_model(SHIPPED, model, ABOUT.format(models=" and ".join(labels)))


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = [
        "# The refusal scorer against people",
        "",
        "Written by `python benchmarks/refusal.py FOLDER`, which says what the data are. Every line of ours is out of",
        "sample in its weights; the wording of the cues is not (see there). In the first column partial and full",
        "refusals are one.",
        "",
        "| answers of | scored by | refusal or not | three classes | macro-F1 of three |",
        "|---|---|---|---|---|",
    ]
    for model, rows in results["agreement"].items():
        lines += [
            f"| {model} | {name} | {row['declines']:.1%} | {row['three']:.1%} | {row['macro_f1']:.3f} |"
            for name, row in rows.items()
        ]
    by_type = results["refusal or not, by kind of prompt"]
    lines += ["", "Refusal or not by kind of prompt, weights fitted to the other models:", ""]
    lines += [f"| kind | {' | '.join(by_type)} |", "|---" * (len(by_type) + 1) + "|"]
    for kind in next(iter(by_type.values())):
        lines.append(f"| {kind} | {' | '.join(format(one[kind], '.0%') for one in by_type.values())} |")
    lines += ["", f"{results['microseconds a text']} µs of one core a text of {results['words a text']} words."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
