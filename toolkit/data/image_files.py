"""Images: which files they are, and the sample, scikit-learn's handwritten digits."""

import random
from functools import lru_cache

from toolkit.data.image_decoding import as_stored, open_image
from toolkit.data.media_files import MediaFiles
from toolkit.errors import InputError, extra

# Of all formats of pixels that Pillow can decode by itself.
SUFFIXES = {
    *(".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc"),
    *(".fli", ".ftc", ".ftu", ".gbr", ".gif", ".icb", ".icns", ".ico", ".iim", ".im", ".j2c", ".j2k", ".jfif"),
    *(".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif"),
    *(".tiff", ".vda", ".vst", ".webp", ".xbm", ".xpm"),
}
_SAMPLE_SPLITS = {"train": (0, 1_257), "validation": (1_257, 1_437), "test": (1_437, 1_797)}


@lru_cache
def _load_sample(split: str, **named: str | None):
    """Images of 8×8 pixels; the splits are parts of a fixed shuffle."""
    import numpy as np

    with extra("images"):
        from sklearn.datasets import load_digits

    if split not in _SAMPLE_SPLITS:
        raise InputError(f"sample: no split '{split}' of the digits, expected {', '.join(_SAMPLE_SPLITS)}")
    digits = load_digits()
    order = list(range(len(digits.target)))
    random.Random(0).shuffle(order)
    order = order[slice(*_SAMPLE_SPLITS[split])]
    images = [as_stored((digits.images[index] / 16 * 255).round().astype(np.uint8)) for index in order]
    names, labels = [f"digit {index}" for index in order], [str(digits.target[index]) for index in order]
    if "group" in named:
        raise InputError(f"sample: the digits have no column {named['group']}")
    return IMAGES.dataset(images, names, **({"label": labels} if "label" in named else {}))


IMAGES = MediaFiles(
    name="image",
    noun="image",
    suffixes=frozenset(SUFFIXES),
    usual_columns=("image", "img", "file_name", "file", "filename", "path"),
    feature="Image",
    check=open_image,
    sample_splits=tuple(_SAMPLE_SPLITS),
    load_sample=_load_sample,
)
