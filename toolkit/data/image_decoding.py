"""Images as they are stored, and decoded: to RGB, upright, without transparency, with 8 bits."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import InputError, first_line

IMAGES_LOOKED_AT = 1000  # to see whether there are images of more than 8 bits
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # two tags of TIFF, and a value of the second
GREY_STEPS = {"L;2": 85, "L;4": 17}  # of PNGs with 2 and 4 bits, whose values Pillow spreads from 0 to 255
LITTLE_OF_8_BITS = 16  # what remains of 12 bits in the upper half of 16
_CANNOT_OPEN = (OSError, SyntaxError, ValueError, EOFError, IndexError)


def as_stored(image: Any) -> dict[str, Any]:
    """An image as `bytes` or the `path` of a file, from either of them, a `PIL.Image.Image`, or a uint8 array (height,
    width) or (height, width, 3)."""
    import numpy as np
    from PIL import Image

    if isinstance(image, dict):
        return image
    if isinstance(image, str | Path):
        return {"bytes": None, "path": str(image)}
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@dataclass(frozen=True)
class Decoding:
    """How pixels become RGB.

    Attributes:
        white: The value that becomes white in images of more than 8 bits (default: each has its own range).
        black: The value that becomes black in them.
        background: The color that transparent parts become: a name such as `white`, or `#rrggbb`.
    """

    white: float | None = None
    black: float = 0.0
    background: str = "white"

    @classmethod
    def of_images(cls, images: Sequence[Any]) -> "Decoding":
        """With the range of all images of more than 8 bits; without `white` if there is none.

        An image is what `as_stored` takes. All are read, unless none of 1,000 that are evenly spaced over them has
        more than 8 bits.
        """
        places = range(0, len(images), max(1, -(-len(images) // IMAGES_LOOKED_AT)))
        if not any(_range_of_file(images[place]) for place in places):
            return cls()
        return cls.of_ranges([found for found in map(_range_of_file, images) if found])

    @classmethod
    def of_ranges(cls, ranges: "Sequence[_Range]") -> "Decoding":
        """From the smallest value if that is negative, else from zero, up to the largest value.

        Microscopes and X-ray machines write 12 bits, or fewer, into files of 16. But 1 is white for floats from 0 to
        1, and 255 for whole numbers from 0 to 255.
        """
        smallest, largest = min(each.smallest for each in ranges), max(each.largest for each in ranges)
        if smallest >= 0 and largest <= 1 and all(each.are_floats for each in ranges):
            largest = 1.0
        elif smallest >= 0 and largest <= 255 and all(each.are_whole for each in ranges):
            largest = 255.0
        return cls(largest, min(0.0, smallest))


class _Range(NamedTuple):
    """The range of the values of an image of more than 8 bits."""

    smallest: float
    largest: float
    are_floats: bool
    are_whole: bool


def open_image(image: dict[str, Any], name: str, decoding: Decoding = Decoding()):
    """Decode an image to a `PIL.Image.Image` of mode RGB, rotated as its EXIF data says.

    Raises `InputError`, which calls it `name`, if it is empty, broken or too large, not an image, or of 16 bits per
    channel that Pillow cannot read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = _file_of(image)
        if (file.stat().st_size if isinstance(file, Path) else len(image["bytes"])) == 0:
            raise InputError(f"{name}: the file is empty, expected an image")
        with Image.open(file) as opened:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and opened.width * opened.height > limit:
                raise InputError(
                    f"{name}: {opened.width:,} × {opened.height:,} pixels, more than the {limit:,} that are opened; "
                    "make it smaller"
                )
            layout = str(opened.tile[0].args) if opened.tile else ""  # such as RGB;16B
            opened.load()
            if _has_lost_bits(opened, layout):
                raise InputError(
                    f"{name}: an image with 16 bits per channel, of which Pillow reads too little to see anything; "
                    "convert it to 8 bits"
                )
            if isinstance(transparent := opened.info.get("transparency"), int):
                opened.info["transparency"] = transparent * GREY_STEPS.get(layout, 1)
            is_negative = _tag(opened, PHOTOMETRIC) == WHITE_IS_ZERO
            return _as_rgb(_upright(opened), decoding, is_negative)
    except UnidentifiedImageError:
        raise InputError(f"{name}: this is no image, or of a format that Pillow does not know") from None
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: too large an image ({first_line(error)})") from None
    except _CANNOT_OPEN as error:
        raise InputError(f"{name}: this image cannot be decoded ({first_line(error)})") from None


def _file_of(image: dict[str, Any]) -> Path | io.BytesIO:
    return Path(image["path"]) if image["bytes"] is None else io.BytesIO(image["bytes"])


def _tag(image, number: int) -> Any:
    """The value of a tag of a TIFF; None in other formats."""
    return getattr(image, "tag_v2", {}).get(number)


def _has_lost_bits(image, layout: str) -> bool:
    """Whether Pillow, which reads the upper 8 of 16 bits of colors, has read nothing that can be seen."""
    if _is_deep(image.mode):
        return False
    if ";16" not in layout:  # in a TIFF whose channels follow each other Pillow takes each byte for a pixel
        return max(_tag(image, BITS_PER_SAMPLE) or (8,)) > 8
    extrema = {band: of_band.getextrema() for band, of_band in zip(image.getbands(), image.split(), strict=True)}
    low, high = extrema.pop("A", (255, 255))  # black ink on a transparent sheet can be seen
    return high - low < LITTLE_OF_8_BITS and max(high for _, high in extrema.values()) < LITTLE_OF_8_BITS


def _upright(image):
    """The image turned as its EXIF data says, if that can be parsed."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata is no reason to lose an image
        return image


def _is_deep(mode: str) -> bool:
    """Whether images of a mode of Pillow have one channel of more than 8 bits."""
    return mode.startswith(("I", "F"))


def _values_of(image):
    """The values of an image of more than 8 bits, float64; NaN where it is transparent."""
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    values[values == image.info.get("transparency")] = np.nan
    return values


def _range_of(image) -> _Range:
    import numpy as np

    values = _values_of(image)
    values = values[np.isfinite(values)]
    smallest, largest = (values.min(), values.max()) if values.size else (0, 0)
    return _Range(float(smallest), float(largest), image.mode == "F", bool((values % 1 == 0).all()))


def _range_of_file(image: dict[str, Any]) -> _Range | None:
    """The range of an image of more than 8 bits; None for another, or one that cannot be opened."""
    from PIL import Image

    try:
        with Image.open(_file_of(as_stored(image))) as opened:
            return _range_of(opened) if _is_deep(opened.mode) else None
    except (*_CANNOT_OPEN, Image.DecompressionBombError):
        return None


@cache
def _say_own_range() -> None:
    note = "images of more than 8 bits, as the model was not trained on: each is scaled by its own range of values"
    print(note, file=sys.stderr, flush=True)


def _as_rgb(image, decoding: Decoding, is_negative: bool):
    from PIL import Image

    if _is_deep(image.mode):
        image = _as_grey(image, decoding, is_negative)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, decoding.background), image.convert("RGBA"))
    return image.convert("RGB")


def _as_grey(image, decoding: Decoding, is_negative: bool):
    """An image of more than 8 bits with 8, and with an alpha channel."""
    import numpy as np
    from PIL import Image

    if decoding.white is None:
        _say_own_range()
        decoding = Decoding.of_ranges([_range_of(image)])
    assert decoding.white is not None
    values, black = _values_of(image), decoding.black
    is_there = ~np.isnan(values)
    grey = (255 * (np.where(is_there, values, black) - black) / (decoding.white - black or 1)).clip(0, 255)
    grey = 255 - grey if is_negative else grey
    return Image.fromarray(np.stack([grey.round(), 255 * is_there], axis=-1).astype(np.uint8), "LA")
