"""Few-shot classification: a handful of labelled examples of each class, on the features of any encoder.

Prototypes: Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning",
https://arxiv.org/abs/1703.05175. Centered features of unit length: Wang, Chao, Weinberger & van der Maaten (2019),
"SimpleShot", https://arxiv.org/abs/1911.04623. Self-training: Yarowsky (1995), "Unsupervised word sense disambiguation
rivaling supervised methods", https://aclanthology.org/P95-1026. The methods that fine-tune the encoder are in
`toolkit.transfer.few_shot_tuning`.

Shape legend: N items, C classes, D features, S examples.
"""

import json
import tempfile
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy
from toolkit.models.class_logits import center_and_normalize, class_logits
from toolkit.models.families import FEW_SHOT_FILE
from toolkit.transfer.episodes import draw_episodes
from toolkit.transfer.linear_probe import DEFAULT_C, fit_linear_probe, linear_layer

METHODS = ("prototype", "nearest", "linear", "lp-ft", "contrastive")
DISTANCE_METHODS = ("prototype", "nearest")  # the others end in a linear probe
FINE_TUNING_METHODS = ("lp-ft", "contrastive")  # those that change the encoder
METRICS = ("cosine", "euclidean", "sqeuclidean")
FLOATS = (np.float64, np.float32)
CONFIDENT = 2 / 3  # fraction of the unlabelled items predicted as a class that self-training takes
ARRAYS = ("mean", "support", "targets", "is_labelled")  # attributes that are saved, without the last underscore
ARRAYS_FILE = "few_shot.safetensors"


@dataclass(eq=False, repr=False)
class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of texts, images, recordings or features that follows scikit-learn's conventions.

    Args:
        encoder: Folder or Hub id of an encoder, or a `Featurizer`; None if items are features, (N, D).
        method: `prototype`, the mean of a class's examples; `nearest`, its nearest example; `linear`, logistic
            regression; `lp-ft` and `contrastive`, logistic regression after fine-tuning the encoder on the examples.
        metric: Similarity for `prototype` and `nearest`: `cosine`, `sqeuclidean` (Snell et al.) or `euclidean`.
        center: Whether to subtract the mean feature vector of the unlabelled items (of the examples without any).
        normalize: Whether to scale features to unit length then.
        scale: Factor of cosines in the logits (inverse temperature).
        C: Inverse regularization strength of logistic regression.
        rounds: Rounds of self-training: the unlabelled items with the most confident predictions become examples.
        max_steps: Steps of fine-tuning.
        learning_rate: Peak learning rate of fine-tuning (default: 2e-2 for static word vectors, else 5e-5).
        reject: Whether to predict `unknown` for items below the threshold that `calibrate` has chosen.
        unknown: The label of rejected items.
        random_state: Seed of fine-tuning.
        modality_name: What items are (default: what the encoder reads); `audio` lets an image encoder read recordings.

    Attributes:
        classes_: The classes, (C,).
        support_: Centered and normalized features of the examples, (S, D).
        targets_: (S, C), True where an example belongs to a class.
        is_labelled_: (S,), False for the examples that self-training added.
        class_means_: The mean of `support_` over each class, (C, D); not where an example may have several classes.
        threshold_: Least similarity of an item to a class; None before `calibrate`.
    """

    encoder: Any = None
    method: str = "prototype"
    metric: str = "cosine"
    center: bool = True
    normalize: bool = True
    scale: float = 10.0
    C: float = DEFAULT_C
    rounds: int = 0
    max_steps: int = 40
    learning_rate: float | None = None
    reject: bool = False
    unknown: Hashable = None
    random_state: int = 0
    batch_size: int = 64
    modality_name: str | None = None

    def fit(self, X, y, unlabelled=None) -> "FewShotClassifier":
        """Fit to examples `X`, (S,), or features, (S, D), and unlabelled items for centering and self-training.

        The labels `y` are (S,), or (S, C) zeros and ones if an example may have several. Raises `InputError` if a
        parameter or the examples are wrong, or if the encoder cannot be loaded.
        """
        X, classes, targets = self._check_examples(X, y)
        if self.rounds and unlabelled is None:
            raise InputError(f"rounds {self.rounds}: need unlabelled items")
        self.threshold_: float | None = None
        self._load_featurizer()
        if self._featurizer is not None:
            self._featurizer.adapt(X)
        if self.method in FINE_TUNING_METHODS:
            self._fine_tune(X, targets, unlabelled)
        features, unlabelled = self._features_and_mean(X, unlabelled)
        self._learn(classes, self._transform(features), targets, np.ones(len(targets), dtype=bool))
        unlabelled = self._transform(unlabelled) if self.rounds else None
        for _ in range(self.rounds):
            self._self_train(unlabelled)
        return self

    def predict(self, X) -> np.ndarray:
        """Predict the class of each item, or `unknown`, (N,); with several labels per item (N, C) zeros and ones."""
        transformed = self._read(X)
        return self._decide(transformed, self._logits(transformed))

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities (N, C) in the order of `classes_`; rows sum to 1, unless items may have several labels."""
        return self._probabilities(self.logits(X))

    def predict_with_proba(self, X) -> tuple[np.ndarray, np.ndarray]:
        """The results of `predict` and `predict_proba` with one pass through the encoder."""
        transformed = self._read(X)
        logits = self._logits(transformed)
        return self._decide(transformed, logits), self._probabilities(logits)

    def predict_with_confidence(self, X) -> tuple[np.ndarray, np.ndarray]:
        """The results of `predict`, and how similar each item is to the most similar class, (N,): what `calibrate`
        chooses a threshold of. With `prototype` and `nearest` that is the highest logit, else the highest cosine with
        the mean of a class's examples."""
        transformed = self._read(X)
        logits = self._logits(transformed)
        return self._decide(transformed, logits), self._confidence(transformed, logits)

    def logits(self, X) -> np.ndarray:
        """Logits (N, C): `scale` times the cosine, the negative distance, or the output of the linear layer."""
        return self._logits(self._read(X))

    def add_class(self, name: Hashable, examples: Sequence[Any]) -> "FewShotClassifier":
        """Add a class. Existing prototypes and the encoder do not change. Raises `InputError` if the class exists."""
        self._check_one_label()
        new = np.array([name])
        if new.dtype.kind != self.classes_.dtype.kind:
            raise InputError(f"{name!r}: expected a name of the same type as {self.classes_[0]!r}")
        if name in self.classes_:
            raise InputError(f"{name}: there is a class of this name; call `remove_class` first")
        added = self._transform(self._features(examples))
        targets = np.pad(self.targets_, ((0, len(added)), (0, 1)))
        targets[len(self.targets_) :, -1] = True
        is_labelled = np.pad(self.is_labelled_, (0, len(added)), constant_values=True)
        self._learn(np.append(self.classes_, new), np.concatenate([self.support_, added]), targets, is_labelled)
        return self

    def remove_class(self, name: Hashable) -> "FewShotClassifier":
        """Remove a class and its examples. Raises `InputError` if it is unknown or only one would be left."""
        self._check_one_label()
        if name not in self.classes_:
            raise InputError(f"{name}: no such class, there are {', '.join(map(str, self.classes_[:20]))}")
        if len(self.classes_) == 2:
            raise InputError(f"{name}: one of the last two classes, which a classifier needs")
        kept = self.classes_ != name
        others = self.targets_[:, kept].any(axis=1)
        targets = self.targets_[others][:, kept]
        self._learn(self.classes_[kept], self.support_[others], targets, self.is_labelled_[others])
        return self

    def calibrate(self, X, y, num_episodes: int = 100, seed: int = 0) -> "FewShotClassifier":
        """Choose the rejection threshold in episodes of held-out classes, half of which are unknown.

        The known ones are as many as the classes of the classifier, if there are enough, with as many examples each.
        Raises `InputError` if there are too few held-out classes or examples.
        """
        self._check_one_label()
        features, labels = self._transform(self._features(X)), np.asarray(y)
        ways = min(len(self.classes_), len(np.unique(labels)) // 2)
        if ways < 2:
            raise InputError(f"calibrate: {len(np.unique(labels))} held-out classes, expected four or more")
        shots = int(self.targets_[self.is_labelled_].sum(axis=0).min())
        method = self.method if self.method in DISTANCE_METHODS else "linear"
        same = {"encoder": None, "method": method, "center": False, "rounds": 0, "reject": False}
        classifier = FewShotClassifier(**{**self.get_params(), **same})
        ids = np.repeat(np.arange(ways), shots)
        known, unknown = [], []
        for episode in draw_episodes(labels, 2 * ways, shots, 1, num_episodes, seed):
            classifier.fit(features[episode.support[:ways].ravel()], ids)
            confidence = classifier.predict_with_confidence(features[episode.query.ravel()])[1]
            known.append(confidence[:ways])
            unknown.append(confidence[ways:])
        self.threshold_ = _best_threshold(np.concatenate(known), np.concatenate(unknown))
        return self

    def save(self, folder: str | Path) -> None:
        """Save classifier and encoder to a folder, which transformers' Auto classes load too (and never reject)."""
        from safetensors.numpy import save_file

        from toolkit.runs.output import write_json
        from toolkit.training.checkpoints import save_model
        from toolkit.transfer.few_shot_model import as_model

        check_is_fitted(self)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self._featurizer is not None:
            save_model(folder, as_model(self), self._featurizer.processor)
        save_file({name: np.ascontiguousarray(getattr(self, f"{name}_")) for name in ARRAYS}, folder / ARRAYS_FILE)
        config = {
            "parameters": {name: value for name, value in self.get_params().items() if name != "encoder"},
            "classes": self.classes_.tolist(),
            "threshold": self.threshold_,
            "threshold_of": "logit" if self.method in DISTANCE_METHODS else "cosine",
            "is_multi_label": self.is_multi_label_,
        }
        write_json(folder / FEW_SHOT_FILE, config)  # last, because it marks the folder as complete

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "FewShotClassifier":
        """Load a classifier from a folder or a Hub. Raises `InputError` if there is none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = local_copy(name)
        try:
            config = json.loads((folder / FEW_SHOT_FILE).read_text(encoding="utf-8"))
            arrays = load_file(folder / ARRAYS_FILE)
            mean, *learned = (arrays[array] for array in ARRAYS)
            has_encoder = (folder / "config.json").is_file()
            classifier = cls(encoder=str(folder) if has_encoder else None, **config["parameters"])
            classifier.threshold_, classifier.is_multi_label_ = config["threshold"], config["is_multi_label"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{name}: holds no few-shot classifier ({first_line(error)})") from None
        is_probability = classifier.method not in DISTANCE_METHODS and "threshold_of" not in config
        if is_probability and classifier.threshold_ is not None:
            raise InputError(f"{name}: made by an earlier version, which compared probabilities; fit it again")
        classifier._load_featurizer()
        classifier.mean_, classifier.n_features_in_ = mean, len(mean)
        classifier._learn(np.array(config["classes"]), *learned)
        return classifier

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Upload the classifier to a repository of a Hub, created if necessary; returns its address."""
        from toolkit.hub.upload import push

        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return push(folder, repo_id, private=private, with_code=True).address

    @property
    def modality(self) -> Any:
        """What an item is, one of `MODALITIES`; None for features."""
        check_is_fitted(self)
        return None if self._featurizer is None else self._featurizer.modality

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the encoder."""
        check_is_fitted(self)
        return 0 if self._featurizer is None else self._featurizer.model.num_parameters()

    def _check_examples(self, X, y) -> tuple[Any, np.ndarray, np.ndarray]:
        """The examples, the classes (C,), and which example belongs to which class, (S, C)."""
        for name, known in (("method", METHODS), ("metric", METRICS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)}: expected one of {', '.join(known)}")
        if self.encoder is None:
            X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True)
            y = y if y.ndim == 2 and y.shape[1] > 1 else column_or_1d(y, warn=True)
        else:
            X, y = list(X), np.asarray(y)
            if len(X) != len(y):
                raise InputError(f"{len(X)} examples and {len(y)} labels, expected as many")
        with warnings.catch_warnings():  # one example per class looks like a regression to scikit-learn
            warnings.filterwarnings("ignore", "The number of unique classes")
            check_classification_targets(y)
        self.is_multi_label_ = np.ndim(y) == 2
        if self.is_multi_label_ and self.method in DISTANCE_METHODS:
            raise InputError(f"method {self.method}: expected one label an example; with several, use linear")
        if self.is_multi_label_ and self.rounds:
            raise InputError(f"rounds {self.rounds}: expected one label an example")
        classes = np.arange(y.shape[1]) if self.is_multi_label_ else np.unique(y)
        if len(classes) < 2:
            raise InputError(f"there is one class only, {classes[0]}, expected two or more")
        return X, classes, y.astype(bool) if self.is_multi_label_ else y[:, None] == classes

    def _check_one_label(self) -> None:
        check_is_fitted(self)
        if self.is_multi_label_:
            raise InputError("where items may have several labels, classes are fixed and nothing is rejected")

    def _load_featurizer(self) -> None:
        self._featurizer: Any = None
        if isinstance(self.encoder, str | Path):
            from toolkit.transfer.features import load_featurizer

            self._featurizer = load_featurizer(str(self.encoder), self.batch_size, self.modality_name)
        else:
            self._featurizer = self.encoder

    def _features(self, items) -> np.ndarray:
        if self._featurizer is None:
            return validate_data(self, items, dtype=FLOATS, reset=False)
        return self._featurizer([items] if isinstance(items, str) else items)

    def _features_and_mean(self, examples, unlabelled) -> tuple[np.ndarray, np.ndarray]:
        """Features of the examples and of the unlabelled items (or of the examples again); sets `mean_`."""
        features = self._features(examples)
        others = features if unlabelled is None else self._features(unlabelled)
        self.mean_ = others.mean(axis=0) if self.center else np.zeros_like(features[0])
        return features, others

    def _transform(self, features: np.ndarray) -> np.ndarray:
        """Centered and normalized features."""
        centered = features - self.mean_
        lengths = np.linalg.norm(centered, axis=1, keepdims=True)
        return centered / np.maximum(lengths, 1e-12) if self.normalize else centered

    def _learn(self, classes: np.ndarray, support: np.ndarray, targets: np.ndarray, is_labelled: np.ndarray) -> None:
        """Fit to transformed features: set the points that items are compared with, and the class of each."""
        self.classes_, self.support_, self.targets_, self.is_labelled_ = classes, support, targets, is_labelled
        self._point_classes, self._biases = np.arange(len(classes)), None
        if not self.is_multi_label_:
            self.class_means_ = np.stack([support[of_class].mean(axis=0) for of_class in targets.T])
        if self.method == "prototype":
            self._points = self.class_means_
        elif self.method == "nearest":
            self._points, self._point_classes = support, targets.argmax(axis=1)
        else:
            self._points, self._biases = self._fit_linear(support, targets)

    def _fit_linear(self, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = targets if self.is_multi_label_ else targets.argmax(axis=1)
        return linear_layer(fit_linear_probe(features, labels, self.C))

    def _fine_tune(self, examples: Sequence[Any], targets: np.ndarray, unlabelled) -> None:
        """Fine-tune the encoder on the examples; with `lp-ft` starting from a linear probe."""
        from toolkit.transfer.few_shot_tuning import tune

        if self._featurizer is None:
            raise InputError(f"method {self.method}: needs an encoder to fine-tune, not features")
        head, transform = None, None
        if self.method == "lp-ft":
            features, _ = self._features_and_mean(examples, unlabelled)
            head = self._fit_linear(self._transform(features), targets)
            mean = torch.from_numpy(self.mean_).to(self._featurizer.model.device)
            transform = partial(center_and_normalize, mean=mean, normalize=self.normalize)
        settings = self.max_steps, self.learning_rate, self.random_state
        tune(self._featurizer, examples, targets, *settings, transform, head)

    def _self_train(self, unlabelled: np.ndarray) -> None:
        """Fit again, to the labelled examples and the most confident predictions for unlabelled features (N, D)."""
        logits = self._logits(unlabelled)
        predicted = logits.argmax(axis=1)
        confidence = (logits if self.method in DISTANCE_METHODS else softmax(logits, axis=1)).max(axis=1)
        chosen = []
        for label in range(len(self.classes_)):
            indices = np.flatnonzero(predicted == label)
            most_confident = indices[np.argsort(-confidence[indices], kind="stable")]
            chosen.append(most_confident[: round(CONFIDENT * len(indices))])
        taken, labelled = np.concatenate(chosen), self.is_labelled_
        self._learn(
            self.classes_,
            np.concatenate([self.support_[labelled], unlabelled[taken]]),
            np.concatenate([self.targets_[labelled], predicted[taken, None] == np.arange(len(self.classes_))]),
            np.arange(labelled.sum() + len(taken)) < labelled.sum(),
        )

    def _read(self, X) -> np.ndarray:
        """Centered and normalized features of items, (N, D)."""
        check_is_fitted(self)
        return self._transform(self._features(X))

    def _logits(self, transformed: np.ndarray) -> np.ndarray:
        features = torch.from_numpy(transformed)
        points = torch.from_numpy(self._points).to(features.dtype)
        biases = None if self._biases is None else torch.from_numpy(self._biases).to(features.dtype)
        metric = self.metric if self.method in DISTANCE_METHODS else "linear"
        classes = torch.from_numpy(self._point_classes)
        return class_logits(features, points, classes, len(self.classes_), metric, self.scale, biases).numpy()

    def _decide(self, transformed: np.ndarray, logits: np.ndarray) -> np.ndarray:
        if self.is_multi_label_:
            return (logits > 0).astype(int)
        predicted = self.classes_[logits.argmax(axis=1)]
        if not self.reject:
            return predicted
        if self.threshold_ is None:
            raise InputError("reject: no threshold is known, `calibrate` learns one from held-out examples")
        predicted = predicted.astype(object)
        predicted[self._confidence(transformed, logits) < self.threshold_] = self.unknown
        return predicted

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits) if self.is_multi_label_ else softmax(logits, axis=1)

    def _confidence(self, transformed: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """How similar each item is to the most similar class, (N,)."""
        if self.method in DISTANCE_METHODS:
            return logits.max(axis=1)
        return cosine_similarity(transformed, self.class_means_).max(axis=1)


def _best_threshold(known: np.ndarray, unknown: np.ndarray) -> float:
    """The threshold with the highest balanced accuracy: `known` above it, `unknown` below it."""
    levels = np.unique(np.concatenate([known, unknown]))
    candidates = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    accepted = 1 - np.searchsorted(np.sort(known), candidates) / len(known)
    rejected = np.searchsorted(np.sort(unknown), candidates) / len(unknown)
    return float(candidates[(accepted + rejected).argmax()])
