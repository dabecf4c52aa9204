"""Images: image processors, resizing, global pooling, thumbnails."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from toolkit.data.columns import ImageColumn
from toolkit.data.image_decoding import as_stored, open_image
from toolkit.data.image_files import IMAGES
from toolkit.errors import InputError
from toolkit.modalities.arguments import ImageEncoderArguments
from toolkit.modalities.media import MediaModality, png_url
from toolkit.models.families import presets

THUMBNAIL_SIZE = 96  # pixels


class ImageModality(MediaModality):
    files = IMAGES
    name = "image"
    main_input_names = ("pixel_values",)
    columns = ImageColumn
    encoder_arguments = ImageEncoderArguments
    few_shot_head = "FewShotForImageClassification"
    has_thumbnails = True
    sample_license = labelled_sample_license = "scikit-learn's handwritten digits of the UCI repository, CC BY 4.0"

    def new_processor(self, preset: str, options: Any, train_rows):
        from toolkit.modalities.pixels import new_image_processor

        return new_image_processor(self._size(preset, options), train_rows, options.background)

    def new_config(self, preset: str, options: Any, processor):
        size = self._size(preset, options)
        try:
            return presets()[preset].config(size)
        except ValueError as error:
            raise InputError(f"--image_size {size}: {error}") from None

    def _size(self, preset: str, options: Any) -> int:
        return options.image_size or presets()[preset].default_size

    def load_processor(self, source: str, config, options: Any):
        from toolkit.modalities.pixels import load_image_processor, set_background

        processor = load_image_processor(source, config, options.image_size)
        set_background(processor, options.background)
        return processor

    def apply_options(self, name: str, config, processor, options: Any) -> tuple[Any, Any, bool]:
        from toolkit.modalities.pixels import without_timm
        from toolkit.models.pooling import PooledConfig

        is_pooled = isinstance(config, PooledConfig)
        wraps = options.pooling is not None and not is_pooled
        if wraps:
            num_channels = _channels_of_maps(name, config)
            config = PooledConfig(encoder=config.to_dict(), hidden_size=num_channels)
            processor = without_timm(processor)
        if options.pooling is not None:
            config.pooling = options.pooling
        if options.keep_size:
            if not (wraps or is_pooled):
                raise InputError("--keep_size: goes with --pooling, or with an encoder that was trained with it")
            processor.do_resize = processor.do_center_crop = False
        return config, processor, wraps

    def finish(self, model, processor, train_rows, is_scratch: bool) -> None:
        from toolkit.modalities.pixels import some_pixel_values
        from toolkit.models.depthwise import speed_up_depthwise

        self.adapt(model, processor, () if train_rows is None else train_rows["image"])
        for module in model.modules():
            if is_scratch and train_rows is not None and hasattr(module, "whiten"):
                resizing = copy.copy(processor)
                resizing.do_resize = True  # also with --keep_size: whitening needs images of one size
                module.whiten(some_pixel_values(train_rows, resizing))
        speed_up_depthwise(model)

    def adapt(self, model, processor, items: Sequence[Any]) -> None:
        from toolkit.modalities.pixels import keep_decoding, set_levels

        set_levels(processor, items)
        keep_decoding(model.config, processor)

    def encode(self, items: Sequence[Any], processor, model) -> list[dict[str, Any]]:
        from toolkit.modalities.pixels import read_pixels

        named = [{"image": as_stored(item), "name": f"image {n}"} for n, item in enumerate(items, start=1)]
        return [{**row, "size": row["height"] * row["width"]} for row in read_pixels(named, processor)]

    def collate(self, encoded: Sequence[dict[str, Any]], processor) -> dict[str, Any]:
        from toolkit.modalities.image_batches import pixel_values_of
        from toolkit.modalities.pixels import PixelProcessor, stack_pixels

        def convert(samples) -> Any:
            return PixelProcessor(processor).normalize(stack_pixels([row for row, _ in samples]))

        return {"pixel_values": pixel_values_of([(row, None) for row in encoded], convert)}

    def pooling(self, model, processor) -> Callable[[dict[str, Any]], Any]:
        from toolkit.models.heads import pool_image_features

        return lambda inputs: pool_image_features(model(pixel_values=inputs["pixel_values"]))

    def thumbnail(self, row: dict[str, Any]) -> str | None:
        import io

        image, file = open_image(row["image"], row["name"]), io.BytesIO()
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        image.save(file, "PNG")
        return png_url(file.getvalue())


def _channels_of_maps(name: str, config) -> int:
    """The number of channels of the last feature maps. Raises `InputError` if the encoder has no feature maps."""
    import torch
    import transformers

    is_timm = hasattr(config, "pretrained_cfg")
    size = config.pretrained_cfg["input_size"][-1] if is_timm else getattr(config, "image_size", None) or 64
    size = size if isinstance(size, int) else size[0]
    with torch.random.fork_rng(devices=()), torch.no_grad():
        encoder = transformers.AutoModel.from_config(config).eval()
        maps = encoder(torch.zeros(1, 3, size, size)).last_hidden_state
    if maps is None or maps.dim() != 4:
        raise InputError(f"--pooling: {name} is no convolutional network, there are no feature maps to pool")
    return maps.shape[1]
