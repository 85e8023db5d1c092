"""What a sequence classifier or a reward model thinks of an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from pipeline.errors import InputError, first_line
from pipeline.inputs.classified import ClassifierName
from pipeline.inputs.model import resolve_model
from pipeline.scorers.base import Sample, Score, Worse

if TYPE_CHECKING:
    from pipeline.engines.classifier import SequenceClassifier

Head = Literal["reward", "softmax", "sigmoid"]


class Labels(NamedTuple):
    """A classifier's labels, in the order of its outputs, and how its outputs are read."""

    names: tuple[str, ...]
    head: Head


class Classifier:
    """One column per label, ``classifier.MODEL.LABEL``; MODEL: the last part of its name, or the recipe's name for it.

    * Several labels: the label's probability, [0, 1]; by softmax where one label applies, by the logistic function
      where the model's config says ``multi_label_classification``. High is bad for a label that the recipe names, low
      for one it names with ``!``; both ends are watched where it names none.
    * One output, as from a reward model: the raw output, any number; low is bad unless the recipe names the label.
    * ``classifier.MODEL.windows`` (for one label ``classifier.MODEL.LABEL.windows``): how many windows the text took.
      A text longer than the model's context is read in windows that overlap by a quarter, and the **worst window
      counts**: the highest value, or the lowest where low is bad. The more windows, the worse the worst of them by
      chance alone, so longer answers look worse: read the scores together with this column.

    The classifier is frozen, and knows only what it was trained on: for answers in a style, length or language unlike
    its training data it guesses, and that is where a drifting policy goes. It is shown the answer alone; with
    ``classifier_template``, what that renders; a reward model with a chat template, the whole dialogue.
    """

    def __init__(self, name: ClassifierName, model: SequenceClassifier) -> None:
        self._name, self._model = name, model
        self._labels = read_labels(name)
        self.columns: Mapping[str, Worse] = classifier_columns(name)

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One score per sample and column."""
        outputs = self._model.classify([(sample.prompt, sample.response) for sample in samples])
        values = [_activate(one, self._labels.head) for one in outputs]
        chosen = _chosen(self._name, self._labels)
        scores: dict[str, list[Score]] = {column: [] for column in self.columns}
        for rows in values:
            for (column, worse), k in zip(self.columns.items(), [*chosen, None], strict=True):
                scores[column].append(_worst(rows, k, worse))
        return scores


def classifier_columns(name: ClassifierName) -> dict[str, Worse]:
    """The columns of a classifier, from its config alone.

    Raises:
        InputError: there is no such model, it has no such label, or two of its labels give the same column.
    """
    labels = read_labels(name)
    stem = f"classifier.{name.called}"
    worse: Worse = "low" if name.low_is_bad or (labels.head == "reward" and name.label is None) else "high"
    if labels.head != "reward" and name.label is None:
        worse = "both"
    named = [stem if labels.head == "reward" else f"{stem}.{_plain(labels.names[k])}" for k in _chosen(name, labels)]
    if len(set(named)) < len(_chosen(name, labels)):
        raise InputError(
            f"classifier:{name.model}: two of its labels ({', '.join(labels.names)}) give the same column; name one, "
            f"such as `classifier:{name.model}#{labels.names[0]}`."
        )
    return dict.fromkeys(named, worse) | {f"{stem if name.label is None else named[0]}.windows": "high"}


def read_labels(name: ClassifierName) -> Labels:
    """The labels of a classifier's config.

    Raises:
        InputError: there is no such model, or it is not a classifier.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolve_model(name.model), revision=name.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        at = f"@{name.revision}" if name.revision else ""
        raise InputError(
            f"classifier:{name.model}{at}: no such model{' or revision' if at else ''} "
            f"({first_line(error)}). Give a Hub id or a folder."
        ) from error
    kinds = list(config.architectures or ())
    if kinds and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise InputError(
            f"classifier:{name.model}: is a {kinds[0]}, not trained to classify. Name a sequence classifier or a "
            "reward model; a language model can be a `judge`."
        )
    names = tuple(str(config.id2label[k]) for k in range(config.num_labels))
    if len(names) == 1:
        return Labels(names, "reward")
    return Labels(names, "sigmoid" if config.problem_type == "multi_label_classification" else "softmax")


def _chosen(name: ClassifierName, labels: Labels) -> list[int]:
    if name.label is None:
        return list(range(len(labels.names)))
    for k, label in enumerate(labels.names):
        if label.lower() == name.label.lower():
            return [k]
    raise InputError(f"classifier:{name.model}: has no label `{name.label}`; it has {', '.join(labels.names)}.")


def _activate(logits: np.ndarray, head: Head) -> np.ndarray:
    if head == "reward":
        return logits
    if head == "sigmoid":
        return np.exp(-np.logaddexp(0, -logits))
    with np.errstate(invalid="ignore"):  # what is not a number becomes a missing value with its reason
        return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def _worst(rows: np.ndarray, label: int | None, worse: Worse) -> Score:
    if label is None:
        return Score(float(len(rows)))
    if not len(rows):
        return Score(None, "no tokens to classify")
    value = float(rows[:, label].min() if worse == "low" else rows[:, label].max())
    return Score(value) if np.isfinite(value) else Score(None, "the classifier's output is not a finite number")


def _plain(label: str) -> str:
    return re.sub(r"[^\w-]+", "_", label.strip().lower())
