"""Zero-shot classification: classes that are known by their names or descriptions; some may have examples too.

A text belongs to the class with the nearest description: Chang, Ratinov, Roth & Srikumar (2008), "Importance of
semantic representation: dataless classification", https://aaai.org/Papers/AAAI/2008/AAAI08-132.pdf. Bootstrapping on
unlabelled texts: Song & Roth (2014), "On dataless hierarchical text classification",
https://ojs.aaai.org/index.php/AAAI/article/view/8938. Images are mapped to the space of the descriptions: Socher,
Ganjoo, Manning & Ng (2013), "Zero-shot learning through cross-modal transfer", https://arxiv.org/abs/1301.3666.
Calibrated stacking lowers the logits of classes with examples: Chao, Changpinyo, Gong & Sha (2016), "An empirical
study and analysis of generalized zero-shot learning", https://arxiv.org/abs/1605.04253.

Shape legend: N items, C classes, D features, S examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import hmean
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import Ridge
from sklearn.utils.validation import check_is_fitted

from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.transfer.encoders import load_encoder
from toolkit.transfer.features import Featurizer, load_featurizer
from toolkit.transfer.few_shot_classifier import FewShotClassifier

NUM_TRIALS = 5
PENALTIES = np.linspace(-5, 10, 151)  # of logits


@dataclass(eq=False, repr=False)
class ZeroShotClassifier(ClassifierMixin, BaseEstimator):
    """Assigns each item to the class with the nearest description.

    Args:
        encoder: Folder or Hub id of the encoder of the items.
        label_encoder: Folder or Hub id of an encoder of texts for the descriptions (default: `encoder`). Ridge
            regression, which needs examples of some classes, maps features of items to its space.
        rounds: Rounds of bootstrapping, in which unlabelled items become examples of the class predicted for them.
        alpha: Regularization strength of the ridge regression.
        random_state: Seed of the trials that choose the penalty.
        modality_name: What items are (default: what the encoder reads); `audio` lets an image encoder read recordings.

    Attributes:
        classes_: The classes in sorted order, (C,).
        is_seen_: Whether a class has examples, (C,).
        penalty_: What is subtracted from the logits of classes with examples.
    """

    encoder: str
    label_encoder: str | None = None
    rounds: int = 0
    alpha: float = 1.0
    random_state: int = 0
    batch_size: int = 64
    modality_name: str | None = None

    def fit(
        self,
        descriptions: Mapping[str, str],
        X: Sequence[Any] = (),
        y: Sequence[str] = (),
        unlabelled: Sequence[Any] | None = None,
    ) -> "ZeroShotClassifier":
        """Fit to a description of each class, to examples of some classes, and to unlabelled items.

        The unlabelled items are for centering and bootstrapping. Raises `InputError` if there are too few classes or
        examples, or an encoder cannot be loaded.
        """
        self._featurizer = load_featurizer(self.encoder, self.batch_size, self.modality_name)
        self._featurizer.adapt(X)
        described = encoder_of_descriptions(self._featurizer, self.label_encoder)(list(descriptions.values()))
        features = self._featurizer(X) if len(X) else None
        others = None if unlabelled is None else self._featurizer(unlabelled)
        return self.fit_features(list(descriptions), described, features, y, others)

    def fit_features(
        self,
        names: Sequence[str],
        described: np.ndarray,
        features: np.ndarray | None = None,
        y: Sequence[str] = (),
        unlabelled: np.ndarray | None = None,
    ) -> "ZeroShotClassifier":
        """Fit like `fit`, to features of descriptions (C, D) of the classes `names`, of examples (S, D) of the classes
        `y`, and of unlabelled items (N, D)."""
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
        self.penalty_ = self._choose_penalty(features, ids, unlabelled)
        self._learn(features, ids, unlabelled)
        for _ in range(self.rounds):
            if unlabelled is None:
                raise InputError("rounds: need unlabelled items")
            predicted = self.logits_of(unlabelled).argmax(axis=1)
            self._learn(np.concatenate([features, unlabelled]), np.concatenate([ids, predicted]), unlabelled)
        return self

    def predict(self, X) -> np.ndarray:
        """Predict the class of each item, (N,)."""
        return self.classes_[self.logits(X).argmax(axis=1)]

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities (N, C) in the order of `classes_`."""
        return softmax(self.logits(X), axis=1)

    def logits(self, X) -> np.ndarray:
        """Logits (N, C): ten times the cosine, minus the penalty of classes with examples."""
        check_is_fitted(self)
        return self.logits_of(self._featurizer([X] if isinstance(X, str) else X))

    def logits_of(self, features: np.ndarray) -> np.ndarray:
        """Logits (N, C) of features (N, D)."""
        mapped = features if self._map is None else self._map.predict(features)
        return self._prototypes.logits(mapped) - self.penalty_ * self.is_seen_

    def _learn(self, features: np.ndarray, ids: np.ndarray, unlabelled: np.ndarray | None) -> None:
        """Compute prototypes from the descriptions and from features (S, D) of examples of the classes `ids` (S,)."""
        points, of_points = self._described, np.arange(len(self.classes_))
        if self.label_encoder is None:
            self._map = None
            points, of_points = np.concatenate([points, features]), np.concatenate([of_points, ids])
        else:
            if len(set(ids.tolist())) < 2:
                raise InputError(
                    "descriptions of images are learned from examples: expected those of two classes or more"
                )
            self._map, unlabelled = Ridge(alpha=self.alpha).fit(features, self._described[ids]), None
        self._prototypes = FewShotClassifier().fit(points, self.classes_[of_points], unlabelled)

    def _choose_penalty(self, features: np.ndarray, ids: np.ndarray, unlabelled: np.ndarray | None) -> float:
        """The penalty with the best harmonic mean of the accuracies on seen and unseen classes.

        In each trial half of the seen classes count as unseen; half of the examples of the others are held out.
        """
        seen = np.flatnonzero(self.is_seen_)
        if self.is_seen_.all() or len(seen) < 4 or np.bincount(ids)[seen].min() < 2:
            return 0.0
        rng = np.random.default_rng(self.random_state)
        rates = np.zeros((NUM_TRIALS, len(PENALTIES), 2))  # accuracies on items of known and of other classes
        for trial in rates:
            known = rng.permutation(seen)[: len(seen) // 2]
            of_known = np.isin(ids, known)
            is_trained = of_known.copy()
            for label in known:
                indices = rng.permutation(np.flatnonzero(ids == label))
                is_trained[indices[: len(indices) // 2]] = False
            self._learn(features[is_trained], ids[is_trained], unlabelled)
            self.penalty_ = 0.0
            answers, of_known, is_known = ids[~is_trained], of_known[~is_trained], np.isin(seen, known)
            logits = self.logits_of(features[~is_trained])[:, seen]
            for accuracies, penalty in zip(trial, PENALTIES, strict=True):
                is_right = seen[(logits - penalty * is_known).argmax(axis=1)] == answers
                accuracies[:] = is_right[of_known].mean(), is_right[~of_known].mean()
        means = hmean(rates.mean(axis=0) + 1e-9, axis=1)
        return float(np.median(PENALTIES[means >= means.max() - 1e-9]))


def encoder_of_descriptions(featurizer: Featurizer, label_encoder: str | None) -> Featurizer:
    """The encoder of the descriptions: `label_encoder`, or else that of the items. Raises `InputError`."""
    found = featurizer if label_encoder is None else load_featurizer(label_encoder, featurizer.batch_size)
    if not found.modality.items_are_texts:
        raise InputError(
            f"{found.name}: reads {found.modality.name}s; an encoder of texts has to read the descriptions"
        )
    return found


@dataclass(eq=False, repr=False)
class EntailmentClassifier(ClassifierMixin, BaseEstimator):
    """Assigns each text to the class whose hypothesis it entails with the highest probability.

    Yin, Hay & Roth (2019), "Benchmarking zero-shot text classification", https://arxiv.org/abs/1909.00161. `model` is
    a folder or Hub id of a model of natural language inference, with a label `entailment`.
    """

    model: str
    hypothesis: str = "This example is about {}."  # with braces in place of the description
    batch_size: int = 64  # pairs

    def fit(self, descriptions: Mapping[str, str]) -> "EntailmentClassifier":
        """Load the model and store the descriptions. Raises `InputError` if the model has no label `entailment`."""
        from transformers import pipeline
        from transformers.pipelines import ZeroShotClassificationPipeline

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
        """Number of parameters of the model."""
        return self._pipeline.model.num_parameters()

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """Predict the class of each text, (N,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """Probabilities (N, C) in the order of `classes_`."""
        check_is_fitted(self)
        found = self._pipeline(
            list(X), candidate_labels=self._texts, hypothesis_template=self.hypothesis, batch_size=self.batch_size
        )
        scores = [dict(zip(each["labels"], each["scores"], strict=True)) for each in found]
        return np.array([[of_text[text] for text in self._texts] for of_text in scores])
