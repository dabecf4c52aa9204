"""Few-shot classification: compared with scikit-learn and easyfsl, by hand, and from the command line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from easyfsl.methods import PrototypicalNetworks
from in_process import error_of, run_here
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.utils.estimator_checks import parametrize_with_checks
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from toolkit.data.image_decoding import open_image
from toolkit.data.image_files import IMAGES
from toolkit.data.labelled_text import load_labelled_text
from toolkit.data.rows import take_subset
from toolkit.errors import InputError
from toolkit.transfer.episodes import draw_episodes
from toolkit.transfer.features import load_featurizer
from toolkit.transfer.few_shot_classifier import FewShotClassifier

PLAIN = {"center": False, "normalize": False}


@parametrize_with_checks([FewShotClassifier(method=method) for method in ("prototype", "nearest", "linear")])
def test_the_classifier_keeps_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    """Examples of four classes, and other items: features (items, 6) and names."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6))
    names = np.array(["ant", "bee", "cat", "dog"])
    labels, others = np.repeat(names, 5), np.repeat(names, 40)
    features, queries = (
        centres[np.searchsorted(names, of)] + rng.normal(size=(len(of), 6)) for of in (labels, others)
    )
    return features, labels, queries, others


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_logits_equal_easyfsl(blobs, center, normalize):
    features, labels, queries, _ = blobs
    ours = FewShotClassifier(metric="euclidean", center=center, normalize=normalize).fit(features, labels)
    theirs = PrototypicalNetworks(
        torch.nn.Identity(),
        feature_centering=torch.from_numpy(features.mean(axis=0)) if center else None,
        feature_normalization=2 if normalize else None,
    )
    ids = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    theirs.process_support_set(torch.from_numpy(features), ids)
    np.testing.assert_allclose(ours.logits(queries), theirs(torch.from_numpy(queries)).numpy(), atol=1e-6)
    squares = FewShotClassifier(metric="sqeuclidean", center=center, normalize=normalize).fit(features, labels)
    np.testing.assert_allclose(squares.logits(queries), -(ours.logits(queries) ** 2), atol=1e-6)
    cosines = FewShotClassifier(scale=1, center=center, normalize=normalize).fit(features, labels)
    expected = theirs.cosine_distance_to_prototypes(theirs.compute_features(torch.from_numpy(queries)))
    np.testing.assert_allclose(cosines.logits(queries), expected.numpy(), atol=1e-6)


def test_predictions_equal_scikit_learn(blobs):
    features, labels, queries, others = blobs
    for ours, theirs in (
        (FewShotClassifier(metric="euclidean", **PLAIN), NearestCentroid()),
        (FewShotClassifier(method="nearest", metric="euclidean", **PLAIN), KNeighborsClassifier(1)),
        (FewShotClassifier(method="linear", C=3, **PLAIN), LogisticRegression(C=3, max_iter=1000)),
    ):
        expected = theirs.fit(features, labels).predict(queries)
        assert ours.fit(features, labels).predict(queries).tolist() == expected.tolist()
        assert 0.5 < ours.score(queries, others) < 1


@pytest.mark.parametrize("num_classes", [2, 4])
def test_probabilities_equal_logistic_regression(blobs, num_classes):
    features, labels, queries, _ = blobs
    some = slice(0, 5 * num_classes)
    ours = FewShotClassifier(method="linear", C=3, **PLAIN).fit(features[some], labels[some])
    theirs = LogisticRegression(C=3, max_iter=1000).fit(features[some], labels[some])
    np.testing.assert_allclose(ours.predict_proba(queries), theirs.predict_proba(queries), atol=1e-6)


def test_each_of_several_labels_has_its_own_regression(blobs):
    features, labels, queries, _ = blobs
    targets = np.stack([labels == "ant", (labels == "ant") | (labels == "cat"), labels == "dog"], axis=1).astype(int)
    ours = FewShotClassifier(method="linear", C=3, **PLAIN).fit(features, targets)
    theirs = OneVsRestClassifier(LogisticRegression(C=3, max_iter=1000)).fit(features, targets)
    np.testing.assert_allclose(ours.predict_proba(queries), theirs.predict_proba(queries), atol=1e-5)
    assert ours.predict(queries).tolist() == theirs.predict(queries).tolist()
    with pytest.raises(InputError, match="one label an example"):
        FewShotClassifier().fit(features, targets)


@pytest.mark.parametrize("method", ["prototype", "nearest", "linear"])
def test_a_class_can_be_added_and_removed(blobs, method):
    features, labels, queries, _ = blobs
    whole = FewShotClassifier(method=method, center=False).fit(features, labels)
    three = labels != "dog"
    classifier = FewShotClassifier(method=method, center=False).fit(features[three], labels[three])
    before, points = classifier.logits(queries), classifier._points
    classifier.add_class("dog", features[~three])
    assert classifier.classes_.tolist() == ["ant", "bee", "cat", "dog"]
    np.testing.assert_allclose(classifier.logits(queries), whole.logits(queries), atol=1e-6)
    if method != "linear":
        assert (classifier._points[: len(points)] == points).all()
        np.testing.assert_allclose(classifier.logits(queries)[:, :3], before, rtol=1e-12, atol=0)
    classifier.remove_class("dog")
    np.testing.assert_allclose(classifier.logits(queries), before, atol=1e-6)
    classifier.remove_class("bee")
    assert set(classifier.predict(queries)) <= {"ant", "cat"}


def test_features_are_centred_on_unlabelled_items(blobs):
    features, labels, queries, _ = blobs
    classifier = FewShotClassifier().fit(features, labels, unlabelled=queries)
    assert (classifier.mean_ == queries.mean(axis=0)).all()


@pytest.mark.parametrize("method", ["prototype", "linear"])
def test_the_most_certain_unlabelled_items_become_examples(blobs, method, tmp_path):
    features, labels, queries, others = blobs
    plain = FewShotClassifier(method=method).fit(features, labels, queries)
    learned, of_learned = features, labels
    for rounds in (1, 2):
        classifier = FewShotClassifier(method=method, rounds=rounds).fit(features, labels, queries)
        given = plain.predict(queries)
        sureness = plain.logits(queries) if method == "prototype" else plain.predict_proba(queries)
        surest = []
        for name in np.unique(labels):
            places = np.flatnonzero(given == name)
            most = sorted(places, key=lambda place: -sureness[place].max())[: round(len(places) * 2 / 3)]
            surest += [int(place) for place in most]
        learned, of_learned = np.concatenate([features, queries[surest]]), np.concatenate([labels, given[surest]])
        plain = FewShotClassifier(method=method).fit(learned, of_learned, queries)
        np.testing.assert_allclose(classifier.logits(queries), plain.logits(queries), atol=1e-6)
    assert classifier.is_labelled_.sum() == len(labels)
    classifier.save(tmp_path)
    again = FewShotClassifier.from_pretrained(tmp_path)
    assert (again.is_labelled_ == classifier.is_labelled_).all()
    again.remove_class("bee").add_class("bee", features[labels == "bee"]).remove_class("ant")
    assert set(again.predict(queries)) == {"bee", "cat", "dog"}
    again.calibrate(np.concatenate([features + 1, features - 1]), np.arange(40) % 4)  # of five labelled each
    assert (plain.predict(queries) == others).mean() > 0.6


def test_items_of_no_class_are_rejected():
    rng = np.random.default_rng(1)
    centres = 3 * np.eye(20)
    features = centres.repeat(12, axis=0) + 0.5 * rng.normal(size=(240, 20))
    labels = np.arange(20).repeat(12)
    known, held_out, strange = labels < 5, (labels >= 5) & (labels < 15), labels >= 15
    classifier = FewShotClassifier(center=False, reject=True).fit(features[known][::4], labels[known][::4])
    with pytest.raises(InputError, match="no threshold"):
        classifier.predict(features[known])
    classifier.calibrate(features[held_out], labels[held_out])
    assert (classifier.predict(features[known]) == labels[known]).mean() > 0.95
    assert np.mean([label is None for label in classifier.predict(features[strange])]) > 0.95
    with pytest.raises(InputError, match="four or more"):
        classifier.calibrate(features[labels < 3], labels[labels < 3])
    with pytest.raises(InputError, match="too few for 3 labelled"):
        classifier.calibrate(features[held_out][::6], labels[held_out][::6])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda c, x, y: FewShotClassifier(method="magic").fit(x, y), "method magic"),
        (lambda c, x, y: FewShotClassifier(metric="feet").fit(x, y), "metric feet"),
        (lambda c, x, y: FewShotClassifier(method="contrastive").fit(x, y), "needs an encoder"),
        (lambda c, x, y: FewShotClassifier().fit(x, ["one"] * len(x)), "one class"),
        (lambda c, x, y: FewShotClassifier(rounds=1).fit(x, y), "rounds 1: need unlabelled"),
        (lambda c, x, y: FewShotClassifier(method="linear", rounds=1).fit(x, np.eye(20), x), "one label an example"),
        (lambda c, x, y: c.add_class("ant", x[:2]), "there is a class of this name"),
        (lambda c, x, y: c.add_class(3, x[:2]), "of the same type"),
        (lambda c, x, y: c.remove_class("yak"), "yak: no such class"),
        (lambda c, x, y: c.remove_class("ant").remove_class("bee").remove_class("cat"), "one of the last two"),
        (lambda c, x, y: FewShotClassifier.from_pretrained("no/where"), "no/where"),
    ],
)
def test_bad_input_is_named(blobs, fault, message):
    features, labels, *_ = blobs
    classifier = FewShotClassifier().fit(features, labels)
    with pytest.raises(InputError, match=message):
        fault(classifier, features, labels)


# Episodes


SUPPORTS = [[[17], [4]], [[29], [7]]]
QUERIES = [[[15, 18], [0, 1]], [[25, 28], [8, 5]]]


def test_episodes_follow_from_the_seed_alone():
    labels = [name for name in "abcdef" for _ in range(5)]
    first, second = draw_episodes(labels, 2, 1, 2, 2, seed=3)
    assert [episode.support.tolist() for episode in (first, second)] == SUPPORTS
    assert [episode.query.tolist() for episode in (first, second)] == QUERIES
    again, *_ = draw_episodes(labels, 2, 1, 2, 1, seed=3)
    assert (again.query == first.query).all()
    for episode in draw_episodes(labels, 4, 2, 3, 50, seed=0):
        of_classes = np.array(labels)[np.concatenate(episode, axis=1)]
        assert (of_classes == of_classes[:, :1]).all()
        assert len(set(of_classes[:, 0])) == 4
        assert len(np.unique(np.concatenate(episode, axis=1))) == 20


def test_classes_of_an_episode_may_share_a_group():
    labels = [name for name in "abcdefg" for _ in range(3)]
    groups = ["early" if name in "abc" else "late" if name in "def" else "alone" for name in labels]
    drawn = [
        "".join(sorted(labels[place] for place in episode.support[:, 0]))
        for episode in draw_episodes(labels, 3, 1, 1, 40, 0, groups)
    ]
    assert set(drawn) == {"abc", "def"}
    with pytest.raises(InputError, match="there are 3 classes in a group, too few for 4 ways"):
        list(draw_episodes(labels, 4, 1, 1, 1, 0, groups))
    with pytest.raises(InputError, match="the class a has 3 examples, too few for 2 labelled and 2 others"):
        list(draw_episodes(labels, 3, 2, 2, 1, 0))


# Encoders


@pytest.fixture(scope="module")
def genres():
    rows = load_labelled_text("sample", "train")
    return rows["text"][:], rows["label"][:]


def test_features_of_a_bert_are_the_mean_over_its_tokens(encoders):
    from transformers import AutoModel, AutoTokenizer

    texts = ["the old man", "a boat , and then a second and much longer one", "the"]
    found = load_featurizer(str(encoders["bert"]))(texts)
    model, tokenizer = (kind.from_pretrained(encoders["bert"]) for kind in (AutoModel, AutoTokenizer))
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(dim=0).numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["word2vec", "fasttext", "elmo"])
def test_features_of_words_are_the_mean_over_words(encoders, family):
    from transformers import AutoModel, AutoTokenizer

    text = "the unheard-of time"
    model, tokenizer = (kind.from_pretrained(encoders[family]) for kind in (AutoModel, AutoTokenizer))
    encoding = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        states = model.eval()(**encoding).last_hidden_state[0]
    words = encoding.word_ids()
    firsts = [i for i, word in enumerate(words) if word is not None and word != words[i - 1]]
    assert len(firsts) == 5
    weights = torch.ones(5)
    if family != "elmo":  # five words, for hyphens stand alone
        vocabulary = tokenizer.get_vocab()
        most_frequent = {"word2vec": 5, "fasttext": 5 + 256 + 256}[family]
        for place, word in enumerate(["the", "unheard", "-", "of", "time"]):
            if word in vocabulary:
                rank = max(1, vocabulary[word] - most_frequent + 1)
                weights[place] = rank / (rank + 100)
            else:
                weights[place] = {"word2vec": 0, "fasttext": 1}[family]
        assert vocabulary["the"] - most_frequent < 5
        assert "unheard" not in vocabulary
        assert max(weights[0], weights[3]) < 0.1 < weights[4] < 1
    expected = (states[firsts] * weights[:, None]).sum(dim=0) / weights.sum()
    np.testing.assert_allclose(load_featurizer(str(encoders[family]))([text])[0], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["word2vec", "fasttext", "elmo", "bert"])
def test_a_single_text_is_one_item(encoders, genres, family):
    texts, labels = genres
    classifier = FewShotClassifier(str(encoders[family])).fit(texts, labels)
    together = classifier.predict_proba(texts[:9])
    np.testing.assert_allclose(classifier.predict_proba(texts[3]), together[3:4], atol=1e-5)
    assert classifier.predict(texts[3]).shape == (1,)
    for wrong, message in ((["a text", " "], "item 2: the text is empty"), ([3], "item 1: int")):
        with pytest.raises(InputError, match=message):
            classifier.predict(wrong)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("word2vec", {}),
        ("fasttext", {"metric": "sqeuclidean", "normalize": False}),
        ("elmo", {"method": "nearest", "metric": "euclidean"}),
        ("bert", {"method": "linear", "center": False}),
        ("fasttext", {"method": "nearest"}),
    ],
)
def test_transformers_loads_a_text_classifier_with_the_same_logits(encoders, genres, tmp_path, family, settings):
    texts, labels = genres
    classifier = FewShotClassifier(str(encoders[family]), **settings).fit(texts, labels)
    texts = [*texts[:7], "Unheard-of wugs frobnicate é, o.", "x"]
    expected = classifier.logits(texts)
    classifier.save(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        found = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    (found,) = pipeline("text-classification", str(tmp_path))(texts[:1])
    assert found["label"] == classifier.predict(texts[0])[0]


def test_transformers_loads_an_image_classifier(digits_encoder, tmp_path):
    rows = IMAGES.load_labelled("sample", "test")
    images = [open_image(row["image"], row["name"]) for row in rows.select(range(40))]
    classifier = FewShotClassifier(str(digits_encoder)).fit(images, rows["label"][:40])
    classifier.save(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    model = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found = model(**processor(images, return_tensors="pt")).logits
    assert (found.argmax(dim=1).numpy() == classifier.logits(images).argmax(axis=1)).mean() >= 0.95
    again = FewShotClassifier.from_pretrained(tmp_path)
    np.testing.assert_allclose(again.logits(images), classifier.logits(images), atol=1e-5)


def test_a_dozen_labels_keep_their_own_probabilities(encoders, genres, tmp_path):
    texts, _ = genres
    targets = np.array([[n % 2, n % 3 == 0, 1] for n in range(len(texts))])
    classifier = FewShotClassifier(str(encoders["word2vec"]), method="linear").fit(texts, targets)
    classifier.save(tmp_path)
    ask = pipeline("text-classification", str(tmp_path), top_k=None)
    found = {each["label"]: each["score"] for each in ask(texts[:1])[0]}
    np.testing.assert_allclose(
        [found[str(label)] for label in range(3)], classifier.predict_proba(texts[0])[0], atol=1e-4
    )


LOAD = """
import json, sys
from toolkit.transfer.few_shot_classifier import FewShotClassifier
texts = json.load(sys.stdin)
for name in sys.argv[1:]:
    classifier = FewShotClassifier.from_pretrained(name)
    print(json.dumps([classifier.predict(texts).tolist(), classifier.predict_proba(texts).tolist()]))
"""


def test_a_saved_or_pushed_classifier_predicts_the_same(encoders, genres, hub, tmp_path):
    texts, labels = genres
    folders, expected = [], []
    for family, method in (("word2vec", "prototype"), ("bert", "linear")):
        classifier = FewShotClassifier(str(encoders[family]), method=method).fit(texts, labels)
        gossip = ["A man was found by the river on Monday.", "Police say that rain is expected."]
        classifier.add_class("gossip", gossip)
        expected.append([classifier.predict(texts).tolist(), classifier.predict_proba(texts).tolist()])
        folders.append(str(tmp_path / family))
        classifier.save(folders[-1])

    def in_another_process(script: str, names: list[str], **environment: str) -> list:
        done = subprocess.run(
            [sys.executable, "-c", script, *names],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    hub.api()  # this process may ask the Hub from now on
    for folder in folders:
        FewShotClassifier.from_pretrained(folder).push_to_hub(f"me/few-shot-{folder.rpartition('/')[2]}")
    names = ["me/few-shot-word2vec", "me/few-shot-bert", *folders]
    assert in_another_process(LOAD, names, **hub.environment) == 2 * expected


# The command line


def test_a_prototypical_network_is_an_ordinary_encoder(digits_encoder):
    from transformers import AutoModel

    config = json.loads((digits_encoder / "config.json").read_text())
    assert config["architectures"] == ["SmallImageResNetModel"]
    assert AutoModel.from_pretrained(digits_encoder)(torch.zeros(1, 3, 16, 16)).pooler_output.shape == (1, 64, 1, 1)
    record = json.loads((digits_encoder / "results.json").read_text())
    assert record["metrics"]["accuracy"]["value"] > 0.6


def test_evaluate_with_episodes_from_the_command_line(digits_encoder, tmp_path):
    accuracies = {}
    for shots in ("1", "5"):
        flags = ["--encoder", digits_encoder, "--data", "sample", "--shots", shots, "--episodes", "100"]
        done = run_here("fewshot", "evaluate", *flags, "--output_dir", tmp_path / shots)
        assert done.returncode == 0, done.stderr
        assert f"5-way {shots}-shot" in done.stdout
        record = json.loads((tmp_path / shots / "results.json").read_text())
        lines = [json.loads(line) for line in (tmp_path / shots / "predictions.jsonl").read_text().splitlines()]
        assert len(lines) == 100
        assert record["n"] == 100 * 5 * 15
        accuracies[shots] = record["metrics"]["accuracy"]["value"]
        assert accuracies[shots] == pytest.approx(sum(line["hits"] for line in lines) / record["n"])
    assert 0.5 < accuracies["1"] < accuracies["5"]


def test_evaluate_with_seeds_from_the_command_line(encoders, tmp_path):
    flags = ["--encoder", encoders["word2vec"], "--data", "sample", "--shots", "4", "--seeds", "3"]
    done = run_here("fewshot", "evaluate", *flags, "--method", "linear", "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    test = load_labelled_text("sample", "test")
    assert [line["text"] for line in lines] == test["text"][:]
    for seed in range(3):
        hits = [line["predicted"][seed] == line["label"] for line in lines]
        assert record["by_seed"][seed] == pytest.approx(np.mean(hits))
    assert len({tuple(line["predicted"][seed] for line in lines) for seed in range(3)}) == 3
    assert record["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(record["by_seed"]))


def test_predictions_for_images_are_written_with_their_names(digits_encoder, tmp_path):
    flags = ["--encoder", digits_encoder, "--data", "sample", "--shots", "3", "--seeds", "2", "--labels", "1", "7"]
    done = run_here("fewshot", "evaluate", *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    rows = IMAGES.load_labelled("sample", "test").filter(lambda row: row["label"] in ("1", "7"))
    assert [(line["image"], line["label"]) for line in lines] == list(zip(rows["name"], rows["label"], strict=True))
    accuracy = np.mean([line["predicted"][seed] == line["label"] for line in lines for seed in (0, 1)])
    assert json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["accuracy"]["value"] == accuracy
    assert accuracy > 0.7


def test_a_frozen_encoder_runs_once_for_all_seeds(encoders, tmp_path):
    test = load_labelled_text("sample", "test")
    labels = ["reviews", "travel", "questions"]
    (tmp_path / "more.txt").write_text("\n".join(test["text"][:50]))
    flags = ["--encoder", encoders["bert"], "--data", "sample", "--shots", "3", "--seeds", "2", "--labels", *labels]
    flags += ["--unlabelled", tmp_path / "more.txt"]
    done = run_here("fewshot", "evaluate", *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {line["label"] for line in lines} == set(labels)
    train = load_labelled_text("sample", "train").filter(lambda row: row["label"] in labels)
    for seed in (0, 1):
        chosen = take_subset(train, 3, seed, train["label"][:])
        classifier = FewShotClassifier(str(encoders["bert"]))
        classifier.fit(chosen["text"][:], chosen["label"][:], test["text"][:50])
        expected = classifier.predict([line["text"] for line in lines]).tolist()
        assert [line["predicted"][seed] for line in lines] == expected


def test_a_description_counts_as_one_example(encoders, tmp_path):
    train, test = (load_labelled_text("sample", split) for split in ("train", "test"))
    names = sorted(set(test["label"]))
    (tmp_path / "described.csv").write_text(
        "label,description\n" + "\n".join(f"{name},texts on {name}" for name in names)
    )
    for given, shown in (("names", "{}"), (tmp_path / "described.csv", "texts on {}")):
        flags = ["--encoder", encoders["word2vec"], "--data", "sample", "--shots", "2", "--seeds", "1", "--method"]
        output = tmp_path / shown.replace(" ", "-")
        done = run_here("fewshot", "evaluate", *flags, "linear", "--descriptions", given, "--output_dir", output)
        assert done.returncode == 0, done.stderr
        chosen = take_subset(train, 2, 0, train["label"][:])
        texts = [*chosen["text"], *(shown.format(name.replace("_", " ")) for name in names)]
        classifier = FewShotClassifier(str(encoders["word2vec"]), "linear").fit(texts, [*chosen["label"], *names])
        lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
        assert [line["predicted"][0] for line in lines] == classifier.predict(test["text"][:]).tolist()


@pytest.mark.parametrize("command", [["fewshot", "evaluate"], ["zeroshot", "evaluate"]])
def test_several_processes_are_refused(encoders, command):
    words = [*command, "--encoder", encoders["word2vec"], "--data", "sample"]
    assert "start them without a launcher" in error_of(run_here(*words, WORLD_SIZE="2"))


def test_a_classifier_is_fitted_and_predicts(encoders, tmp_path):
    folder = tmp_path / "genres"
    flags = ["--encoder", encoders["bert"], "--data", "sample", "--shots", "5", "--output_dir", folder]
    done = run_here("fewshot", "fit", *flags)
    assert done.returncode == 0, done.stderr
    texts = ["Rain is expected.", "I will be home late tonight."]
    done = run_here("fewshot", "predict", "--encoder", folder, *texts, "--output_format", "jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    classifier = FewShotClassifier.from_pretrained(folder)
    assert [line["predicted"] for line in lines] == classifier.predict(texts).tolist()
    assert [line["text"] for line in lines] == texts
    from_stdin = run_here("fewshot", "predict", "--encoder", folder, stdin="\n".join(texts))
    assert [line.split("\t")[0] for line in from_stdin.stdout.splitlines()] == [line["predicted"] for line in lines]
    assert "holds an earlier run" in error_of(run_here("fewshot", "fit", *flags))
    assert f"toolkit fewshot predict --encoder {folder}" in error_of(run_here("predict", folder, *texts))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shots", "9999", "--seeds", "1"], "--shots 9999: the label"),
        (["--shots", "1", "--ways", "1"], "--ways 1"),
        (["--shots", "1", "--ways", "99"], "too few for 99 ways"),
        (["--method", "contrastive"], "goes with --seeds"),
        (["--within", "alphabet"], "--within alphabet: goes with images"),
        (["--split", "nowhere"], "nowhere"),
        (["--labels", "travel", "poems"], "--labels poems: no such label in sample"),
        (["--labels", "travel"], "expected two labels or more"),
        (["--descriptions", "names"], "--descriptions: goes with --seeds"),
        (["--rounds", "1"], "--rounds 1: goes with --unlabelled"),
        (["--rounds", "1", "--unlabelled", "sample"], "--rounds: goes with --seeds"),
        (["--descriptions", "sample.csv", "--seeds", "1"], "sample.csv"),
    ],
)
def test_bad_flags_end_with_one_line(encoders, flags, message):
    words = ["fewshot", "evaluate", "--encoder", encoders["word2vec"], "--data", "sample", *flags]
    assert message in error_of(run_here(*words))
