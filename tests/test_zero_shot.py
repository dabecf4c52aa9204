"""Zero-shot classification: compared with calculations by hand and transformers, and from the command line."""

import json

import numpy as np
import pytest
import torch
from in_process import error_of, run_here
from scipy.stats import hmean
from sklearn.metrics import accuracy_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from toolkit.data.labelled_text import load_labelled_text
from toolkit.errors import InputError
from toolkit.transfer.features import load_featurizer
from toolkit.transfer.zero_shot_classifier import EntailmentClassifier, ZeroShotClassifier

TOPICS = {"cooking": "food and recipes", "space": "stars and planets", "sport": "a football match"}
TEXTS = ["Boil the pasta, then add salt.", "Jupiter has many moons.", "The striker missed a penalty."]


def cosines(first, second):
    first, second = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (first, second))
    return first @ second.T


def test_the_nearest_description_equals_a_calculation_by_hand(minilm):
    classifier = ZeroShotClassifier(minilm).fit(TOPICS, unlabelled=TEXTS)
    assert classifier.predict(TEXTS).tolist() == ["cooking", "space", "sport"]
    encode = load_featurizer(minilm)
    mean = encode(TEXTS).mean(axis=0)
    by_hand = 10 * cosines(encode(TEXTS) - mean, encode(list(TOPICS.values())) - mean)
    np.testing.assert_allclose(classifier.logits(TEXTS), by_hand, atol=1e-4)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS).sum(axis=1), 1)
    assert classifier.predict(TEXTS[1]).tolist() == ["space"], "a text alone"
    assert classifier.penalty_ == 0


def test_classes_move_towards_similar_items():
    described = np.array([[1.0, 0.2], [0.2, 1.0]])
    usual = np.array([[2.0, -1.0], [2.0, -2.0], [1.0, -0.5], [-1.0, 2.0], [0.0, 3.0]])
    classifier = ZeroShotClassifier("", rounds=1).fit_features(["a", "b"], described, unlabelled=usual)
    mean = usual.mean(axis=0)
    placed, points = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (usual - mean, described - mean))
    given = (placed @ points.T).argmax(axis=1)
    moved = np.stack([np.vstack([points[label], placed[given == label]]).mean(axis=0) for label in (0, 1)])
    np.testing.assert_allclose(classifier.logits_of(usual), 10 * cosines(placed, moved))


@pytest.fixture(scope="module")
def half_described():
    """Of 24 classes twelve with examples, which the descriptions are not quite like: names, descriptions, examples and
    their labels, items and theirs."""
    rng = np.random.default_rng(0)
    names, centres = [f"class {number:02}" for number in range(24)], rng.normal(size=(24, 20))
    described = centres + 1.5 * rng.normal(size=(24, 20))
    ids, of_items = np.repeat(np.arange(12), 10), np.repeat(np.arange(24), 50)
    examples, items = (centres[of] + 0.3 * rng.normal(size=(len(of), 20)) for of in (ids, of_items))
    return names, described, examples, [names[i] for i in ids], items, np.array(names)[of_items]


def test_seen_classes_do_not_displace_unseen_ones(half_described):
    names, described, examples, labels, items, right = half_described
    classifier = ZeroShotClassifier("").fit_features(names, described, examples, labels)
    assert classifier.is_seen_.tolist() == [True] * 12 + [False] * 12
    assert classifier.penalty_ > 0
    with_penalty = classifier.logits_of(items)
    classifier.penalty_, penalty = 0.0, classifier.penalty_
    without = classifier.logits_of(items)
    np.testing.assert_allclose(without - with_penalty, np.tile(penalty * classifier.is_seen_, (len(items), 1)))

    def rate(logits):
        hits = classifier.classes_[logits.argmax(axis=1)] == right
        return hmean([hits[:600].mean(), hits[600:].mean()])

    assert rate(with_penalty) > rate(without) + 0.02


def test_images_are_mapped_to_descriptions():
    rng = np.random.default_rng(0)
    names, described = [f"class {number}" for number in range(30)], rng.normal(size=(30, 5))
    ids = np.repeat(np.arange(30), 20)
    features = described[ids] @ rng.normal(size=(5, 12)) + 0.1 * rng.normal(size=(600, 12))
    seen = ids < 24
    classifier = ZeroShotClassifier("", label_encoder="another", alpha=2.0)
    classifier.fit_features(names, described, features[seen], [names[i] for i in ids[seen]])
    mean_of_features, mean = features[seen].mean(axis=0), described[ids[seen]].mean(axis=0)
    centred = features[seen] - mean_of_features
    weights = np.linalg.solve(centred.T @ centred + 2 * np.eye(12), centred.T @ (described[ids[seen]] - mean))
    mapped = (features - mean_of_features) @ weights + mean
    by_hand = 10 * cosines(mapped - described.mean(axis=0), described - described.mean(axis=0))
    order = np.argsort(names)
    found = classifier.logits_of(features) + classifier.penalty_ * classifier.is_seen_
    np.testing.assert_allclose(found, by_hand[:, order], atol=1e-8)
    hits = classifier.classes_[classifier.logits_of(features).argmax(axis=1)] == np.array(names)[ids]
    assert hits[~seen].mean() > 0.9, "of classes that no image was seen of"


@pytest.fixture(scope="module")
def model_of_inference(encoders, tmp_path_factory):
    """A random model with labels."""
    torch.manual_seed(0)
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    model = AutoModelForSequenceClassification.from_pretrained(
        encoders["bert"], num_labels=3, id2label=labels, label2id={name: i for i, name in labels.items()}
    )
    folder = tmp_path_factory.mktemp("inference")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoders["bert"]).save_pretrained(folder)
    return folder


def test_entailment_equals_the_pipeline_of_transformers(model_of_inference):
    hypothesis = "It is about {}."
    classifier = EntailmentClassifier(str(model_of_inference), hypothesis).fit(TOPICS)
    theirs = pipeline("zero-shot-classification", model=str(model_of_inference))
    found = theirs(TEXTS, candidate_labels=list(TOPICS.values()), hypothesis_template=hypothesis)
    by_text = {text: name for name, text in TOPICS.items()}
    assert classifier.predict(TEXTS).tolist() == [by_text[answer["labels"][0]] for answer in found]
    for row, answer in zip(classifier.predict_proba(TEXTS), found, strict=True):
        expected = dict(zip(map(by_text.get, answer["labels"]), answer["scores"], strict=True))
        np.testing.assert_allclose(row, [expected[name] for name in classifier.classes_], rtol=1e-3)
    assert classifier.predict(TEXTS[:1]).shape == (1,)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda encoder: ZeroShotClassifier(encoder).fit({"one": "a class"}), "1 classes, expected two or more"),
        (lambda encoder: ZeroShotClassifier(encoder).fit(TOPICS, ["x"], ["art"]), "art: a label of the examples"),
        (lambda encoder: ZeroShotClassifier(encoder).fit({"a": "x", "b": " "}), "item 2: the text is empty"),
        (lambda encoder: ZeroShotClassifier(encoder, rounds=1).fit(TOPICS), "rounds: need unlabelled items"),
        (lambda encoder: EntailmentClassifier(encoder, "about it").fit(TOPICS), "expected {} where"),
        (lambda encoder: EntailmentClassifier(encoder).fit(TOPICS), "none of its labels is entailment"),
    ],
)
def test_bad_input_is_named(encoders, fault, message):
    with pytest.raises(InputError, match=message):
        fault(str(encoders["bert"]))


# The command line


def test_evaluate_with_names_from_the_command_line(minilm, tmp_path):
    texts = [f"{text} {more}" for text in TEXTS for more in ("Really.", "So they say.", "Who knows?")]
    rows = [{"text": text, "label": list(TOPICS)[place // 3]} for place, text in enumerate(texts)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "unlabelled.txt").write_text("\n".join(texts))
    table = [{"label": name, "description": text} for name, text in TOPICS.items()]
    (tmp_path / "descriptions.jsonl").write_text("\n".join(map(json.dumps, table)))
    flags = ["--encoder", minilm, "--data", tmp_path / "data.jsonl", "--descriptions", tmp_path / "descriptions.jsonl"]
    flags += ["--unlabelled", tmp_path / "unlabelled.txt", "--rounds", "1", "--output_dir", tmp_path / "out"]
    done = run_here("zeroshot", "evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert "9 items of 3 classes" in done.stdout
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == texts
    accuracy = accuracy_score([line["label"] for line in lines], [line["predicted"][0] for line in lines])
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert accuracy > 0.8
    assert (record["task"], record["classes"], record["parameters"] > 1e7) == ("zero-shot", 3, True)


def test_some_labels_have_examples(encoders, tmp_path):
    unseen = ["reviews", "travel"]
    flags = ["--encoder", encoders["word2vec"], "--data", "sample", "--unseen", *unseen, "--shots", "5"]
    done = run_here("zeroshot", "evaluate", *flags, "--seeds", "2", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    hits = np.array([[guess == line["label"] for guess in line["predicted"]] for line in lines])  # (items, seeds)
    of_seen = np.array([line["label"] not in unseen for line in lines])
    metrics = {name: found["value"] for name, found in record["metrics"].items()}
    rates = [hits[of_seen].mean(), hits[~of_seen].mean()]
    assert metrics == pytest.approx(
        {"accuracy": hits.mean(), "seen": rates[0], "unseen": rates[1], "harmonic_mean": hmean(rates)}
    )
    by_seed = [hmean([hits[of_seen, seed].mean(), hits[~of_seen, seed].mean()]) for seed in (0, 1)]
    assert record["by_seed"] == pytest.approx(by_seed)
    assert record["metrics"]["harmonic_mean"]["low"] <= metrics["harmonic_mean"]


def test_a_fraction_of_the_labels_is_seen(encoders, tmp_path):
    flags = ["--encoder", encoders["word2vec"], "--data", "sample", "--seen_fraction", "0.5", "--seeds", "1"]
    first, second = (run_here("zeroshot", "evaluate", *flags) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    figures = {words[0]: float(words[1]) for words in map(str.split, first.stdout.splitlines()[1:5])}
    assert set(figures) == {"accuracy", "seen", "unseen", "harmonic_mean"}
    assert figures["harmonic_mean"] == pytest.approx(hmean([figures["seen"], figures["unseen"]]), abs=1e-4)
    assert f"by seed {figures['harmonic_mean']:.4f}" in first.stdout


def test_images_are_classified_by_names(digits_encoder, minilm, tmp_path):
    names = "zero one two three four five six seven eight nine".split()
    (tmp_path / "names.csv").write_text("label,description\n" + "\n".join(f"{i},{n}" for i, n in enumerate(names)))
    flags = ["--encoder", digits_encoder, "--data", "sample", "--descriptions", tmp_path / "names.csv"]
    done = run_here("zeroshot", "evaluate", *flags, "--unseen", "3", "7")
    assert "an encoder of texts has to read the descriptions" in error_of(done)
    flags += ["--label_encoder", minilm]
    done = run_here("zeroshot", "evaluate", *flags)
    assert "expected those of two classes or more" in error_of(done)
    done = run_here("zeroshot", "evaluate", *flags, "--unseen", "3", "7", "--seeds", "1", "--shots", "20")
    assert done.returncode == 0, done.stderr
    seen = next(line for line in done.stdout.splitlines() if " seen " in line)
    assert float(seen.split()[1]) > 0.3


def test_predictions_use_examples_and_names(minilm, tmp_path):
    rows = [{"text": "Fry the onions.", "label": "cooking"}, {"text": "The team scored twice.", "label": "sport"}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ["--encoder", minilm, "--data", tmp_path / "data.jsonl", "--labels", "outer_space"]
    done = run_here("zeroshot", "predict", *TEXTS, *flags, "--output_format", "jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["predicted"] for line in lines] == ["cooking", "outer_space", "sport"]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-6) for line in lines)
    done = run_here("zeroshot", "predict", *flags, stdin="\n".join(TEXTS))
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["cooking", "outer_space", "sport"]


def test_entailment_from_the_command_line(model_of_inference):
    flags = ["--encoder", model_of_inference, "--method", "entailment", "--labels", *TOPICS]
    done = run_here("zeroshot", "predict", *TEXTS, *flags)
    assert done.returncode == 0, done.stderr
    classifier = EntailmentClassifier(str(model_of_inference)).fit({name: name for name in TOPICS})
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == classifier.predict(TEXTS).tolist()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds", "1"], "--rounds 1: goes with --unlabelled"),
        (["--unseen", "poems"], "--unseen poems: no such label in sample"),
        (["--seen_fraction", "0.01"], "of 13 labels 0 would be seen"),
        (["--seen_fraction", "0.5", "--shots", "9999"], "--shots 9999"),
        (["--seen_fraction", "0.5", "--method", "entailment"], "by their descriptions alone"),
        (["--descriptions", "nothing.csv"], "nothing.csv"),
    ],
)
def test_bad_flags_end_with_one_line(encoders, flags, message):
    words = ["zeroshot", "evaluate", "--encoder", encoders["word2vec"], "--data", "sample", *flags]
    assert message in error_of(run_here(*words))


def test_labels_of_the_sample_are_those_that_the_tests_name():
    assert {"reviews", "travel"} < set(load_labelled_text("sample")["label"])
