"""Images as they are stored, and decoded: to RGB, upright, without transparency, with 8 bits."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, first_line

IMAGES_LOOKED_AT = 20  # to see whether there are images of more than 8 bits


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
        white: The value that becomes white if a pixel has more than 8 bits (default: the largest of 16 bits).
        background: The color that transparent parts become: a name such as `white`, or `#rrggbb`.
    """

    white: float | None = None
    background: str = "white"


def open_image(image: dict[str, Any], name: str, decoding: Decoding = Decoding()):
    """Decode an image to a `PIL.Image.Image` of mode RGB, rotated as its EXIF data says.

    Raises `InputError`, which calls it `name`, if it is empty, broken or too large, or not an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = Path(image["path"]) if image["bytes"] is None else io.BytesIO(image["bytes"])
        if (file.stat().st_size if isinstance(file, Path) else len(image["bytes"])) == 0:
            raise InputError(f"{name}: the file is empty, expected an image")
        with Image.open(file) as opened:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and opened.width * opened.height > limit:
                raise InputError(
                    f"{name}: {opened.width:,} × {opened.height:,} pixels, more than the {limit:,} that are opened; "
                    "make it smaller"
                )
            opened.load()
            return _as_rgb(_upright(opened), decoding)
    except UnidentifiedImageError:
        raise InputError(f"{name}: this is no image, or of a format that Pillow does not know") from None
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: too large an image ({first_line(error)})") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise InputError(f"{name}: this image cannot be decoded ({first_line(error)})") from None


def _upright(image):
    """The image turned as its EXIF data says, if that can be parsed."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata is no reason to lose an image
        return image


def white_level(rows) -> float | None:
    """The largest value of the images with more than 8 bits, so that they fill the range of grey; None without such.

    Microscopes and X-ray machines write 12 bits, or fewer, into files of 16. All images are read, unless the first
    ones have 8 bits.
    """
    largest = 0.0
    for number, row in enumerate(rows):
        value = _largest_value(row["image"])
        if value is None and number == IMAGES_LOOKED_AT and not largest:
            return None
        largest = max(largest, value or 0.0)
    return largest or None


def _largest_value(image: dict[str, Any]) -> float | None:
    """The largest value of an image with more than 8 bits; None for another, or one that cannot be opened."""
    from PIL import Image

    try:
        with Image.open(image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])) as opened:
            if not opened.mode.startswith("I"):
                return None
            extrema: Any = opened.getextrema()
            return float(extrema[1]) if opened.mode != "I" or extrema[1] > 255 else None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError):
        return None


def _as_rgb(image, decoding: Decoding):
    import numpy as np
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # more than 8 bits of grey
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F":
            white = 1.0 if values.max() <= 1 else 255.0
        elif image.mode == "I" and values.max() <= 255:
            white = 255.0
        else:
            white = decoding.white or 65_535.0
        image = Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, decoding.background), image.convert("RGBA"))
    return image.convert("RGB")
