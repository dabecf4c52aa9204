"""Classification of recordings: one label per recording.

An example: a recording of half a second, label "seven". A recording that is longer than the encoder reads is cut into
windows, whose probabilities are averaged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.classification import LabelPrediction
from tasks.media_classification import LabelledMediaColumns, MediaArguments, MediaClassification, predicted
from tasks.task import check_label
from toolkit.data.columns import AudioColumn
from toolkit.data.media_files import as_file
from toolkit.errors import InputError
from toolkit.modalities.arguments import AudioAugmentationArguments, AudioEncoderArguments
from toolkit.runs.arguments import defaults

OF_SPECTROGRAMS = ("filter", "mask", "mixup")  # changes that need a spectrogram


@dataclass(kw_only=True)
class LabelledAudioColumns(LabelledMediaColumns, AudioColumn):
    """Columns of labelled recordings."""


@dataclass(kw_only=True)
class AudioArguments(MediaArguments):
    columns: LabelledAudioColumns = defaults(LabelledAudioColumns)
    options: AudioEncoderArguments = defaults(AudioEncoderArguments)
    augmentation: AudioAugmentationArguments = defaults(AudioAugmentationArguments)


class AudioClassification(MediaClassification):
    name = "audio"
    modality_name = "audio"
    arguments = AudioArguments
    auto_class = "AutoModelForAudioClassification"
    item = "recording"
    baseline_name = "logistic regression on MFCC statistics"

    def check_to_split(self, source: str, rows) -> None:
        label, count = min(Counter(rows["label"]).items(), key=lambda pair: pair[1])
        if count == 1:
            raise InputError(
                f"{source}: the label {label} has one recording, expected two or more, as some are held out for "
                "validation; add recordings, or name the other labels with --labels"
            )

    def load_model(self, arguments: AudioArguments, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        from toolkit.modalities.waveforms import reads_spectrograms

        model, processor = super().load_model(arguments, train_rows, **config_fields)
        if not reads_spectrograms(processor):  # the heads of transformers for samples compute a loss of their own
            refused = {name: getattr(arguments.augmentation, name) for name in ("label_smoothing", "class_weights")}
            refused["augment"] = " ".join(name for name in arguments.augmentation.augment if name in OF_SPECTROGRAMS)
            for name, value in refused.items():
                if value:
                    raise InputError(f"--{name} {value}: goes with an encoder that reads spectrograms")
        return model, processor

    def fit_head(self, model, processor, encoded: dict[str, Any], is_scratch: bool) -> bool:
        """False for heads of transformers that project the features first."""
        return not hasattr(model, "projector") and super().fit_head(model, processor, encoded, is_scratch)

    def encode(self, rows, processor, model):
        from toolkit.modalities.waveforms import encode_audio

        return encode_audio(rows, processor, model.config.label2id)

    def collate(self, encoded: list[dict], keys, processor, arguments: AudioArguments | None) -> dict[str, Any]:
        from toolkit.modalities.audio_augmentation import AudioAugmentation
        from toolkit.modalities.waveforms import CollateAudio

        augmentation = None
        if arguments is not None:
            augmentation = AudioAugmentation(tuple(arguments.augmentation.augment), arguments.training.seed)
        return CollateAudio(processor, augmentation)(encoded, keys)

    def join(self, parts: list[LabelPrediction]) -> LabelPrediction:
        names = list(parts[0].probabilities or ())
        means = np.mean([[(part.probabilities or {})[name] for name in names] for part in parts], axis=0)
        return predicted(dict(zip(names, means.tolist(), strict=True)), parts[0].threshold)

    def explain(
        self, folder: str, item: str, label: str | None, layers: Sequence[str] | None, output_dir: Path
    ) -> tuple[str, list[Path]]:
        import torch

        from toolkit.explain.recordings import write_explanation
        from toolkit.modalities.waveforms import encode_audio, model_inputs, samples_of, window_of

        if layers:
            raise InputError(f"--layers {' '.join(layers)}: goes with images")
        model, processor = self.load_finetuned(folder)
        model.eval()
        name = Path(item).name
        (first, *_) = encode_audio([{"audio": as_file(item), "name": item}], processor, {})
        inputs = model_inputs(processor, [samples_of(first)])
        with torch.no_grad():
            (prediction,) = self.decode([first], self.forward(model, inputs), model, processor)
        probabilities = prediction.probabilities or {}
        explained = check_label(label or prediction.label, folder, list(probabilities))
        found = (explained, list(probabilities).index(explained))
        spectrogram = inputs["input_values"]
        files = write_explanation(model, spectrogram, window_of(processor), found, name, output_dir)
        return f"{explained}\t{probabilities[explained]:.4f}\t{item}", files

    def baseline(self, train_rows, rows) -> list[LabelPrediction]:
        from tasks.baselines import mfcc_labels

        return [LabelPrediction(*found) for found in mfcc_labels(train_rows, rows)]
