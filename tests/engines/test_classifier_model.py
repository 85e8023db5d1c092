from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import EngineError, InputError
from pipeline.inputs.classified import load_classifier_template, parse_classifier
from pipeline.scorers.base import Sample
from pipeline.scorers.classifier import Classifier, classifier_columns

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghij")]
LONG = "b a d " * 40
CONTEXT = 32


def save(folder: Path, *, labels: dict[int, str], problem_type: str | None = None, head: bool = True) -> Path:
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=CONTEXT,
        id2label=labels,
        label2id={name: k for k, name in labels.items()},
        problem_type=problem_type,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    (BertForSequenceClassification(config) if head else BertModel(config)).save_pretrained(folder)
    tokenizer = BertTokenizerFast(
        vocab={word: i for i, word in enumerate(WORDS)},
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        model_max_length=CONTEXT,
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def toxic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("c") / "toxic", labels={0: "Fine", 1: "Very Toxic", 2: "odd"})


def scorer(argument: str, *, batch_size: int = 4, template: Any = None) -> Classifier:
    from pipeline.engines.classifier import SequenceClassifier

    name = parse_classifier(argument)
    model = SequenceClassifier(
        name.model, revision=name.revision, dtype="float32", batch_size=batch_size, template=template
    )
    return Classifier(name, model)


def samples(*texts: str) -> list[Sample]:
    return [Sample([{"role": "user", "content": "q"}], text, [1]) for text in texts]


def directly(folder: Path, text: str, *, special: bool = True) -> np.ndarray:
    """Logits of one text in one window, by transformers alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", add_special_tokens=special)).logits[0].numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


TEXTS = ("a b c", "d", "a b c d e f g h", "", "z y x")


def test_probabilities_are_what_transformers_computes_directly(toxic: Path) -> None:
    scores = scorer(str(toxic))(samples(*TEXTS))
    assert list(scores) == [f"classifier.toxic.{label}" for label in ("fine", "very_toxic", "odd")] + [
        "classifier.toxic.windows"
    ]
    for i, text in enumerate(TEXTS):
        wanted = softmax(directly(toxic, text))
        found = [scores[column][i].value for column in list(scores)[:3]]
        assert found == pytest.approx(wanted.tolist(), abs=1e-5)
        assert scores["classifier.toxic.windows"][i].value == 1


def test_batches_make_no_difference(toxic: Path) -> None:
    texts = [*TEXTS, LONG, *TEXTS[::-1]]
    one, many = (scorer(str(toxic), batch_size=size)(samples(*texts)) for size in (1, 64))
    for column in one:
        assert [s.value for s in one[column]] == pytest.approx([s.value for s in many[column]], abs=1e-5)


def test_of_several_windows_the_worst_counts(toxic: Path) -> None:
    from transformers import AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(toxic)(
        LONG, truncation=True, max_length=CONTEXT, stride=CONTEXT // 4, return_overflowing_tokens=True
    )["input_ids"]
    inner = [ids[1:-1] for ids in encoded]
    assert len(inner) > 3 and sum(len(ids) for ids in inner) > 120
    windows = [softmax(directly(toxic, " ".join(WORDS[k] for k in ids))) for ids in inner]
    assert len({round(float(one[1]), 6) for one in windows}) > 1
    high = scorer(f"{toxic}#very toxic")(samples(LONG))
    low = scorer(f"{toxic}#!Fine")(samples(LONG))
    assert high["classifier.toxic.very_toxic"][0].value == pytest.approx(max(w[1] for w in windows), abs=1e-5)
    assert low["classifier.toxic.fine"][0].value == pytest.approx(min(w[0] for w in windows), abs=1e-5)
    assert high["classifier.toxic.very_toxic.windows"][0].value == len(windows)


def test_several_labels_at_once_are_each_a_probability(tmp_path: Path) -> None:
    folder = save(tmp_path / "multi", labels={0: "a", 1: "b"}, problem_type="multi_label_classification")
    scores = scorer(str(folder))(samples("a b"))
    wanted = 1 / (1 + np.exp(-directly(folder, "a b")))
    assert [scores[f"classifier.multi.{k}"][0].value for k in "ab"] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_reward_model_gives_its_raw_output_of_the_dialogue(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = save(tmp_path / "reward", labels={0: "LABEL_0"})
    plain = scorer(str(folder))(samples("a b"))["classifier.reward"][0].value
    assert plain == pytest.approx(directly(folder, "a b").item(), abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} x {% endfor %}"
    tokenizer.save_pretrained(folder)
    whole = scorer(str(folder))(samples("a b"))["classifier.reward"][0].value
    assert whole == pytest.approx(directly(folder, "q x a b x ", special=False).item(), abs=1e-5)
    assert classifier_columns(parse_classifier(str(folder)))["classifier.reward"] == "low"


def test_a_template_says_what_is_shown(toxic: Path, tmp_path: Path) -> None:
    path = tmp_path / "shown.jinja"
    path.write_text("{{ prompt }} z {{ response }}")
    shown = scorer(f"{toxic}#odd", template=load_classifier_template(path))(samples("a b"))
    wanted = softmax(directly(toxic, "q z a b"))[2]
    assert shown["classifier.toxic.odd"][0].value == pytest.approx(wanted, abs=1e-5)


def test_an_answer_cannot_write_control_tokens(toxic: Path) -> None:
    found = scorer(f"{toxic}#odd")(samples("a [SEP] b"))["classifier.toxic.odd"][0].value
    assert found != pytest.approx(softmax(directly(toxic, "a [SEP] b"))[2], abs=1e-6)


def test_the_bad_end_is_as_the_recipe_says(toxic: Path) -> None:
    assert classifier_columns(parse_classifier(str(toxic))) == {
        "classifier.toxic.fine": "both",
        "classifier.toxic.very_toxic": "both",
        "classifier.toxic.odd": "both",
        "classifier.toxic.windows": "high",
    }
    assert classifier_columns(parse_classifier(f"{toxic}#Very Toxic"))["classifier.toxic.very_toxic"] == "high"
    assert classifier_columns(parse_classifier(f"{toxic}#!fine"))["classifier.toxic.fine"] == "low"


def test_what_is_no_classifier_is_refused(toxic: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no label `rude`; it has Fine, Very Toxic, odd"):
        classifier_columns(parse_classifier(f"{toxic}#rude"))
    with pytest.raises(InputError, match="no such model"):
        classifier_columns(parse_classifier(str(tmp_path / "absent")))
    headless = save(tmp_path / "headless", labels={0: "a", 1: "b"}, head=False)
    with pytest.raises(InputError, match="is a BertModel, not trained to classify"):
        scorer(str(headless))
    # A config that does not say what it is of is found out by its weights.
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps(config | {"architectures": None}))
    with pytest.raises(EngineError, match=r"not a trained classifier: it lacks the weights classifier\.bias"):
        scorer(str(headless))(samples("a"))
    for file in toxic.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \*\.safetensors weights"):
        scorer(str(tmp_path))(samples("a"))


def test_a_broken_output_is_missing_with_a_reason(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "nan", labels={0: "a", 1: "b"})
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (score,) = scorer(f"{folder}#a")(samples("a"))["classifier.nan.a"]
    assert score == (None, "the classifier's output is not a finite number")


@pytest.mark.parametrize("pad", [None, 0])
def test_a_decoder_is_read_at_its_last_token(pad: int | None, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=pad,
        initializer_range=0.5,
    )
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "rm")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "rm")
    texts = ("a b", "c d", "a b c d e", "", "z")
    scores = scorer(str(tmp_path / "rm"))(samples(*texts))["classifier.rm"]
    for text, score in zip(texts, scores, strict=True):
        if text:
            ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
            with torch.no_grad():
                assert score.value == pytest.approx(model(ids).logits.item(), abs=1e-5)
        else:
            assert score == (None, "no tokens to classify")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ response", "template error"),
        ("{{ prompt }}", "does not show the classifier the answer"),
        ("{{ response }}{% if critique %}x{% endif %}", "unknown variable `critique`|template error"),
    ],
)
def test_templates_are_tried_out(source: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text(source)
    with pytest.raises(InputError, match=message):
        load_classifier_template(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_classifier_template(tmp_path / "absent.jinja")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("org/tox", ("org/tox", None, False, None, "tox")),
        ("org/tox#!fine", ("org/tox", "fine", True, None, "tox")),
        ("org/tox@refs/pr/1#a@b", ("org/tox", "a@b", False, "refs/pr/1", "tox")),
        ("mine=org/tox@abc123", ("org/tox", None, False, "abc123", "mine")),
    ],
)
def test_the_parts_of_a_name(argument: str, expected: tuple[object, ...]) -> None:
    assert parse_classifier(argument) == expected


def test_the_path_of_a_folder_is_no_name_and_no_revision(tmp_path: Path) -> None:
    folder = tmp_path / "a=b@c"
    folder.mkdir()
    assert parse_classifier(f"{folder}#x") == (str(folder), "x", False, None, "a=b@c")
    assert parse_classifier(f"it={folder}").called == "it"
    with pytest.raises(InputError, match="a folder has no revisions"):
        parse_classifier(f"{tmp_path}@main")


@pytest.mark.parametrize("argument", ["", "#a", "org/tox#", "org/tox#!", "org/tox@", "@abc", "org/tox@#a"])
def test_an_empty_part_is_refused(argument: str) -> None:
    with pytest.raises(InputError, match="is incomplete; write `"):
        parse_classifier(argument)


def test_labels_that_are_spelled_alike_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "signs", labels={0: "+", 1: "?"})
    with pytest.raises(InputError, match=r"two of its labels .* give the same column"):
        classifier_columns(parse_classifier(str(folder)))
    columns = classifier_columns(parse_classifier(f"{folder}#+"))
    assert list(columns) == ["classifier.signs._", "classifier.signs._.windows"]


def loaded(folder: Path, *scorers: str) -> Any:
    from pipeline.inputs.recipe import parse_recipe
    from pipeline.setup.loading import load_session

    recipe = folder / "recipe.yaml"
    lines = ["model_name_or_path: sandbox", "prompts: sandbox:train:8", "probe_sets: [probe=sandbox:probe:8]"]
    recipe.write_text("\n".join([*lines, "constitution: constitutions/sandbox/blind-spot.txt"]))
    return load_session(
        parse_recipe(["--scorers", "length", *scorers, "--run_dir", str(folder / "run")], default_config=recipe)
    )


def test_two_classifiers_that_give_the_same_score_are_told_apart_by_a_name(toxic: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other" / "toxic", labels={0: "Fine", 1: "odd"})
    one, two = f"classifier:{toxic}#odd", f"classifier:{other}#odd"
    with pytest.raises(InputError) as info:
        loaded(tmp_path, one, two)
    assert f"`{one}` and `{two}` both give the score `classifier.toxic.odd`" in str(info.value)
    assert f"`classifier:NAME={other}#odd`" in str(info.value)
    renamed = f"classifier:second={other}#odd"
    session = loaded(tmp_path, one, f"{one[:-4]}#fine", renamed)
    assert {f"classifier.{name}" for name in ("toxic.odd", "toxic.fine", "second.odd")} <= set(session.columns)
    models = session.classifiers
    assert models[one] is models[f"{one[:-4]}#fine"] and models[one] is not models[renamed]


def test_a_revision_is_the_one_that_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two revisions in the Hub client's own cache, which serves them offline."""
    import huggingface_hub.constants

    cache = tmp_path / "models--org--tox"
    for commit, ref, labels in (("a" * 40, "main", {0: "x", 1: "y"}), ("b" * 40, "v1", {0: "old", 1: "y"})):
        save(cache / "snapshots" / commit, labels=labels)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / ref).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "classifier.tox.x" in classifier_columns(parse_classifier("org/tox"))
    for revision in ("v1", "b" * 40):
        found = scorer(f"then=org/tox@{revision}#old")(samples("a b"))["classifier.then.old"][0].value
        assert found == pytest.approx(softmax(directly(cache / "snapshots" / ("b" * 40), "a b"))[0], abs=1e-5)
    with pytest.raises(InputError, match="classifier:org/tox@v2: no such model or revision"):
        classifier_columns(parse_classifier("org/tox@v2"))


def test_a_model_that_counts_positions_from_behind_its_padding(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

    folder = save(tmp_path / "roberta", labels={0: "a", 1: "b"})
    config = RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=CONTEXT,
        pad_token_id=1,
        id2label={0: "a", 1: "b"},
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = int(1e30)  # as where the tokenizer does not say
    tokenizer.save_pretrained(folder)
    found = scorer(f"{folder}#a")(samples(LONG))
    assert found["classifier.roberta.a"][0].value is not None
    inner = CONTEXT - 2 - 2  # two positions that are never used, two tokens at the ends
    stride = (CONTEXT - 2) // 4
    windows = 1 + math.ceil((len(LONG.split()) - inner) / (inner - stride))
    assert found["classifier.roberta.a.windows"][0].value == windows


def test_a_classifier_gives_its_memory_back_and_is_there_again(toxic: Path) -> None:
    from pipeline.engines.classifier import SequenceClassifier

    model = SequenceClassifier(str(toxic), dtype="float32", batch_size=4, template=None)
    before = model.classify([([], "a b")])
    model.close()
    assert [rows.tolist() for rows in model.classify([([], "a b")])] == [rows.tolist() for rows in before]
