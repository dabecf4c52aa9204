"""From image files to model inputs: resized once, kept as bytes, normalized batch by batch.

The image processor, transformers' own or that of a timm model, determines size and normalization.

Shape legend: N images, S height and width.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import numpy as np
import torch

from toolkit.data.image_decoding import Decoding, open_image
from toolkit.data.image_stream import ImageStream
from toolkit.data.rows import spread
from toolkit.errors import InputError, extra, first_line
from toolkit.hub.download import local_copy
from toolkit.training.loader import StreamedDataset
from toolkit.training.sampler import SampleKey

with extra("images"):
    import timm
    from PIL import Image, ImageColor

READ_TOGETHER = 1024  # images
# Attributes of processors, saved in preprocessor_config.json, in the order of the fields of `Decoding`.
WHITE_LEVEL, BLACK_LEVEL, BACKGROUND = DECODING = "white_level", "black_level", "background"
NUM_MEASURED = 1000  # images that mean and standard deviation are computed from
_TO_TENSOR = ("ToTensor", "MaybeToTensor", "PILToTensor", "ConvertImageDtype", "Normalize")  # timm's last transforms


def decoding_of(processor) -> Decoding:
    """How the processor wants images decoded, as it was for the training data."""
    defaults = dataclasses.astuple(Decoding())
    return Decoding(*(getattr(processor, name, default) for name, default in zip(DECODING, defaults, strict=True)))


def set_background(processor, color: str | None) -> None:
    """Set the color that transparent parts of images become. Raises `InputError` if there is no such color."""
    if color is None:
        return
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise InputError(f"--background {color}: no such color, expected a name such as white, or #rrggbb") from None
    setattr(processor, BACKGROUND, color)


def set_levels(processor, images: Sequence[Any]) -> None:
    """Take over from the training data what is white and black in images of more than 8 bits, if there are such."""
    if decoding_of(processor).white is not None:
        return
    found = Decoding.of_images(images)
    if found.white is None:
        return
    setattr(processor, WHITE_LEVEL, found.white)
    if found.black < 0:
        setattr(processor, BLACK_LEVEL, found.black)
    print(
        f"images of more than 8 bits: {found.black:,.6g} becomes black, {found.white:,.6g} becomes white",
        file=sys.stderr,
    )


class PixelProcessor:
    """Splits an image processor: `resize` is applied once per image, `normalize` to every batch of bytes."""

    def __init__(self, processor):
        self.processor = processor
        self._timm = getattr(processor, "val_transforms", None)

    def resize(self, image) -> np.ndarray:
        """A `PIL.Image.Image` -> (3, S, S) uint8."""
        if self._timm is None:
            encoded = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
            return encoded["pixel_values"][0].numpy()
        for transform in self._timm.transforms:
            if type(transform).__name__ not in _TO_TENSOR:
                image = transform(image)
        return np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S), uint8 or float from 0 to 255 -> `pixel_values`, float, channels last in memory."""
        p = self.processor
        if self._timm is None:
            values = p.rescale_and_normalize(
                pixels.float(), p.do_rescale, p.rescale_factor, p.do_normalize, tuple(p.image_mean), tuple(p.image_std)
            )
        else:
            mean, std = (255 * torch.tensor(p.data_config[name]).view(3, 1, 1) for name in ("mean", "std"))
            values = (pixels - mean) / std
        return values.contiguous(memory_format=torch.channels_last)


def new_image_processor(size: int, train_rows, background: str | None = None):
    """The processor of a new network: resizes to `size` and normalizes by mean and standard deviation of up to 1,000
    of the training images, whose transparent parts become `background`."""
    from transformers import ViTImageProcessor

    processor = ViTImageProcessor(size={"height": size, "width": size}, resample=3, do_convert_rgb=True)
    set_background(processor, background)
    set_levels(processor, train_rows["image"])
    channels = _some_pixels(train_rows, processor).double() / 255
    processor.image_mean = channels.mean(dim=(0, 2, 3)).numpy().round(4).tolist()
    processor.image_std = channels.std(dim=(0, 2, 3), correction=0).clamp(min=0.01).numpy().round(4).tolist()
    return processor


def some_pixel_values(train_rows, processor) -> torch.Tensor:
    """Up to 1,000 images as the model reads them, (N, 3, S, S)."""
    return PixelProcessor(processor).normalize(_some_pixels(train_rows, processor))


def _some_pixels(train_rows, processor) -> torch.Tensor:
    return stack_pixels(list(read_pixels(spread(train_rows, NUM_MEASURED), processor)))


def load_image_processor(source: str, config, size: int | None = None):
    """The image processor of a folder, a Hub id, or a timm configuration.

    With `size`, processor and model are set to take whole images of that size. Raises `InputError` if there is no
    processor, or if the model takes images of another size only.
    """
    from transformers import AutoImageProcessor
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    if config.model_type == "timm_wrapper":
        if size is not None:
            config.pretrained_cfg |= {"input_size": [3, size, size], "crop_pct": 1.0}
        processor = TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)
        _set_decoding(processor, config.pretrained_cfg)
        return processor
    try:
        processor = AutoImageProcessor.from_pretrained(local_copy(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: reads no images ({first_line(error)})") from None
    if size is not None:
        trained = getattr(config, "image_size", size)
        if trained not in (size, (size, size), [size, size]):
            raise InputError(f"--image_size {size}: {type(config).__name__} takes images of {trained} only")
        processor.size, processor.do_resize, processor.do_center_crop = {"height": size, "width": size}, True, False
    return processor


def timm_config(name: str):
    """The configuration of a timm architecture. Raises `InputError` if timm has none of that name."""
    from transformers import TimmWrapperConfig

    architecture = name.removeprefix("timm/")
    if not timm.is_model(architecture):
        raise InputError(f"{name}: timm knows no such network; `timm.list_models()` names those that it knows")
    found = timm.get_pretrained_cfg(architecture) or timm.models.PretrainedCfg()
    return TimmWrapperConfig(architecture=architecture, pretrained_cfg=found.to_dict())  # type: ignore[call-arg]


def without_timm(processor):
    """The same processing by a processor of transformers, which can be saved beside a model of any kind."""
    from transformers import ViTImageProcessor

    if not hasattr(processor, "val_transforms"):
        return processor
    data = processor.data_config
    _, height, width = data["input_size"]
    same = ViTImageProcessor(
        size={"shortest_edge": int(min(height, width) / data["crop_pct"])},
        crop_size={"height": height, "width": width},
        do_center_crop=True,
        resample=Image.Resampling[data["interpolation"].upper()],
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
        do_convert_rgb=True,
    )
    _set_decoding(same, vars(processor))
    return same


def keep_decoding(config, processor) -> None:
    """Keep in the configuration of a timm model, whose processor is not saved, how images are decoded."""
    if hasattr(processor, "val_transforms"):
        config.pretrained_cfg |= {name: value for name, value in vars(processor).items() if name in DECODING}


def _set_decoding(processor, settings: Mapping[str, Any]) -> None:
    for name in set(DECODING).intersection(settings):
        setattr(processor, name, settings[name])


def read_pixels(rows, processor) -> Iterator[dict[str, Any]]:
    """Open and resize images, rows with `image` and `name`, in threads.

    Yields for each row, in order, `pixels`, the bytes of (3, height, width), `height` and `width`. Raises `InputError`
    if an image cannot be opened.
    """
    pixels = PixelProcessor(processor)

    def read(row: dict[str, Any]) -> dict[str, Any]:
        return _encoded_row(pixels.resize(open_image(row["image"], row["name"], decoding_of(processor))))

    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL while it decodes
        for start in range(0, len(rows), READ_TOGETHER):
            yield from pool.map(read, [rows[i] for i in range(start, min(start + READ_TOGETHER, len(rows)))])


def _encoded_row(pixels: np.ndarray, **fields: int) -> dict[str, Any]:
    return {"pixels": pixels.tobytes(), "height": pixels.shape[1], "width": pixels.shape[2], **fields}


def stack_pixels(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Rows of `read_pixels`, all of one size, as one tensor (N, 3, S, S) uint8."""
    joined = bytearray(b"".join(row["pixels"] for row in rows))
    return torch.frombuffer(joined, dtype=torch.uint8).view(len(rows), 3, rows[0]["height"], rows[0]["width"])


def encode_images(rows, processor, label2id: dict[str, int]) -> datasets.Dataset:
    """Rows of `read_pixels` as a data set, with `label` (the id, or -100 without one), `index` and `part` (0)."""
    labels = rows["label"][:] if "label" in rows.column_names else [None] * len(rows)
    return datasets.Dataset.from_list(
        [
            {**pixels, "label": label2id.get(label, -100), "index": index, "part": 0}
            for index, (pixels, label) in enumerate(zip(read_pixels(rows, processor), labels, strict=True))
        ]
    )


class StreamedImages(StreamedDataset):
    """The images of a stream, resized when they are read, in threads.

    With `skip_broken`, an image that cannot be opened is replaced by a black one without a label and named on stderr.
    """

    def __init__(self, stream: ImageStream, processor, label2id: dict[str, int], skip_broken: bool = False):
        self.stream, self.processor, self.label2id, self.skip_broken = stream, processor, label2id, skip_broken

    def __len__(self) -> int:
        return len(self.stream)

    def read(self, keys: list[SampleKey]) -> list[dict[str, Any]]:
        pixels = PixelProcessor(self.processor)

        def encode(row: dict[str, Any], key: SampleKey) -> dict[str, Any]:
            try:
                image, label = (
                    open_image(row["image"], row["name"], decoding_of(self.processor)),
                    self.label2id.get(row["label"], -100),
                )
            except InputError as error:
                if not self.skip_broken:
                    raise
                print(f"left out: {error}", file=sys.stderr)
                image, label = Image.new("RGB", (64, 64)), -100
            return _encoded_row(pixels.resize(image), label=label, index=key.index, part=0)

        with ThreadPoolExecutor() as pool:
            return list(pool.map(encode, self.stream.read([(key.epoch, key.index) for key in keys]), keys))


@torch.no_grad()
def check_smallest_image(model, encoded, names: Sequence[str]) -> None:
    """Run the model on the smallest of images of several sizes. Raises `InputError` if it is too small."""
    sizes = list(zip(encoded["height"][:], encoded["width"][:], strict=True))
    if len(set(sizes)) == 1:
        return
    is_training = model.training
    for side in (0, 1):
        smallest = min(range(len(sizes)), key=lambda index: sizes[index][side])
        height, width = sizes[smallest]
        try:
            model.eval()(pixel_values=torch.zeros(1, 3, height, width, device=model.device))
        except RuntimeError:
            raise InputError(
                f"{names[smallest]}: {width} × {height} pixels, too small for this network; give --image_size instead "
                "of --keep_size"
            ) from None
        finally:
            model.train(is_training)


def map_images(pixel_values: torch.Tensor | list[torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]):
    """Apply `change` to a batch (N, 3, S, S), or one by one to a list of images of different sizes."""
    if isinstance(pixel_values, torch.Tensor):
        return change(pixel_values)
    return [change(image[None])[0] for image in pixel_values]
