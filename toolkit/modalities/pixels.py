"""Images on their way into a model: made one size once, changed at random while training, normalised in batches.

What size and which normalisation is the image processor's to say, transformers' own or a timm model's.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from torch.nn import functional as F

from toolkit.data.image_files import open_image
from toolkit.data.image_stream import ImageStream
from toolkit.data.rows import spread
from toolkit.errors import InputError, extra, first_line
from toolkit.hub.download import local_copy
from toolkit.pretraining.arguments import ImageChange
from toolkit.training.batches import Draw, RowStream, seed_cpu, seed_of

with extra("images"):
    import timm
    from PIL import Image
    from torchvision.transforms import v2

READ_TOGETHER, NUM_MEASURED = 1024, 1000  # images
_TO_NUMBERS = ("ToTensor", "MaybeToTensor", "PILToTensor", "ConvertImageDtype", "Normalize")  # timm's last transforms


class Pixels:
    """An image processor in two halves: `fit` gives an image its size, `normalise` makes a batch the model's numbers.

    Between the two a pixel is three bytes.
    """

    def __init__(self, processor):
        self.processor = processor
        self._timm = getattr(processor, "val_transforms", None)

    def fit(self, image) -> np.ndarray:
        """A PIL image -> (3, height, width), bytes."""
        if self._timm is None:
            (pixels,) = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")[
                "pixel_values"
            ]
            return pixels.numpy()
        for transform in self._timm.transforms:
            if type(transform).__name__ not in _TO_NUMBERS:
                image = transform(image)
        return np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(images, 3, height, width), bytes or numbers up to 255 -> numbers."""
        if self._timm is None:
            p = self.processor
            numbers = p.rescale_and_normalize(
                pixels.float(), p.do_rescale, p.rescale_factor, p.do_normalize, tuple(p.image_mean), tuple(p.image_std)
            )
        else:
            mean, std = (
                255 * torch.tensor(self.processor.data_config[name]).view(3, 1, 1) for name in ("mean", "std")
            )
            numbers = (pixels - mean) / std
        return numbers.contiguous(memory_format=torch.channels_last)


def new_processor(size: int, train_rows):
    """For a new network: images of that height and width, normalised by mean and deviation of up to 1,000 of them."""
    from transformers import ViTImageProcessor

    processor = ViTImageProcessor(size={"height": size, "width": size}, resample=3, do_convert_rgb=True)
    channels = _some_pixels(train_rows, processor).double() / 255
    processor.image_mean = channels.mean(dim=(0, 2, 3)).numpy().round(4).tolist()
    processor.image_std = channels.std(dim=(0, 2, 3), correction=0).clamp(min=0.01).numpy().round(4).tolist()
    return processor


def normalised(train_rows, processor) -> torch.Tensor:
    """Up to 1,000 images as a model reads them, (images, 3, height, width)."""
    return Pixels(processor).normalise(_some_pixels(train_rows, processor))


def _some_pixels(train_rows, processor) -> torch.Tensor:
    return stacked(list(pixels_of(spread(train_rows, NUM_MEASURED), processor)))


def load_processor(source: str, config):
    """The image processor of a folder, a Hub id, or of a timm configuration. Raises `InputError`."""
    from transformers import AutoImageProcessor
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    if config.model_type == "timm_wrapper":
        return TimmWrapperImageProcessor(config.pretrained_cfg, config.architecture)
    try:
        return AutoImageProcessor.from_pretrained(local_copy(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: reads no images ({first_line(error)})") from None


def timm_config(name: str):
    """The configuration of timm's network of that name. Raises `InputError`."""
    from transformers import TimmWrapperConfig

    architecture = name.removeprefix("timm/")
    if not timm.is_model(architecture):
        raise InputError(f"{name}: timm knows no such network; `timm.list_models()` names those that it knows")
    found = timm.get_pretrained_cfg(architecture) or timm.models.PretrainedCfg()
    return TimmWrapperConfig(architecture=architecture, pretrained_cfg=found.to_dict())  # type: ignore[call-arg]


def set_size(config, processor, size: int) -> None:
    """Let model and processor take whole images of that height and width. Raises `InputError` where they cannot."""
    if config.model_type == "timm_wrapper":
        config.pretrained_cfg |= {"input_size": [3, size, size], "crop_pct": 1.0}
        processor.__init__(config.pretrained_cfg, config.architecture)
        return
    trained = getattr(config, "image_size", size)
    if trained not in (size, (size, size), [size, size]):
        raise InputError(f"--image_size {size}: {type(config).__name__} takes images of {trained} only")
    processor.size, processor.do_resize, processor.do_center_crop = {"height": size, "width": size}, True, False


def keep_sizes(config, processor) -> None:
    """Let images stay as large as they are. Raises `InputError` where the model does not pool what it sees of them."""
    if config.model_type != "toolkit-pooled":
        raise InputError("--keep_size: goes with --pooling, or with an encoder that was trained with it")
    processor.do_resize = processor.do_center_crop = False


def without_timm(processor):
    """The same as a processor of transformers, which is saved beside a model of any kind."""
    from transformers import ViTImageProcessor

    if not hasattr(processor, "val_transforms"):
        return processor
    data = processor.data_config
    _, height, width = data["input_size"]
    return ViTImageProcessor(
        size={"shortest_edge": int(min(height, width) / data["crop_pct"])},
        crop_size={"height": height, "width": width},
        do_center_crop=True,
        resample=Image.Resampling[data["interpolation"].upper()],
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
        do_convert_rgb=True,
    )


def pixels_of(rows, processor) -> Iterator[dict[str, Any]]:
    """Images as `toolkit.data.image_files` gives them -> `pixels`, (3, height, width) bytes, `height` and `width`.

    Raises `InputError` where one is broken.
    """
    pixels = Pixels(processor)

    def read(row: dict[str, Any]) -> np.ndarray:
        return pixels.fit(open_image(row["image"], row["name"]))

    with ThreadPoolExecutor() as pool:  # Pillow lets other threads run while it decodes
        for start in range(0, len(rows), READ_TOGETHER):
            part = [rows[i] for i in range(start, min(start + READ_TOGETHER, len(rows)))]
            for found in pool.map(read, part):
                yield {"pixels": found.tobytes(), "height": found.shape[1], "width": found.shape[2]}


def stacked(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Such rows, of one size, as one tensor of bytes, (images, 3, height, width)."""
    joined = bytearray(b"".join(row["pixels"] for row in rows))
    return torch.frombuffer(joined, dtype=torch.uint8).view(len(rows), 3, rows[0]["height"], rows[0]["width"])


class StreamedPixels(RowStream):
    """The images of a stream, made one size when they are read, in threads.

    With `skip_broken` an image that cannot be opened becomes a black one without a label, and is named on stderr.
    """

    def __init__(self, stream: ImageStream, processor, label2id: dict[str, int], skip_broken: bool = False):
        self.stream, self.label2id, self.skip_broken = stream, label2id, skip_broken
        self.processor = processor

    def __len__(self) -> int:
        return len(self.stream)

    def read(self, draws: list[Draw]) -> list[dict[str, Any]]:
        pixels = Pixels(self.processor)

        def fitted(row: dict[str, Any]) -> tuple[np.ndarray, int]:
            try:
                return pixels.fit(open_image(row["image"], row["name"])), self.label2id.get(row["label"], -100)
            except InputError as error:
                if not self.skip_broken:
                    raise
                print(f"left out: {error}", file=sys.stderr)
                return pixels.fit(Image.new("RGB", (64, 64))), -100

        with ThreadPoolExecutor() as pool:
            found = list(pool.map(fitted, self.stream.read([(draw.epoch, draw.example) for draw in draws])))
        return [
            {"pixels": image.tobytes(), "height": image.shape[1], "width": image.shape[2], "label": label}
            | {"index": draw.example, "part": 0}
            for draw, (image, label) in zip(draws, found, strict=True)
        ]


def rows_of_pixels(rows, processor, label2id: dict[str, int]):
    """The same as a data set, with `label`, the id of the label or -100 where it has none, `index` and `part` (0)."""
    labels = rows["label"][:] if "label" in rows.column_names else [None] * len(rows)
    return datasets.Dataset.from_list(
        [
            {**pixels, "label": label2id.get(label, -100), "index": index, "part": 0}
            for index, (pixels, label) in enumerate(zip(pixels_of(rows, processor), labels, strict=True))
        ]
    )


@torch.no_grad()
def check_smallest(model, features, names: Sequence[str]) -> None:
    """Raises `InputError`, with its name, where the smallest of images of several sizes is too small for the model."""
    sizes = list(zip(features["height"][:], features["width"][:], strict=True))
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


@dataclass(frozen=True)
class Changes:
    """Changes images at random, each as its draw says: turns and shifts a whole batch, then each image by torchvision.

    `flip` turns an image in every second epoch, which are the odd ones for half of them, as Jordan (2024) does,
    https://arxiv.org/abs/2404.00498; `shift` moves it by up to `max_shift` of its size, or a pixel where that is
    less, with its own mirror image behind the edge. `trivial` is TrivialAugment of Müller & Hutter (2021),
    https://arxiv.org/abs/2103.10158, `erase` random erasing of Zhong, Zheng, Kang, Li & Yang (2020),
    https://arxiv.org/abs/1708.04896.
    """

    names: Sequence[ImageChange]
    seed: int
    max_shift: float = 0.125

    def __call__(self, pixels: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """`pixels` (images, 3, height, width), bytes -> the same shape."""
        size = pixels.shape[2], pixels.shape[3]
        if "flip" in self.names or "shift" in self.names:
            pixels = _moved(pixels, self._shifts(size, draws), self._turns(draws))
        one_by_one = [_TRANSFORMS[name](size) for name in self.names if name in _TRANSFORMS]
        if not one_by_one:
            return pixels
        change, changed = v2.Compose(one_by_one), []
        with torch.random.fork_rng(devices=()):
            for image, draw in zip(pixels, draws, strict=True):
                seed_cpu(*seed_of(self.seed, draw))
                changed.append(change(image))
        return torch.stack(changed)

    def _turns(self, draws: Sequence[Draw]) -> np.ndarray:
        """(images,): which are turned left to right."""
        if "flip" not in self.names:
            return np.zeros(len(draws), dtype=bool)
        first = [np.random.default_rng((self.seed, draw.example)).integers(2) for draw in draws]
        return (np.array(first) + [draw.epoch for draw in draws]) % 2 == 0

    def _shifts(self, size: tuple[int, int], draws: Sequence[Draw]) -> np.ndarray:
        """(images, 2): pixels that they move down and right."""
        if "shift" not in self.names:
            return np.zeros((len(draws), 2), dtype=np.int64)
        furthest = max(1, int(max(size) * self.max_shift))
        moves = [
            np.random.default_rng(seed_of(self.seed, draw)).integers(-furthest, furthest + 1, 2) for draw in draws
        ]
        return np.array(moves)


@dataclass(frozen=True)
class Views:
    """Two views of each image as SimCLR wants them, Chen et al. (2020), https://arxiv.org/abs/2002.05709: a part of
    it, from a fifth to the whole, made as large, mirrored in every second, and its colours changed, or taken away.

    All of a batch is changed at once, which is many times as fast as image by image.
    """

    seed: int
    smallest_part: float = 0.2
    color_strength: float = 0.5
    NUM_CHANCES: ClassVar[int] = 11  # of a view

    def __call__(self, pixels: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
        """`pixels` (images, 3, height, width), bytes -> (2 images, 3, height, width), numbers up to 255: all first
        views, then all second ones."""
        generators = [np.random.default_rng(seed_of(self.seed, draw)) for draw in draws]
        chances = torch.from_numpy(
            np.stack([generator.random((2, self.NUM_CHANCES)) for generator in generators])
        ).float()
        views = [self._view(pixels.float(), *chances[:, view].T) for view in range(2)]
        return torch.cat(views)

    def _view(self, pixels: torch.Tensor, area, ratio, down, right, turned, kept, grey, *colors) -> torch.Tensor:
        """Each of the rest is one number from 0 to 1 for each image."""
        area = self.smallest_part + (1 - self.smallest_part) * area
        ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
        height, width = ((area * r).sqrt().clamp(max=1) for r in (1 / ratio, ratio))
        matrix = torch.zeros(len(pixels), 2, 3)
        matrix[:, 0, 0] = torch.where(turned < 0.5, -width, width)
        matrix[:, 1, 1] = height
        matrix[:, 0, 2], matrix[:, 1, 2] = (1 - width) * (2 * right - 1), (1 - height) * (2 * down - 1)
        grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
        parts = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
        strength = self.color_strength * (kept >= 0.2)
        brightness, contrast, saturation, hue = (strength * (2 * c - 1) for c in colors)
        saturation = (1 + 0.8 * saturation) * (grey >= 0.2)
        return _recolored(parts, 1 + 0.8 * brightness, 1 + 0.8 * contrast, saturation, 0.2 * hue)


def _recolored(pixels: torch.Tensor, brightness, contrast, saturation, hue) -> torch.Tensor:
    """`pixels` (images, 3, height, width) with brightness, contrast and saturation times the factors (images,), and
    hues turned by parts of a whole turn (images,), all in the space of luma and two differences of colour."""
    to_luma = pixels.new_tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # YIQ
    cosine, sine = torch.cos(2 * torch.pi * hue), torch.sin(2 * torch.pi * hue)
    turn = pixels.new_zeros(len(pixels), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, -sine, sine, cosine
    turn[:, 1:] *= saturation[:, None, None]
    change = (brightness * contrast)[:, None, None] * (torch.linalg.inv(to_luma) @ turn @ to_luma)
    mean = brightness * (1 - contrast) * (pixels.mean(dim=(2, 3)) @ to_luma[0])
    changed = torch.baddbmm(mean[:, None, None], change, pixels.flatten(2)).clamp(0, 255)
    return changed.view_as(pixels)


def each(pixel_values: torch.Tensor | list[torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]):
    """What `change` makes of (images, 3, height, width), or of a list of images of different sizes one by one."""
    if isinstance(pixel_values, torch.Tensor):
        return change(pixel_values)
    return [change(image[None])[0] for image in pixel_values]


def shifted(pixels: torch.Tensor, by: int) -> torch.Tensor:
    """(images, 3, height, width), moved down and right by so many thirty-seconds of their size, their own mirror image
    behind the edge.
    """
    height, width = pixels.shape[2:]
    unit = max(1, max(height, width) // 32)
    wider = F.pad(pixels, (unit * abs(by),) * 4, mode="reflect")
    start = unit * (abs(by) - by)
    return wider[..., start : start + height, start : start + width]


def _moved(pixels: torch.Tensor, shifts: np.ndarray, turns: np.ndarray) -> torch.Tensor:
    """`pixels` (images, channels, height, width), turned left to right where `turns` says and moved by `shifts`."""
    rows, columns = (
        _reflected(np.arange(size) - shift[:, None], size)
        for size, shift in zip(pixels.shape[2:], shifts.T, strict=True)
    )
    columns = np.where(turns[:, None], pixels.shape[3] - 1 - columns, columns)
    images, channels = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    places = images[..., None, None], channels[..., None, None], rows[:, None, :, None], columns[:, None, None, :]
    return torch.from_numpy(pixels.numpy()[places])


def _reflected(places: np.ndarray, size: int) -> np.ndarray:
    """Places beyond the first or the last of so many, mirrored there."""
    last = size - 1
    return last - np.abs(last - np.abs(places))


_BILINEAR = v2.InterpolationMode.BILINEAR
_TRANSFORMS: dict[str, Callable[[tuple[int, int]], v2.Transform]] = {
    "zoom": lambda size: v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
    "rotate": lambda size: v2.RandomRotation(15, interpolation=_BILINEAR),
    "color": lambda size: v2.ColorJitter(0.3, 0.3, 0.3),
    "trivial": lambda size: v2.TrivialAugmentWide(interpolation=_BILINEAR),
    "erase": lambda size: v2.RandomErasing(0.25),
}
