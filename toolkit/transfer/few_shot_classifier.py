"""Classify with a handful of labelled examples over any encoder; new classes join and leave at any time.

Prototypes: Snell, Swersky & Zemel (2017), "Prototypical networks for few-shot learning",
https://arxiv.org/abs/1703.05175. Centred features of length one: Wang, Chao, Weinberger & van der Maaten (2019),
"SimpleShot", https://arxiv.org/abs/1911.04623. Scaled cosines: Gidaris & Komodakis (2018), "Dynamic few-shot visual
learning without forgetting", https://arxiv.org/abs/1804.09458. Unlabelled items that are surest of a class become its
examples: Yarowsky (1995), "Unsupervised word sense disambiguation rivaling supervised methods",
https://aclanthology.org/P95-1026. The methods that change the encoder are in `toolkit.transfer.few_shot_tuning`.

Shape legend: N items, C classes, D features, S examples.
"""

import json
import tempfile
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy
from toolkit.models.families import FEW_SHOT_FILE
from toolkit.transfer.episodes import draw_episodes

METHODS = ("prototype", "nearest", "linear", "lp-ft", "contrastive")
DISTANCE_METHODS = ("prototype", "nearest")  # the others end in a linear head
FINE_TUNING_METHODS = ("lp-ft", "contrastive")  # those that change it
METRICS = ("cosine", "euclidean", "sqeuclidean")  # as scipy calls them
ARRAYS = ("mean", "support", "targets", "is_labelled")  # what is saved of what was learned
SUREST = 2 / 3  # of the unlabelled items given to a class
ARRAYS_FILE = "few_shot.safetensors"


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of texts, of images or of features, by scikit-learn's conventions.

    Args:
        encoder: a folder or Hub id; None where items are features already, (N, D).
        method: `prototype`, the mean of a class's examples; `nearest`, its nearest example; `linear`, logistic
            regression; `lp-ft` and `contrastive`, the same after the encoder was fine-tuned on the examples.
        metric: how the first two compare features: `cosine`, `sqeuclidean`, as Snell et al. do, or `euclidean`.
        centre: whether features are taken from their mean, over the `unlabelled` items or else the examples.
        normalise: whether they are then made of length one.
        scale: what a cosine is multiplied by to be a logit.
        C: how freely logistic regression follows the examples.
        rounds: how often the `unlabelled` items that are surest of their class count as examples of it too.
        max_steps: of fine-tuning.
        learning_rate: of fine-tuning; None is 2e-2 for a table of word vectors and 5e-5 for all others.
        reject: whether `predict` says `unknown` of an item that is too little like any class; `calibrate` learns what
            is too little.
        random_state: the seed of fine-tuning.

    After `fit`: `classes_` (C,), `support_` (S, D), the examples' features as they are compared, `targets_` (S, C),
    true where an example is of a class, and `is_labelled_` (S,), false where it comes from the unlabelled items.
    """

    def __init__(
        self,
        encoder: str | None = None,
        method: str = "prototype",
        metric: str = "cosine",
        centre: bool = True,
        normalise: bool = True,
        scale: float = 10.0,
        C: float = 10.0,
        rounds: int = 0,
        max_steps: int = 40,
        learning_rate: float | None = None,
        reject: bool = False,
        unknown: Hashable = None,
        random_state: int = 0,
        batch_size: int = 64,
    ):
        self.encoder = encoder
        self.method = method
        self.metric = metric
        self.centre = centre
        self.normalise = normalise
        self.scale = scale
        self.C = C
        self.rounds = rounds
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.reject = reject
        self.unknown = unknown
        self.random_state = random_state
        self.batch_size = batch_size

    def fit(self, X, y, unlabelled=None) -> "FewShotClassifier":
        """Learn from examples `X`, (S,) or (S, D), and their labels `y`, (S,), or (S, C) of zeros and ones where an
        example may have several. Raises `InputError`."""
        for name, known in (("method", METHODS), ("metric", METRICS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)}: expected one of {', '.join(known)}")
        if self.encoder is None:
            X, y = validate_data(self, X, y, multi_output=True)
            y = y if y.ndim == 2 and y.shape[1] > 1 else column_or_1d(y, warn=True)
        else:
            X, y = list(X), np.asarray(y)
            if len(X) != len(y):
                raise InputError(f"{len(X)} examples and {len(y)} labels, expected as many")
        with warnings.catch_warnings():  # an example a class is no regression
            warnings.filterwarnings("ignore", "The number of unique classes")
            check_classification_targets(y)
        self.is_multi_label_ = np.ndim(y) == 2
        if self.is_multi_label_:
            classes, targets = np.arange(y.shape[1]), y.astype(bool)
            if self.method in DISTANCE_METHODS:
                raise InputError(f"method {self.method}: expected one label an example; with several, use linear")
            if self.rounds:
                raise InputError(f"rounds {self.rounds}: expected one label an example")
        else:
            classes = np.unique(y)
            targets = y[:, None] == classes
        if len(classes) < 2:
            raise InputError(f"there is one class only, {classes[0]}, expected two or more")
        if self.rounds and unlabelled is None:
            raise InputError(f"rounds {self.rounds}: need unlabelled items")
        self.threshold_: float | None = None
        self._load_encoder()
        if self.method in FINE_TUNING_METHODS:
            self._tune(X, targets, unlabelled)
        features, usual = self._centred_features(X, unlabelled)
        self._learn(classes, self._placed(features), targets, np.ones(len(targets), dtype=bool))
        placed = self._placed(usual) if self.rounds else usual
        for _ in range(self.rounds):
            self._learn_from(placed)
        return self

    def predict(self, X) -> np.ndarray:
        """(N,): the class of each item, or `unknown`; with several labels (N, C), ones for those that it has.

        A text alone, not in a list, is one item.
        """
        return self._decide(self.logits(X))

    def predict_proba(self, X) -> np.ndarray:
        """(N, C), in the order of `classes_`; each row sums to 1, unless items may have several labels."""
        return self._probabilities(self.logits(X))

    def predict_with_proba(self, X) -> tuple[np.ndarray, np.ndarray]:
        """What `predict` and `predict_proba` say, by one pass through the encoder."""
        logits = self.logits(X)
        return self._decide(logits), self._probabilities(logits)

    def _decide(self, logits: np.ndarray) -> np.ndarray:
        if self.is_multi_label_:
            return (logits > 0).astype(int)
        found = self.classes_[logits.argmax(axis=1)]
        if not self.reject:
            return found
        if self.threshold_ is None:
            raise InputError("reject: no threshold is known, `calibrate` learns one from held-out examples")
        found = found.astype(object)
        found[self._confidence(logits) < self.threshold_] = self.unknown
        return found

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits) if self.is_multi_label_ else softmax(logits, axis=1)

    def logits(self, X) -> np.ndarray:
        """(N, C): `scale` times the cosine, minus the distance, or what the linear head says."""
        check_is_fitted(self)
        return self._logits(self._placed(self._features(X)))

    def enrol(self, name: Hashable, examples: Sequence[Any]) -> "FewShotClassifier":
        """Add a class by its examples; prototypes of the others, and the encoder, stay as they are. Raises
        `InputError` where there is a class of that name."""
        check_is_fitted(self)
        self._refuse_many_labels()
        new = np.array([name])
        if new.dtype.kind != self.classes_.dtype.kind:
            raise InputError(f"{name!r}: expected a name of the same type as {self.classes_[0]!r}")
        if name in self.classes_:
            raise InputError(f"{name}: there is a class of this name; `forget` it first")
        placed = self._placed(self._features(examples))
        targets = np.zeros((len(self.support_) + len(placed), len(self.classes_) + 1), dtype=bool)
        targets[: len(self.support_), :-1] = self.targets_
        targets[len(self.support_) :, -1] = True
        is_labelled = np.append(self.is_labelled_, np.ones(len(placed), dtype=bool))
        self._learn(np.append(self.classes_, new), np.concatenate([self.support_, placed]), targets, is_labelled)
        return self

    def forget(self, name: Hashable) -> "FewShotClassifier":
        """Take a class out. Raises `InputError` where there is none of that name, or only one other."""
        check_is_fitted(self)
        self._refuse_many_labels()
        if name not in self.classes_:
            raise InputError(f"{name}: no such class, there are {', '.join(map(str, self.classes_[:20]))}")
        if len(self.classes_) == 2:
            raise InputError(f"{name}: one of the last two classes, which a classifier needs")
        (place,) = np.flatnonzero(self.classes_ == name)
        others = ~self.targets_[:, place]
        self._learn(
            np.delete(self.classes_, place),
            self.support_[others],
            np.delete(self.targets_[others], place, axis=1),
            self.is_labelled_[others],
        )
        return self

    def calibrate(self, X, y, num_episodes: int = 100, seed: int = 0) -> "FewShotClassifier":
        """Learn from held-out examples how alike an item has to be to belong to a class at all.

        In each episode as many of the held-out classes as there are in the classifier, or half of them, are known by
        as many examples as its own, and as many others are not. The threshold is the one that treats most items right,
        known and unknown ones alike. Raises `InputError` where there are too few classes or examples.
        """
        check_is_fitted(self)
        self._refuse_many_labels()
        placed, labels = self._placed(self._features(X)), np.asarray(y)
        num_held_out = len(np.unique(labels))
        ways = min(len(self.classes_), num_held_out // 2)
        shots = int(self.targets_[self.is_labelled_].sum(axis=0).min())
        if ways < 2:
            raise InputError(f"calibrate: {num_held_out} held-out classes, expected four or more")
        method = self.method if self.method in DISTANCE_METHODS else "linear"
        alike = {"encoder": None, "method": method, "centre": False, "rounds": 0, "reject": False}
        twin, ids = FewShotClassifier(**{**self.get_params(), **alike}), np.repeat(np.arange(ways), shots)
        known, unknown = [], []
        for episode in draw_episodes(labels, 2 * ways, shots, 1, num_episodes, seed):
            twin.fit(placed[episode.support[:ways].ravel()], ids)
            confidence = twin._confidence(twin._logits(placed[episode.query.ravel()]))
            known.append(confidence[:ways])
            unknown.append(confidence[ways:])
        self.threshold_ = _best_threshold(np.concatenate(known), np.concatenate(unknown))
        return self

    def save(self, folder: str | Path) -> None:
        """Write to a folder what `from_pretrained` makes the same classifier of, its encoder too.

        To transformers it is a model that classifies texts or images, and never rejects one.
        """
        from safetensors.numpy import save_file

        from toolkit.runs.output import write_json
        from toolkit.training.checkpoints import save_model

        check_is_fitted(self)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, f"{name}_") for name in ARRAYS}
        config = {
            "parameters": {name: value for name, value in self.get_params().items() if name != "encoder"},
            "classes": self.classes_.tolist(),
            "threshold": self.threshold_,
            "is_multi_label": self.is_multi_label_,
        }
        if self._featurizer is not None:
            save_model(folder, self._as_model(), self._featurizer.processor)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS_FILE)
        write_json(folder / FEW_SHOT_FILE, config)  # last: with it the folder is whole

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "FewShotClassifier":
        """From a folder that `save` wrote, or from the Hub. Raises `InputError`."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = local_copy(name)
        try:
            config = json.loads((folder / FEW_SHOT_FILE).read_text(encoding="utf-8"))
            arrays = load_file(folder / ARRAYS_FILE)
            mean, *learned = (arrays[name] for name in ARRAYS)
            has_encoder = (folder / "config.json").is_file()
            found = cls(encoder=str(folder) if has_encoder else None, **config["parameters"])
            found.threshold_, found.is_multi_label_ = config["threshold"], config["is_multi_label"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{name}: holds no few-shot classifier ({first_line(error)})") from None
        found._load_encoder()
        found.mean_, found.n_features_in_ = mean, len(mean)
        found._learn(np.array(config["classes"]), *learned)
        return found

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Save to a repository of the Hub, made where there is none; its address. Raises as `push` does."""
        from toolkit.hub.upload import push

        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return push(folder, repo_id, private=private, with_code=True).address

    def _as_model(self):
        """A `PreTrainedModel` around the encoder that gives the same logits."""
        import torch

        from toolkit.models import few_shot

        modality, processor = self._featurizer.modality, self._featurizer.processor
        encoder, pool = self._featurizer.model, self._featurizer.pool
        if modality.few_shot_head is None:
            raise InputError(f"a few-shot classifier of {modality.name} items cannot be saved")
        is_linear = self.method not in DISTANCE_METHODS
        points, biases = self._head if is_linear else (self._points, None)
        names = [str(name) for name in self.classes_]
        config = few_shot.FewShotConfig(
            encoder=encoder.config.to_dict(),
            hidden_size=points.shape[1],
            metric="linear" if is_linear else self.metric,
            normalise=self.normalise,
            scale=self.scale,
            num_points=len(points),
            num_tokens=len(processor) if hasattr(pool, "weights") else None,
            id2label=dict(enumerate(names)),
            label2id={name: place for place, name in enumerate(names)},
            problem_type="multi_label_classification" if self.is_multi_label_ else "single_label_classification",
        )
        model = getattr(few_shot, modality.few_shot_head)(config, encoder)
        learned = {"mean": self.mean_, "points": points, "biases": biases, "classes": self._owners}
        learned = {name: torch.from_numpy(array) for name, array in learned.items() if array is not None}
        if hasattr(pool, "weights"):
            learned |= {"token_weights": pool.weights, "continues": pool.continues}
        with torch.no_grad():
            for name, value in learned.items():
                getattr(model, name).copy_(value)
        return model.eval()

    @property
    def modality(self) -> Any:
        """What an item is, one of `MODALITIES`; None for features."""
        check_is_fitted(self)
        return None if self._featurizer is None else self._featurizer.modality

    @property
    def num_parameters(self) -> int:
        """Of the encoder."""
        check_is_fitted(self)
        return 0 if self._featurizer is None else self._featurizer.model.num_parameters()

    def _load_encoder(self) -> None:
        self._featurizer: Any = None
        if self.encoder is not None:
            from toolkit.transfer.features import load_featurizer

            self._featurizer = load_featurizer(self.encoder, self.batch_size)

    def _features(self, items) -> np.ndarray:
        if self._featurizer is None:
            return validate_data(self, items, reset=False)
        return self._featurizer([items] if isinstance(items, str) else items)

    def _centred_features(self, examples, unlabelled) -> tuple[np.ndarray, np.ndarray]:
        """Those of the examples and of the unlabelled items, where there are any, else of the examples again; `mean_`
        becomes what they are centred by."""
        features = self._features(examples)
        usual = features if unlabelled is None else self._features(unlabelled)
        self.mean_ = usual.mean(axis=0) if self.centre else np.zeros_like(features[0])
        return features, usual

    def _placed(self, features: np.ndarray) -> np.ndarray:
        placed = features - self.mean_
        return _of_length_one(placed) if self.normalise else placed

    def _tune(self, examples: Sequence[Any], targets: np.ndarray, unlabelled) -> None:
        """Fine-tune the encoder on the examples, for `lp-ft` from a linear head that is fitted first."""
        import torch

        from toolkit.transfer.few_shot_tuning import tune

        if self._featurizer is None:
            raise InputError(f"method {self.method}: needs an encoder to fine-tune, not features")
        head, place = None, None
        if self.method == "lp-ft":
            features, _ = self._centred_features(examples, unlabelled)
            head = _fit_linear(self._placed(features), targets, self.C, self.is_multi_label_)
            mean = torch.from_numpy(self.mean_).to(self._featurizer.model.device)

            def place(features: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.normalize(features - mean) if self.normalise else features - mean

        tune(
            self._featurizer,
            examples,
            targets,
            max_steps=self.max_steps,
            learning_rate=self.learning_rate,
            seed=self.random_state,
            place=place,
            head=head,
        )

    def _learn_from(self, usual: np.ndarray) -> None:
        """Learn anew from the labelled examples and from the surest of the unlabelled items, placed, (N, D)."""
        logits = self._logits(usual)
        given, confidence = logits.argmax(axis=1), self._confidence(logits)
        surest = []
        for label in range(len(self.classes_)):
            places = np.flatnonzero(given == label)
            surest.append(places[np.argsort(-confidence[places], kind="stable")][: round(SUREST * len(places))])
        chosen, labelled = np.concatenate(surest), self.is_labelled_
        self._learn(
            self.classes_,
            np.concatenate([self.support_[labelled], usual[chosen]]),
            np.concatenate([self.targets_[labelled], given[chosen, None] == np.arange(len(self.classes_))]),
            np.arange(labelled.sum() + len(chosen)) < labelled.sum(),
        )

    def _learn(self, classes: np.ndarray, placed: np.ndarray, targets: np.ndarray, is_labelled: np.ndarray) -> None:
        self.classes_, self.support_, self.targets_, self.is_labelled_ = classes, placed, targets, is_labelled
        self._owners = np.arange(len(classes))  # the class of each point, or of each row of a linear head
        if self.method == "prototype":
            self._points = np.stack([placed[of_class].mean(axis=0) for of_class in targets.T])
        elif self.method == "nearest":
            ids = targets.argmax(axis=1)
            self._points, self._owners = placed[np.argsort(ids, kind="stable")], np.sort(ids)
            self._starts = np.cumsum(np.bincount(ids)) - np.bincount(ids)
        else:
            self._head = _fit_linear(placed, targets, self.C, self.is_multi_label_)

    def _logits(self, placed: np.ndarray) -> np.ndarray:
        if self.method not in DISTANCE_METHODS:
            weights, biases = self._head
            return placed @ weights.T + biases
        if self.metric == "cosine":
            logits = self.scale * _of_length_one(placed) @ _of_length_one(self._points).T
        else:
            logits = -cdist(placed, self._points, self.metric)
        return np.maximum.reduceat(logits, self._starts, axis=1) if self.method == "nearest" else logits

    def _confidence(self, logits: np.ndarray) -> np.ndarray:
        """(N,): how much an item is like the class that it is most like."""
        return (logits if self.method in DISTANCE_METHODS else softmax(logits, axis=1)).max(axis=1)

    def _refuse_many_labels(self) -> None:
        if self.is_multi_label_:
            raise InputError("where items may have several labels, classes are fixed and nothing is rejected")


def _of_length_one(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _fit_linear(
    features: np.ndarray, targets: np.ndarray, C: float, is_multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression: weights (C, D) and biases (C,), of one label each, or of each class by itself."""
    if is_multi_label:
        heads = [_fit_linear(features, np.stack([~t, t], axis=1), C, False) for t in targets.T]
        weights, biases = (np.stack([part[1] - part[0] for part in parts]) for parts in zip(*heads, strict=True))
        return weights, biases
    ids = targets.argmax(axis=1)
    if len(np.unique(ids)) == 1:  # of several labels one that all examples have, or none
        return np.zeros((2, features.shape[1])), np.where(np.arange(2) == ids[0], 10.0, -10.0)
    return weights_and_biases(LogisticRegression(C=C, max_iter=1000).fit(features, ids))


def weights_and_biases(fitted: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """(C, D) and (C,) of logistic regression; of two classes scikit-learn keeps the odds of the second alone."""
    if len(fitted.classes_) > 2:
        return fitted.coef_, fitted.intercept_
    weights, biases = (np.concatenate([-part, part]) / 2 for part in (fitted.coef_, fitted.intercept_))
    return weights, biases


def _best_threshold(known: np.ndarray, unknown: np.ndarray) -> float:
    """Above which most of `known` and below which most of `unknown` lie, the two counting the same."""
    levels = np.unique(np.concatenate([known, unknown]))
    between = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    taken = 1 - np.searchsorted(np.sort(known), between) / len(known)
    refused = np.searchsorted(np.sort(unknown), between) / len(unknown)
    return float(between[(taken + refused).argmax()])
