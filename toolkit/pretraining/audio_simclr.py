"""SimCLR on sounds: learn from recordings without labels, by telling two views of a recording from all others.

Chen, Kornblith, Norouzi & Hinton (2020), "A simple framework for contrastive learning of visual representations",
https://arxiv.org/abs/2002.05709; on sounds: Saeed, Grangier & Zeghidour (2021), "Contrastive learning of
general-purpose audio representations", https://arxiv.org/abs/2010.10915.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.data.audio_files import AUDIO
from toolkit.data.columns import AudioColumn
from toolkit.errors import check_between_0_and_1, check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.modalities import MODALITIES
from toolkit.modalities.arguments import AudioChange, AudioEncoderArguments
from toolkit.models.families import SCRATCH
from toolkit.pretraining.media_corpus import load_corpus
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run, train_and_record
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.output import OutputArguments
from toolkit.training.arguments import TrainingArguments
from toolkit.training.sampler import SampleKey

VIEWS: tuple[AudioChange, ...] = ("shift", "speed", "noise", "mask")


@dataclass(kw_only=True)
class AudioSourceArguments(Arguments):
    """data"""

    corpus: str
    """Recordings: a folder that contains them, a table, a Hub id, or 'sample'; labels are ignored."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""
    validation_fraction: float = 0.05
    """Fraction of the recordings to hold out if there is no validation split."""

    def check(self) -> None:
        check_between_0_and_1(self, "validation_fraction")


@dataclass(kw_only=True)
class AudioContrastiveArguments(Arguments):
    """objective"""

    temperature: float = 0.2
    """Temperature of the similarities; the smaller, the more the most similar recordings count. A recording is
    compared with the others of its process, so the number of processes matters."""
    projection_size: int = 128
    """Size of the projections that are compared; the projection head is not kept."""

    def check(self) -> None:
        check_positive(self, "temperature projection_size")


@dataclass(kw_only=True)
class AudioSimCLRArguments(Arguments):
    source: AudioSourceArguments
    output: OutputArguments
    encoder: PresetArguments = defaults(PresetArguments, preset="resnet-mini")
    columns: AudioColumn = defaults(AudioColumn)
    options: AudioEncoderArguments = defaults(AudioEncoderArguments)
    training: TrainingArguments = defaults(TrainingArguments, batch_size=128)
    contrastive: AudioContrastiveArguments = defaults(AudioContrastiveArguments)
    hub: HubArguments = defaults(HubArguments)

    def check(self) -> None:
        self.training = self.training.with_default_epochs(20.0)


def pretrain_audio_simclr(arguments: AudioSimCLRArguments) -> dict[str, Any]:
    """Train an encoder of recordings, or one of images on their spectrograms, without labels; returns the record."""
    import torch

    from toolkit.modalities.audio_augmentation import AudioAugmentation
    from toolkit.modalities.waveforms import encode_audio, model_inputs, samples_of
    from toolkit.models.simclr import SimCLRForPreTraining
    from toolkit.transfer.encoders import load_encoder

    modality, flags = MODALITIES["audio"], arguments.contrastive
    run = Run("audio-simclr", arguments, modality.presets())
    run.modality = modality.name
    source = AUDIO.open_unlabelled(arguments.source.corpus, arguments.columns.audio_column)
    rows = load_corpus(run, source, arguments.source, AUDIO)
    torch.manual_seed(arguments.training.seed)
    name = SCRATCH + arguments.encoder.preset
    encoder, extractor = load_encoder(name, "AutoModel", modality, arguments.options, rows[0])
    run.say("reading recordings")
    train_rows, held_out = (encode_audio(part, extractor, {}) for part in rows)
    example = model_inputs(extractor, [samples_of(train_rows[0])])
    model = SimCLRForPreTraining.from_encoder(encoder, example, flags.projection_size, flags.temperature)
    run.create_output_dir()
    collate = CollateAudioViews(extractor, AudioAugmentation(VIEWS, arguments.training.seed))
    return train_and_record(
        run,
        model,
        extractor,
        (train_rows, held_out),
        collate,
        collate,
        item="recording",
        export=lambda model: model.encoder,
    )


@dataclass(frozen=True)
class CollateAudioViews:
    """Collates encoded recordings to a batch of two views of each: all first views, then all second views."""

    extractor: Any
    augmentation: Any  # AudioAugmentation

    def __call__(self, rows: list[dict], keys: Sequence[SampleKey]) -> dict[str, Any]:
        import torch

        from toolkit.modalities.waveforms import CollateAudio

        views = [CollateAudio(self.extractor, self.augmentation.of_view(view))(rows, keys) for view in range(2)]
        values = torch.cat([view["input_values"] for view in views])
        return {"input_values": values, "num_targets": len(values), "num_items": len(rows)}


METHOD = Method(AudioSimCLRArguments, pretrain_audio_simclr)
