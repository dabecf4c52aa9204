"""Show what an image classifier looks at: its kernels, what its layers see, which parts of an image count.

toolkit explain runs/animals frog.png --output_dir runs/frog
toolkit explain runs/animals frog.png --output_dir runs/frog --label cat --layers fast_resnet.blocks.0
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.cli.flags import parse_flags
from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments


@dataclass(kw_only=True)
class ExplainArguments(Arguments):
    """flags"""

    folder: str
    """Folder or Hub id of a fine-tuned image classifier."""
    image: str
    """The image."""
    output_dir: str
    """Folder for the pictures."""
    label: str | None = None
    """The label to explain (default: the one that the network predicts)."""
    layers: list[str] | None = None
    """Layers whose maps are shown (default: up to four, the last at each resolution)."""


def parse(words: Sequence[str]) -> ExplainArguments:
    return parse_flags(words, ExplainArguments, "toolkit explain", __doc__, positionals=["folder", "image"])


def run(arguments: ExplainArguments) -> None:
    import numpy as np
    import torch

    from tasks import task_of
    from toolkit.data.image_decoding import open_image
    from toolkit.explain.pictures import write_explanation
    from toolkit.modalities.pixels import PixelProcessor, decoding_of

    task = task_of(arguments.folder)
    if not task.can_be_explained:
        raise InputError(f"{arguments.folder}: its task is {task.name}, expected one fine-tuned on images")
    model, processor = task.load_finetuned(arguments.folder)
    image = open_image({"bytes": None, "path": arguments.image}, arguments.image, decoding_of(processor))
    model.eval()
    reader = PixelProcessor(processor)
    shown = torch.from_numpy(np.array(reader.resize(image)))
    pixels = reader.normalize(shown[None])
    with torch.no_grad():
        (prediction,) = task.decode([{}], task.forward(model, {"pixel_values": pixels}), model, processor)
    predicted, probabilities = prediction.label, prediction.probabilities
    label = arguments.label or predicted
    if label not in probabilities:
        raise InputError(f"--label {label}: not a label of {arguments.folder}, which has {', '.join(probabilities)}")
    label_id, folder = list(probabilities).index(label), Path(arguments.output_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder}: there is a file of that name")
    files = write_explanation(
        model, shown.permute(1, 2, 0).numpy(), pixels, (label, label_id), arguments.layers, folder
    )
    print(f"{label}\t{probabilities[label]:.4f}\t{arguments.image}")
    print(*files, sep="\n", file=sys.stderr)
