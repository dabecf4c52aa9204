"""Recordings: feature extractors, windows, image encoders on spectrograms, pooling over time."""

from collections.abc import Callable, Sequence
from typing import Any

from toolkit.data.audio_files import AUDIO
from toolkit.data.columns import AudioColumn
from toolkit.data.media_files import as_file
from toolkit.errors import InputError, first_line
from toolkit.modalities.arguments import AudioEncoderArguments
from toolkit.modalities.media import MediaModality, png_url
from toolkit.models.families import Preset, family_of_preset, presets

THUMBNAIL_SECONDS = 10.0
NUM_WHITENED = 100  # recordings that the first layer of a resnet-fast is fitted to
TOLERANCE = 1e-6  # seconds


class AudioModality(MediaModality):
    """Recordings. An image encoder reads their spectrograms, inside a `SpectrogramModel`."""

    name = "audio"
    files = AUDIO
    main_input_names = ("input_values",)
    columns = AudioColumn
    encoder_arguments = AudioEncoderArguments
    few_shot_head = "FewShotForAudioClassification"
    has_thumbnails = True
    sample_license = labelled_sample_license = "Apache-2.0, as this toolkit; spoken by eSpeak NG"

    def presets(self) -> dict[str, Preset]:
        return presets("audio") | presets("image")

    def new_processor(self, preset: str, options: Any, train_rows):
        from toolkit.modalities.waveforms import fit_feature_extractor, new_feature_extractor

        extractor = new_feature_extractor(options)
        fit_feature_extractor(extractor, train_rows)
        return extractor

    def new_config(self, preset: str, options: Any, processor):
        known = self.presets()[preset]
        if family_of_preset(preset).modality == "image":
            return known.config(options.image_size or known.default_size)
        config = known.config(processor.max_length)
        config.num_mel_bins = processor.num_mel_bins
        for flag, size in (("max_seconds", processor.max_length), ("num_mel_bins", processor.num_mel_bins)):
            if size < config.patch_size:
                value, width = getattr(processor, flag), config.patch_size
                raise InputError(f"--{flag} {value}: too small for {preset}, whose patches are {width} wide")
        return config

    def load_processor(self, source: str, config, options: Any):
        from toolkit.modalities.waveforms import load_feature_extractor, new_feature_extractor

        return new_feature_extractor(options) if _reads_images(config) else load_feature_extractor(source, options)

    def apply_options(self, name: str, config, processor, options: Any) -> tuple[Any, Any, bool]:
        from toolkit.models.spectrogram import SpectrogramConfig

        if _reads_images(config):
            return _on_spectrograms(name, config, options.image_size), processor, True
        if hasattr(config, "apply_spec_augment"):  # its masks come from a generator that no seed of a run reaches
            config.update({"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0})
            config.update({"layerdrop": 0.0})  # several processes need a gradient of every layer
        if options.image_size is not None:
            if not isinstance(config, SpectrogramConfig):
                raise InputError(f"--image_size {options.image_size}: {name} is no image encoder")
            _check_image_size(name, (config.encoder or {}).get("image_size"), options.image_size)
            config.image_size = options.image_size
        frames = getattr(config, "max_length", None)
        if options.max_seconds is not None and frames not in (None, getattr(processor, "max_length", frames)):
            raise InputError(f"--max_seconds {options.max_seconds}: {name} reads spectrograms of {frames} frames only")
        return config, processor, False

    def finish(self, model, processor, train_rows, is_scratch: bool) -> None:
        from toolkit.modalities.waveforms import fit_feature_extractor, is_fitted, reads_spectrograms, usual_length
        from toolkit.models.depthwise import speed_up_depthwise

        speed_up_depthwise(model)
        if train_rows is None:
            return
        if not reads_spectrograms(processor) and getattr(processor, "max_seconds", None) is None:
            processor.max_seconds = usual_length(processor, train_rows)
        if not is_fitted(processor):
            fit_feature_extractor(processor, train_rows)
        for module in model.modules():
            if is_scratch and hasattr(module, "whiten"):
                module.whiten(_some_images(model, processor, train_rows))
        _check_smallest_spectrogram(model, processor)

    def adapt(self, model, processor, items: Sequence[Any]) -> None:
        from toolkit.modalities.waveforms import fit_feature_extractor, is_fitted

        if not is_fitted(processor) and len(items):
            fit_feature_extractor(processor, _named(items))
            _check_smallest_spectrogram(model, processor)

    def encode(self, items: Sequence[Any], processor, model) -> list[dict[str, Any]]:
        """The first window of each recording."""
        from toolkit.modalities.waveforms import encode_audio, is_fitted

        if not is_fitted(processor):
            raise InputError("an image encoder that has heard no recordings needs labelled ones to learn from")
        return list(encode_audio(_named(items), processor, {}, num_windows=1))

    def collate(self, encoded: Sequence[dict[str, Any]], processor) -> dict[str, Any]:
        from toolkit.modalities.waveforms import model_inputs, samples_of

        return model_inputs(processor, [samples_of(row) for row in encoded])

    def pooling(self, model, processor) -> Callable[[dict[str, Any]], Any]:
        from toolkit.models.heads import pool_audio_features

        return lambda inputs: pool_audio_features(model, model(**inputs), inputs.get("attention_mask"))

    def cut(self, rows, window_seconds: float, hop_seconds: float) -> list[dict[str, Any]]:
        from toolkit.data.audio_decoding import head_of

        found = []
        for row in rows:
            length = head_of(row["audio"], row["name"]).seconds
            number = 0
            while number == 0 or number * hop_seconds < length - TOLERANCE:
                start = number * hop_seconds
                stop = min(length, start + window_seconds)
                found.append({"audio": {**row["audio"], "start": start, "stop": stop}, "name": row["name"]})
                if stop >= length - TOLERANCE:
                    break
                number += 1
        return found

    def describe(self, row: dict[str, Any]) -> dict[str, Any]:
        times = {name: round(row["audio"][name], 3) for name in ("start", "stop") if name in row["audio"]}
        return {**super().describe(row), **times}

    def title(self, row: dict[str, Any]) -> str:
        if "start" not in row["audio"]:
            return row["name"]
        return f"{row['name']}\t{row['audio']['start']:.2f}\t{row['audio']['stop']:.2f}"

    def thumbnail(self, row: dict[str, Any]) -> str | None:
        import io

        import torch
        from matplotlib.image import imsave

        from toolkit.data.audio_decoding import open_audio
        from toolkit.models.log_mel import LogMelFeatureExtractor

        extractor = LogMelFeatureExtractor(sampling_rate=8000, max_seconds=THUMBNAIL_SECONDS, num_mel_bins=48)
        part = {**row["audio"], "start": 0.0, "stop": THUMBNAIL_SECONDS}
        samples = torch.from_numpy(open_audio(part, row["name"], extractor.sampling_rate))
        file = io.BytesIO()
        imsave(file, extractor.log_mel(samples[None])[0].T.numpy(), origin="lower", format="png")
        return png_url(file.getvalue())


def _named(items: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"audio": as_file(item), "name": f"recording {number}"} for number, item in enumerate(items, start=1)]


def _some_images(model, processor, train_rows):
    """Training recordings as the image encoder of a model reads them."""
    from toolkit.data.rows import spread
    from toolkit.modalities.waveforms import encode_audio, model_inputs, samples_of

    encoded = encode_audio(spread(train_rows, NUM_WHITENED), processor, {}, num_windows=1)
    recordings = [samples_of(row) for row in encoded]
    return model.base_model.images(model_inputs(processor, recordings)["input_values"])


def _check_smallest_spectrogram(model, processor) -> None:
    """Raises `InputError` if spectrograms are too small for the model."""
    import torch

    if getattr(processor, "max_length", None) is None:
        return
    is_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, processor.max_length, processor.num_mel_bins, device=model.device))
    except (RuntimeError, ValueError):
        raise InputError(
            f"spectrograms of {processor.max_length} frames and {processor.num_mel_bins} mel filters are too small "
            "for this network; give larger --max_seconds or --num_mel_bins, or an --image_size"
        ) from None
    finally:
        model.train(is_training)


def _reads_images(config) -> bool:
    from toolkit.modalities import modality_of

    return modality_of(config).name == "image"


def _check_image_size(name: str, fixed: Any, image_size: int | None) -> int | None:
    """The size of the images that an encoder reads; None if it reads all sizes. Raises `InputError`."""
    fixed = fixed[0] if isinstance(fixed, list | tuple) else fixed
    if fixed is not None and image_size not in (None, fixed):
        raise InputError(f"--image_size {image_size}: {name} reads images of {fixed} only")
    return fixed or image_size


def _on_spectrograms(name: str, config, image_size: int | None):
    """The configuration of an image encoder on spectrograms. Raises `InputError` if it reads no such images."""
    import torch
    import transformers

    from toolkit.models.heads import pool_image_features
    from toolkit.models.spectrogram import NUM_CHANNELS, SpectrogramConfig

    of_timm = getattr(config, "pretrained_cfg", None) or {}
    fixed = of_timm["input_size"][-1] if of_timm.get("fixed_input_size") else getattr(config, "image_size", None)
    size = _check_image_size(name, fixed, image_size)
    with torch.random.fork_rng(devices=()), torch.no_grad():
        encoder = transformers.AutoModel.from_config(config).eval()
        try:
            features = pool_image_features(encoder(torch.zeros(1, NUM_CHANNELS, size or 64, size or 64)))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InputError(f"{name}: cannot read spectrograms ({first_line(error)})") from None
    return SpectrogramConfig(encoder=config.to_dict(), image_size=size, hidden_size=features.shape[1])
