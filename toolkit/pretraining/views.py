"""Two views of each image, to be told from all other images: batches for `toolkit.models.contrastive`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.modalities.pixels import Pixels, Views, stacked
from toolkit.training.batches import Draw


@dataclass(frozen=True)
class CollateViews:
    """Rows with `pixels`, `height` and `width` to a batch of twice as many views."""

    processor: Any
    views: Views

    def __call__(self, rows: list[dict], draws: Sequence[Draw]) -> dict[str, Any]:
        views = self.views(stacked(rows), draws)
        return {
            "pixel_values": Pixels(self.processor).normalise(views),
            "num_targets": len(views),
            "num_items": len(rows),
        }
