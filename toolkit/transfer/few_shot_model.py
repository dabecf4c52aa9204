"""A `FewShotClassifier` as a model of transformers, which can be saved and pushed."""

import torch

from toolkit.errors import InputError
from toolkit.models import few_shot_head
from toolkit.transfer.few_shot_classifier import DISTANCE_METHODS, FewShotClassifier


def as_model(classifier: FewShotClassifier) -> few_shot_head.FewShotPreTrainedModel:
    """A `PreTrainedModel` around the encoder with the same logits. Raises `InputError` if its modality has none."""
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
