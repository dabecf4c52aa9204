"""Save and load a `FewShotClassifier`: its examples, and a model with the same logits for transformers."""

import json
from pathlib import Path

import numpy as np

from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy
from toolkit.models.families import FEW_SHOT_FILE
from toolkit.transfer.few_shot_classifier import DISTANCE_METHODS, FewShotClassifier

ARRAYS = ("mean", "support", "targets", "is_labelled")  # attributes of the classifier, without the last underscore
ARRAYS_FILE = "few_shot.safetensors"


def save_classifier(classifier: FewShotClassifier, folder: Path) -> None:
    """Write a fitted classifier and its encoder to a folder."""
    from safetensors.numpy import save_file
    from sklearn.utils.validation import check_is_fitted

    from toolkit.runs.output import write_json
    from toolkit.training.checkpoints import save_model

    check_is_fitted(classifier)
    folder.mkdir(parents=True, exist_ok=True)
    if classifier._featurizer is not None:
        save_model(folder, as_model(classifier), classifier._featurizer.processor)
    arrays = {name: np.ascontiguousarray(getattr(classifier, f"{name}_")) for name in ARRAYS}
    save_file(arrays, folder / ARRAYS_FILE)
    config = {
        "parameters": {name: value for name, value in classifier.get_params().items() if name != "encoder"},
        "classes": classifier.classes_.tolist(),
        "threshold": classifier.threshold_,
        "is_multi_label": classifier.is_multi_label_,
    }
    write_json(folder / FEW_SHOT_FILE, config)  # last, because it marks the folder as complete


def load_classifier(name: str | Path) -> FewShotClassifier:
    """Load a classifier from a folder or a Hub. Raises `InputError`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = local_copy(name)
    try:
        config = json.loads((folder / FEW_SHOT_FILE).read_text(encoding="utf-8"))
        arrays = load_file(folder / ARRAYS_FILE)
        mean, *learned = (arrays[array] for array in ARRAYS)
        has_encoder = (folder / "config.json").is_file()
        classifier = FewShotClassifier(encoder=str(folder) if has_encoder else None, **config["parameters"])
        classifier.threshold_, classifier.is_multi_label_ = config["threshold"], config["is_multi_label"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{name}: holds no few-shot classifier ({first_line(error)})") from None
    classifier.load_featurizer()
    classifier.mean_, classifier.n_features_in_ = mean, len(mean)
    classifier._learn(np.array(config["classes"]), *learned)
    return classifier


def as_model(classifier: FewShotClassifier):
    """A `PreTrainedModel` around the encoder with the same logits.

    Raises:
        InputError: The modality of the encoder has no such model.
    """
    import torch

    from toolkit.models import few_shot_head

    featurizer, is_linear = classifier._featurizer, classifier.method not in DISTANCE_METHODS
    modality, encoder, pool = featurizer.modality, featurizer.model, featurizer.pool
    if modality.few_shot_head is None:
        raise InputError(f"a few-shot classifier of {modality.name} items cannot be saved")
    names = [str(name) for name in classifier.classes_]
    config = few_shot_head.FewShotConfig(
        encoder=encoder.config.to_dict(),
        hidden_size=classifier._points.shape[1],
        metric="linear" if is_linear else classifier.metric,
        normalize=classifier.normalize,
        scale=classifier.scale,
        num_points=len(classifier._points),
        num_tokens=len(featurizer.processor) if hasattr(pool, "weights") else None,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type="multi_label_classification" if classifier.is_multi_label_ else "single_label_classification",
    )
    model = getattr(few_shot_head, modality.few_shot_head)(config, encoder)
    arrays = {"mean": classifier.mean_, "points": classifier._points, "classes": classifier._point_classes}
    if classifier._biases is not None:
        arrays["biases"] = classifier._biases
    values = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if hasattr(pool, "weights"):
        values |= {"token_weights": pool.weights, "continues": pool.continues}
    with torch.no_grad():
        for name, value in values.items():
            getattr(model, name).copy_(value)
    return model.eval()
