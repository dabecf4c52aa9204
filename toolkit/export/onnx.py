"""A few-shot classifier as ONNX, with a script that predicts without torch, and examples that show that both agree.

FOLDER/model.onnx         from pixels, samples or tokens to logits and confidence
FOLDER/classifier.json    the classes, the threshold, and how an example becomes the input
FOLDER/predict.py         classifies files or texts; needs onnxruntime and numpy, and what reads the examples
FOLDER/parity.json        examples with the probabilities of the classifier; predict.py --check compares
"""

import copy
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit.errors import InputError, extra
from toolkit.export import standalone
from toolkit.modalities.text import max_length
from toolkit.models.class_logits import center_and_normalize
from toolkit.models.fasttext import BYTES, FastTextModel
from toolkit.models.log_mel import LogMelFeatureExtractor
from toolkit.runs.output import write_json
from toolkit.transfer.few_shot_classifier import DISTANCE_METHODS, FewShotClassifier
from toolkit.transfer.few_shot_model import as_model

OPSET = 18


def export_classifier(
    classifier: FewShotClassifier, folder: Path, examples: Sequence[Any], largest_side: int | None = None
) -> float:
    """Export a classifier of images, recordings or texts to a folder that exists.

    Args:
        classifier: The classifier, whose encoder is not changed.
        folder: The folder.
        examples: Texts or paths of files that both classify; they are copied to the folder.
        largest_side: Pixels that images are reduced to first, if the classifier has learned such ones.

    Returns:
        The largest difference of a probability.

    Raises:
        InputError: The encoder cannot be exported, or its answers change.
    """
    with extra("onnx"):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

    modality = classifier.modality
    graph, inputs, dynamic, reading = _GRAPHS[modality.name](classifier)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph.eval(),
                inputs,
                input_names=list(dynamic),
                output_names=["logits", "confidence"],
                dynamic_shapes=tuple(dynamic.values()),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # of many kinds, from exporter and network
        raise InputError(
            f"{classifier._featurizer.name}: cannot be exported to ONNX ({type(error).__name__})"
        ) from None
    program.save(folder / standalone.MODEL_FILE)
    config = {
        "modality": modality.name,
        "labels": classifier.classes_.tolist(),
        "threshold": classifier.threshold_ if classifier.reject else None,
        **reading,
        **({"largest_side": largest_side} if modality.name == "image" else {}),
    }
    write_json(folder / standalone.CONFIG_FILE, config)
    if modality.name == "text":
        classifier._featurizer.processor.backend_tokenizer.save(str(folder / standalone.TOKENIZER_FILE))
    shutil.copyfile(standalone.__file__, folder / "predict.py")
    return _write_parity(classifier, folder, examples)


def delete_parity(folder: Path) -> None:
    """Delete the examples of an exported classifier, so that it can be given to others."""
    (folder / standalone.PARITY_FILE).unlink()
    shutil.rmtree(folder / standalone.PARITY_FOLDER, ignore_errors=True)


def _write_parity(classifier: FewShotClassifier, folder: Path, examples: Sequence[Any]) -> float:
    """Write what the classifier says of examples; returns how far what was exported is from that."""
    labels, probabilities = classifier.predict_with_proba(examples)
    cases = []
    for number, (example, label, row) in enumerate(zip(examples, labels, probabilities, strict=True), start=1):
        if classifier.modality.name != "text":
            copied = folder / standalone.PARITY_FOLDER / f"{number}{Path(example).suffix}"
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(example, copied)
            example = copied.relative_to(folder).as_posix()
        cases.append({"example": example, "label": label, "probabilities": [round(p, 6) for p in row.tolist()]})
    write_json(folder / standalone.PARITY_FILE, cases)
    exported = standalone.StandaloneClassifier(folder)
    difference, changed = exported.compare()
    if changed:
        raise InputError(
            f"the exported classifier gives another answer for {len(changed)} of {len(cases)} examples, so it was not "
            "exported"
        )
    return difference


class _Graph(nn.Module):
    """From the features of a classifier's encoder to logits (B, C) and confidence (B,)."""

    model: Any
    means: torch.Tensor  # (C, D), of unit length

    def __init__(self, classifier: FewShotClassifier):
        super().__init__()
        self.model = copy.deepcopy(as_model(classifier)).cpu()  # others may use the encoder meanwhile
        self.is_linear = classifier.method not in DISTANCE_METHODS
        means = torch.from_numpy(classifier.class_means_).float()
        self.register_buffer("means", nn.functional.normalize(means))

    def answer(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.answer_of(self.model.features(**inputs))

    def answer_of(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`features` (B, D)"""
        logits = self.model.logits(features)
        if not self.is_linear:
            return logits, logits.amax(dim=1)
        centered = center_and_normalize(features, self.model.mean, self.model.config.normalize)
        return logits, (nn.functional.normalize(centered) @ self.means.T).amax(dim=1)


class _ImageGraph(_Graph):
    def __init__(self, classifier: FewShotClassifier):
        from toolkit.modalities.pixels import PixelProcessor

        super().__init__(classifier)
        self.processor = PixelProcessor(classifier._featurizer.processor)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`pixels` (B, S, S, 3) uint8"""
        return self.answer(pixel_values=self.processor.normalize(pixels.permute(0, 3, 1, 2).float()).contiguous())


class _AudioGraph(_Graph):
    def __init__(self, classifier: FewShotClassifier):
        super().__init__(classifier)
        self.extractor = classifier._featurizer.processor

    def forward(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`samples` (B, N) float32"""
        values = (self.extractor.log_mel(samples) - self.extractor.mean) / self.extractor.std
        return self.answer(input_values=values)


class _TextGraph(_Graph):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both (B, T) int64"""
        return self.answer(input_ids=input_ids, attention_mask=attention_mask)


class _FastTextGraph(_Graph):
    """The n-grams of unknown words are an input: an ONNX graph cannot hash the bytes of words of any length."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, ngrams: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) int64 twice, and the rows of the n-grams of each token's word, (B, T, K) int64, filled up with -1; if
        the word is in the vocabulary, all are -2"""
        encoder = self.model.encoder
        is_there = (ngrams >= 0).unsqueeze(-1)
        vectors = nn.functional.embedding(ngrams.clamp(min=0), encoder.ngram_embeddings.weight) * is_there
        means = vectors.sum(dim=2) / is_there.sum(dim=2).clamp(min=1)
        is_known = (ngrams == -2).any(dim=2).unsqueeze(-1)
        states = torch.where(is_known, encoder.embeddings(input_ids), means)
        return self.answer_of(self.model.pool(states, input_ids, attention_mask))


_Exported = tuple[_Graph, tuple[torch.Tensor, ...], dict[str, dict[int, Any]], dict[str, Any]]


def _image_graph(classifier: FewShotClassifier) -> _Exported:
    """The graph, inputs to trace it with, which of their sizes vary, and how an image becomes the input."""
    processor = classifier._featurizer.processor
    size = getattr(processor, "size", None) or {}
    if hasattr(processor, "val_transforms") or "height" not in size or getattr(processor, "do_center_crop", False):
        raise InputError(
            f"{classifier._featurizer.name}: crops images, and only encoders that read whole images can be exported; "
            "give an --image_size where the encoder is trained"
        )
    height, width = size["height"], size["width"]
    reading = {"height": height, "width": width, "resample": int(processor.resample)}
    pixels = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    return _ImageGraph(classifier), (pixels,), {"pixels": {0: torch.export.Dim("batch")}}, reading


def _audio_graph(classifier: FewShotClassifier) -> _Exported:
    extractor = classifier._featurizer.processor
    if not isinstance(extractor, LogMelFeatureExtractor):
        raise InputError(
            f"{classifier._featurizer.name}: only encoders that read log-mel spectrograms can be exported"
        )
    names = ("sampling_rate", "num_samples", "do_normalize", "do_trim")
    reading = {name: getattr(extractor, name) for name in names}
    samples = torch.randn(2, extractor.num_samples)
    return _AudioGraph(classifier), (samples,), {"samples": {0: torch.export.Dim("batch")}}, reading


def _text_graph(classifier: FewShotClassifier) -> _Exported:
    featurizer = classifier._featurizer
    ids = torch.ones(2, 7, dtype=torch.int64)
    varying = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    reading: dict[str, Any] = {"max_length": max_length(featurizer.processor, featurizer.model)}
    inputs: tuple[torch.Tensor, ...] = (
        ids,
        torch.ones_like(ids),
    )  # two tensors: of one, the exporter would make one input
    names = {"input_ids": varying, "attention_mask": varying}
    if isinstance(featurizer.model, FastTextModel):
        numbers = ("first_byte_id", "first_continuation_id", "num_buckets", "min_n", "max_n")
        reading["ngrams"] = {name: getattr(featurizer.model.config, name) for name in numbers} | {"bytes": BYTES}
        inputs = *inputs, ids.unsqueeze(-1).repeat(1, 1, 3)
        names["ngrams"] = {**varying, 2: torch.export.Dim("ngrams")}
        return _FastTextGraph(classifier), inputs, names, reading
    return _TextGraph(classifier), inputs, names, reading


_GRAPHS = {"image": _image_graph, "audio": _audio_graph, "text": _text_graph}
