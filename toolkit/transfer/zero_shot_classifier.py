"""Classify by the names or descriptions of classes, of which some may have labelled examples too.

A text belongs to the class whose description lies nearest in the encoder's space: Chang, Ratinov, Roth & Srikumar
(2008), "Importance of semantic representation: dataless classification", https://aaai.org/Papers/AAAI/2008/AAAI08-132.pdf.
Unlabelled texts then move the classes to where such texts are: Song & Roth (2014), "On dataless hierarchical text
classification", https://ojs.aaai.org/index.php/AAAI/article/view/8938. Images are mapped to the space of the
descriptions: Socher, Ganjoo, Manning & Ng (2013), "Zero-shot learning through cross-modal transfer",
https://arxiv.org/abs/1301.3666. So that classes with examples do not swallow the others, their scores are lowered:
Chao, Changpinyo, Gong & Sha (2016), "An empirical study and analysis of generalized zero-shot learning",
https://arxiv.org/abs/1605.04253.

Shape legend: N items, C classes, D features, S examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import hmean
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted

from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.transfer.features import Featurizer, load_featurizer
from toolkit.transfer.few_shot_classifier import FewShotClassifier

NUM_TRIALS = 5
PENALTIES = np.linspace(-5, 10, 151)  # of logits


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of texts, or of images where `label_encoder` reads the descriptions.

    Args:
        encoder: a folder or Hub id.
        label_encoder: of texts, a folder or Hub id; needed where `encoder` is of images, and then some classes need
            examples, from which the map to the descriptions is learned.
        rounds: how often unlabelled items move the classes.
        alpha: how strongly the map from images to descriptions is held back.
        random_state: the seed of the trials that choose the penalty.

    After `fit`: `classes_` (C,), `is_seen_` (C,), true for classes with examples, and `penalty_`, by which their
    logits are lowered.
    """

    def __init__(
        self,
        encoder: str,
        label_encoder: str | None = None,
        rounds: int = 0,
        alpha: float = 1.0,
        random_state: int = 0,
        batch_size: int = 64,
    ):
        self.encoder = encoder
        self.label_encoder = label_encoder
        self.rounds = rounds
        self.alpha = alpha
        self.random_state = random_state
        self.batch_size = batch_size

    def fit(
        self,
        descriptions: Mapping[str, str],
        X: Sequence[Any] = (),
        y: Sequence[str] = (),
        unlabelled: Sequence[Any] | None = None,
    ) -> "ZeroShotClassifier":
        """`descriptions` has a text for each class; `X` (S,) are labelled examples of some of them, `y` (S,) their
        classes. Features are centred on the `unlabelled` items, or else on what there is. Raises `InputError`."""
        self._featurizer = load_featurizer(self.encoder, self.batch_size)
        self.fit_features(
            list(descriptions),
            encoder_of_descriptions(self._featurizer, self.label_encoder)(list(descriptions.values())),
            self._featurizer(X) if len(X) else None,
            y,
            None if unlabelled is None else self._featurizer(unlabelled),
        )
        return self

    def fit_features(
        self,
        names: Sequence[str],
        described: np.ndarray,
        features: np.ndarray | None = None,
        y: Sequence[str] = (),
        usual: np.ndarray | None = None,
    ) -> "ZeroShotClassifier":
        """The same from features: `described` (C, D) of the classes `names`, `features` (S, D) of the examples,
        `usual` (N, D) of the unlabelled items."""
        if len(set(names)) < len(names):
            raise InputError(f"{len(names)} classes of {len(set(names))} names, expected one name each")
        if len(names) < 2:
            raise InputError(f"{len(names)} classes, expected two or more")
        if missing := set(y) - set(names):
            raise InputError(f"{min(missing)}: a label of the examples that is no class")
        order = np.argsort(names)
        self.classes_, self._described = np.array(names)[order], described[order]
        features = described[:0] if features is None else features
        ids = np.searchsorted(self.classes_, y) if len(y) else np.zeros(0, dtype=int)
        self.is_seen_ = np.isin(np.arange(len(names)), ids)
        self.penalty_ = self._choose_penalty(features, ids, usual)
        self._learn(features, ids, usual)
        for _ in range(self.rounds):
            if usual is None:
                raise InputError("rounds: need unlabelled items")
            given = self.logits_of(usual).argmax(axis=1)
            self._learn(np.concatenate([features, usual]), np.concatenate([ids, given]), usual)
        return self

    def predict(self, X) -> np.ndarray:
        """(N,): the class of each item."""
        return self.classes_[self.logits(X).argmax(axis=1)]

    def predict_proba(self, X) -> np.ndarray:
        """(N, C), in the order of `classes_`; each row sums to 1."""
        return softmax(self.logits(X), axis=1)

    def logits(self, X) -> np.ndarray:
        """(N, C): ten times the cosine, less the penalty of classes with examples."""
        check_is_fitted(self)
        return self.logits_of(self._featurizer([X] if isinstance(X, str) else X))

    def logits_of(self, features: np.ndarray) -> np.ndarray:
        """(N, C), of features (N, D)."""
        mapped = features if self._map is None else self._map.predict(features)
        return self._nearness.logits(mapped) - self.penalty_ * self.is_seen_

    def _learn(self, features: np.ndarray, ids: np.ndarray, usual: np.ndarray | None) -> None:
        """From the descriptions and from features (S, D) of classes `ids` (S,)."""
        points, of_points = self._described, np.arange(len(self.classes_))
        if self.label_encoder is None:
            self._map = None
            points, of_points = np.concatenate([points, features]), np.concatenate([of_points, ids])
        else:
            if len(set(ids.tolist())) < 2:
                raise InputError(
                    "descriptions of images are learned from examples: expected those of two classes or more"
                )
            self._map, usual = Ridge(alpha=self.alpha).fit(features, self._described[ids]), None
        self._nearness = FewShotClassifier().fit(points, self.classes_[of_points], usual)

    def _choose_penalty(self, features: np.ndarray, ids: np.ndarray, usual: np.ndarray | None) -> float:
        """The one that is best for the harmonic mean of the accuracies of seen and unseen classes, where half of the
        classes with examples are taken for unseen, and of the others half of the examples are learned from."""
        seen = np.flatnonzero(self.is_seen_)
        if self.is_seen_.all() or len(seen) < 4 or np.bincount(ids)[seen].min() < 2:
            return 0.0
        rng = np.random.default_rng(self.random_state)
        rates = []
        for _ in range(NUM_TRIALS):
            known = rng.permutation(seen)[: len(seen) // 2]
            of_known = np.isin(ids, known)
            learned = of_known.copy()
            for label in known:
                places = rng.permutation(np.flatnonzero(ids == label))
                learned[places[: len(places) // 2]] = False
            self._learn(features[learned], ids[learned], usual)
            self.penalty_ = 0.0
            logits = self.logits_of(features[~learned])[:, seen]
            rates.append(_rates(logits, np.isin(seen, known), ids[~learned][:, None] == seen, of_known[~learned]))
        means = hmean(np.mean(rates, axis=0) + 1e-9, axis=1)
        return float(np.median(PENALTIES[means >= means.max() - 1e-9]))


def encoder_of_descriptions(featurizer: Featurizer, label_encoder: str | None) -> Featurizer:
    """That of the items, or another one. Raises `InputError` where it reads images."""
    found = featurizer if label_encoder is None else load_featurizer(label_encoder, featurizer.batch_size)
    if found.modality.name != "text":
        raise InputError(f"{found.name}: reads images; an encoder of texts has to read the descriptions")
    return found


def _rates(logits: np.ndarray, is_known: np.ndarray, is_right: np.ndarray, of_known: np.ndarray) -> np.ndarray:
    """(penalties, 2): how many of the items of known and of other classes are right. `logits` and `is_right` (N, C),
    `is_known` (C,), `of_known` (N,)."""
    found = []
    for penalty in PENALTIES:
        predicted = (logits - penalty * is_known).argmax(axis=1)
        right = is_right[np.arange(len(predicted)), predicted]
        found.append([right[of_known].mean(), right[~of_known].mean()])
    return np.array(found)


class EntailmentClassifier(ClassifierMixin, BaseEstimator):
    """The class whose hypothesis follows most surely from the text, by a model of natural language inference.

    Yin, Hay & Roth (2019), "Benchmarking zero-shot text classification", https://arxiv.org/abs/1909.00161. `model` is
    a folder or Hub id of a classifier of pairs with a label `entailment`, `hypothesis` a sentence with braces where a
    description goes.
    """

    def __init__(self, model: str, hypothesis: str = "This example is about {}.", batch_size: int = 64):
        self.model = model
        self.hypothesis = hypothesis
        self.batch_size = batch_size

    def fit(self, descriptions: Mapping[str, str]) -> "EntailmentClassifier":
        """Only remembers them. Raises `InputError` where the model knows no entailment."""
        from transformers import pipeline
        from transformers.pipelines import ZeroShotClassificationPipeline

        from toolkit.transfer.encoders import load_encoder

        if "{}" not in self.hypothesis:
            raise InputError(f"hypothesis {self.hypothesis!r}: expected {{}} where the description goes")
        model, tokenizer = load_encoder(self.model, "AutoModelForSequenceClassification", MODALITIES["text"])
        self._pipeline: ZeroShotClassificationPipeline = pipeline(
            "zero-shot-classification", model=model, tokenizer=tokenizer
        )
        if self._pipeline.entailment_id < 0:
            raise InputError(f"{self.model}: none of its labels is entailment, expected a model of inference")
        if len(set(descriptions.values())) < max(2, len(descriptions)):
            raise InputError("expected two descriptions or more, no two of them alike")
        self.classes_ = np.array(sorted(descriptions))
        self._texts = [descriptions[name] for name in self.classes_.tolist()]
        return self

    @property
    def num_parameters(self) -> int:
        """Of the model."""
        return self._pipeline.model.num_parameters()

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """(N,): the class of each text."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """(N, C), in the order of `classes_`; each row sums to 1."""
        check_is_fitted(self)
        found = self._pipeline(
            list(X), candidate_labels=self._texts, hypothesis_template=self.hypothesis, batch_size=self.batch_size
        )
        scores = [dict(zip(each["labels"], each["scores"], strict=True)) for each in found]
        return np.array([[of_text[text] for text in self._texts] for of_text in scores])
