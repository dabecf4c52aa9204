"""Contrastive fine-tuning on a few examples: the loss by hand, its effect, and its memory."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from toolkit.data.labelled_text import load_labelled_text
from toolkit.training.sampler import SampleKey
from toolkit.transfer.features import load_featurizer
from toolkit.transfer.few_shot_classifier import FewShotClassifier
from toolkit.transfer.few_shot_tuning import CollateClasses, EncoderWithLoss, contrastive_loss


def test_the_loss_equals_a_sum_over_all_pairs():
    torch.manual_seed(0)
    features = torch.randn(5, 3)
    targets = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 1, 0]]).float()
    losses = []
    for i in range(5):
        likeness = [np.exp(float(F.cosine_similarity(features[i], other, dim=0)) / 0.1) for other in features]
        for j in range(5):
            if i != j and (targets[i] * targets[j]).sum() > 0:
                losses.append(-np.log(likeness[j] / (sum(likeness) - likeness[i])))
    assert len(losses) == 6
    assert float(contrastive_loss(features, targets)) == pytest.approx(np.mean(losses), abs=1e-5)
    assert float(contrastive_loss(features[:1], targets[:1])) == 0


class Counted:
    """Stands in for a featurizer and its modality: a batch holds the numbers of its rows."""

    processor = None

    @property
    def modality(self):
        return self

    def collate(self, rows, processor):
        return {"input_ids": torch.tensor([row["number"] for row in rows])}


def test_a_step_samples_each_class_without_listing_all_pairs():
    """77 classes with 64 examples have 12 million pairs."""
    targets = np.repeat(np.eye(77, dtype=bool), 64, axis=0)
    rows = [{"number": number} for number in range(len(targets))]
    tracemalloc.start()
    collate = CollateClasses(Counted(), rows, targets, per_class=2, seed=0)
    taken = Counter()
    for step in range(300):
        keys = [SampleKey(step, step, (8 * step + place) % 77) for place in range(8)]
        batch = collate([{"class": key.index} for key in keys], keys)
        numbers = batch["input_ids"].tolist()
        assert len(set(numbers)) == 16
        assert sorted(Counter(number // 64 for number in numbers)) == sorted(key.index for key in keys)
        taken.update(numbers)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert len(taken) > 2000, "other examples each time"


@pytest.fixture(scope="module")
def genres():
    rows = load_labelled_text("sample", "train")
    return rows["text"][:40], np.array(rows["label"][:40])


@pytest.mark.parametrize(
    ("family", "method"), [("bert", "contrastive"), ("bert", "lp-ft"), ("word2vec", "contrastive")]
)
def test_classes_move_apart_and_the_same_seed_repeats(encoders, genres, family, method):
    texts, labels = genres
    settings = {"max_steps": 30, "learning_rate": 1e-3}

    def nearness(classifier) -> float:
        """The mean similarity within classes minus that between classes, before centring."""
        features = classifier._featurizer(texts)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        cosines, alike = features @ features.T, labels[:, None] == labels
        return cosines[alike].mean() - cosines[~alike].mean()

    frozen = FewShotClassifier(str(encoders[family]), "linear").fit(texts, labels)
    tuned = FewShotClassifier(str(encoders[family]), method, **settings).fit(texts, labels)
    assert nearness(tuned) > 2 * nearness(frozen)
    assert tuned.score(texts, labels) > 0.8
    again = FewShotClassifier(str(encoders[family]), method, **settings).fit(texts, labels)
    assert (again.predict_proba(texts) == tuned.predict_proba(texts)).all()
    other = FewShotClassifier(str(encoders[family]), method, **settings, random_state=1).fit(texts, labels)
    assert (other.predict_proba(texts) != tuned.predict_proba(texts)).any()


def test_an_example_may_have_several_labels(encoders, genres):
    texts, labels = genres
    length = np.array([len(text.split()) for text in texts])
    targets = np.stack([labels == labels[0], length > np.median(length)], axis=1).astype(int)
    assert (targets.sum(axis=1) == 2).any()
    tuned = FewShotClassifier(str(encoders["bert"]), "contrastive", max_steps=40, learning_rate=1e-3).fit(
        texts, targets
    )
    assert f1_score(targets, tuned.predict(texts), average="macro") > 0.8


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_the_loss_of_a_batch_does_not_depend_on_which_examples_are_in_it(encoders, is_multi_label):
    """With several labels per example the loss is binary for every batch, also one whose examples have one each."""
    featurizer = load_featurizer(str(encoders["bert"]))
    generator = np.random.default_rng(0)
    head = generator.normal(size=(3, 128)), generator.normal(size=3)
    model = EncoderWithLoss(featurizer, lambda features: features, head, is_multi_label).eval()
    inputs = featurizer.modality.collate(featurizer.encode(["one text", "another"]), featurizer.processor)
    targets = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    with torch.no_grad():
        logits = model.pool(inputs).double() @ torch.tensor(head[0]).T + torch.tensor(head[1])
        loss = model(targets, **inputs).loss.item()
    if is_multi_label:
        probabilities = torch.where(targets == 1, logits.sigmoid(), 1 - logits.sigmoid())
    else:
        probabilities = logits.softmax(dim=1)[targets == 1]
    assert loss == pytest.approx(-probabilities.log().mean().item(), rel=1e-4)
