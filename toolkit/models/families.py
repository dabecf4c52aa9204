"""Named sizes of encoders. A preset is a function from the size of the vocabulary to a configuration.

tiny, mini and small run on two CPU cores, where a minute is well spent on tiny, twenty on mini, hours on small; base
wants a GPU.
The BERT sizes are those of Turc, Chang, Lee & Toutanova (2019), https://arxiv.org/abs/1908.08962; electra-small and
-base are those of Clark, Luong, Le & Manning (2020), https://arxiv.org/abs/2003.10555.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.corpora.tokenization import Kind
from toolkit.errors import InputError

MAX_POSITIONS = 512  # of a BERT or an ELECTRA


@dataclass(frozen=True)
class Preset:
    """`make(vocab_size, *sizes)` gives the configuration; `vocab_size` is the usual one, of output words for an ELMo
    and of known words for a fastText."""

    make: Callable
    sizes: tuple
    vocab_size: int
    tokenizer_kind: Kind

    def config(self, vocab_size: int):
        return self.make(vocab_size, *self.sizes)


def word2vec(vocab_size: int, hidden_size: int):
    from toolkit.models.word2vec import Word2VecConfig

    return Word2VecConfig(vocab_size=vocab_size, hidden_size=hidden_size)


def fasttext(vocab_size: int, hidden_size: int, num_buckets: int):
    from toolkit.models.fasttext import FastTextConfig

    return FastTextConfig(vocab_size=vocab_size, hidden_size=hidden_size, num_buckets=num_buckets)


def elmo(vocab_size: int, hidden_size: int, char_filters: list[list[int]], num_highway_layers: int = 1):
    from toolkit.models.elmo import ElmoConfig

    return ElmoConfig(
        output_vocab_size=vocab_size,
        hidden_size=hidden_size,
        char_filters=char_filters,
        num_highway_layers=num_highway_layers,
    )


def bert(vocab_size: int, num_hidden_layers: int, hidden_size: int):
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=MAX_POSITIONS,
    )


def electra(vocab_size: int, num_hidden_layers: int, hidden_size: int, embedding_size: int, generator_size: float):
    from transformers import ElectraConfig

    config = ElectraConfig(
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=MAX_POSITIONS,
    )
    config.update({"generator_size": generator_size, "discriminator_weight": 50.0})  # what pretraining adds to it
    return config


PRESETS: dict[str, Preset] = {
    "word2vec-tiny": Preset(word2vec, (64,), 30_000, "word"),
    "word2vec-mini": Preset(word2vec, (100,), 100_000, "word"),
    "word2vec-small": Preset(word2vec, (200,), 200_000, "word"),
    "word2vec-base": Preset(word2vec, (300,), 1_000_000, "word"),
    "fasttext-tiny": Preset(fasttext, (64, 50_000), 30_000, "bytes"),
    "fasttext-mini": Preset(fasttext, (100, 200_000), 100_000, "bytes"),
    "fasttext-small": Preset(fasttext, (200, 500_000), 200_000, "bytes"),
    "fasttext-base": Preset(fasttext, (300, 2_000_000), 1_000_000, "bytes"),
    "elmo-tiny": Preset(elmo, (128, [[1, 16], [2, 32], [3, 48], [4, 64]]), 10_000, "bytes"),
    "elmo-mini": Preset(elmo, (256, [[1, 32], [2, 64], [3, 96], [4, 128], [5, 160], [6, 192]]), 30_000, "bytes"),
    "elmo-small": Preset(elmo, (512, [[1, 32], [2, 64], [3, 128], [4, 192], [5, 256], [6, 256]]), 50_000, "bytes"),
    "elmo-base": Preset(elmo, (1024, [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512]], 2), 200_000, "bytes"),
    "bert-tiny": Preset(bert, (2, 128), 4_096, "wordpiece"),
    "bert-mini": Preset(bert, (4, 256), 8_192, "wordpiece"),
    "bert-small": Preset(bert, (4, 512), 16_384, "wordpiece"),
    "bert-base": Preset(bert, (12, 768), 30_522, "wordpiece"),
    "electra-tiny": Preset(electra, (2, 128, 128, 1 / 2), 4_096, "wordpiece"),
    "electra-mini": Preset(electra, (4, 256, 128, 1 / 4), 8_192, "wordpiece"),
    "electra-small": Preset(electra, (12, 256, 128, 1 / 4), 30_522, "wordpiece"),
    "electra-base": Preset(electra, (12, 768, 768, 1 / 3), 30_522, "wordpiece"),
}


SMALL_IMAGE = 64  # pixels; up to here a network keeps the resolution in its first layer


@dataclass(frozen=True)
class ImagePreset:
    """`make(image_size, *sizes)` gives the configuration; `image_size` is the usual one."""

    make: Callable
    sizes: tuple
    image_size: int

    def config(self, image_size: int):
        return self.make(image_size, *self.sizes)


def resnet(image_size: int, layer_type: str, hidden_sizes: list[int], depths: list[int]):
    from transformers import ResNetConfig

    from toolkit.models.resnet import SmallImageResNetConfig

    config_class = SmallImageResNetConfig if image_size <= SMALL_IMAGE else ResNetConfig
    first = hidden_sizes[0] if layer_type == "basic" else 64
    return config_class(embedding_size=first, hidden_sizes=hidden_sizes, depths=depths, layer_type=layer_type)


def fast_resnet(image_size: int, hidden_sizes: list[int]):
    from toolkit.models.fast_resnet import FastResNetConfig

    return FastResNetConfig(hidden_sizes=hidden_sizes)


def lenet(image_size: int):
    from toolkit.models.lenet import SMALLEST_IMAGE, LeNetConfig

    if image_size < SMALLEST_IMAGE:
        raise InputError(f"--image_size {image_size}: LeNet-5 takes {SMALLEST_IMAGE} pixels or more")
    return LeNetConfig(image_size=image_size)


def googlenet(image_size: int, width: float):
    from toolkit.models.googlenet import GoogLeNetConfig

    return GoogLeNetConfig(width=width, small_images=image_size <= SMALL_IMAGE)


def vit(image_size: int, num_hidden_layers: int, hidden_size: int):
    from transformers import ViTConfig

    return ViTConfig(
        image_size=image_size,
        patch_size=max(1, image_size // 8) if image_size <= SMALL_IMAGE else 16,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
    )


def mlp(image_size: int, hidden_sizes: list[int]):
    from toolkit.models.mlp import MlpConfig

    return MlpConfig(image_size=image_size, hidden_sizes=hidden_sizes)


IMAGE_PRESETS: dict[str, ImagePreset] = {
    "resnet-tiny": ImagePreset(resnet, ("basic", [16, 32, 64], [1, 1, 1]), 32),
    "resnet-mini": ImagePreset(resnet, ("basic", [32, 64, 128], [2, 2, 2]), 32),
    "resnet-small": ImagePreset(resnet, ("basic", [64, 128, 256, 512], [2, 2, 2, 2]), 64),
    "resnet-base": ImagePreset(resnet, ("bottleneck", [256, 512, 1024, 2048], [3, 4, 6, 3]), 224),
    "resnet-fast": ImagePreset(fast_resnet, ([32, 128, 128],), 32),
    "resnet-fast-mini": ImagePreset(fast_resnet, ([32, 64, 128],), 32),
    "lenet-5": ImagePreset(lenet, (), 32),
    "googlenet-mini": ImagePreset(googlenet, (1 / 4,), 32),
    "googlenet-base": ImagePreset(googlenet, (1.0,), 224),
    "vit-tiny": ImagePreset(vit, (4, 128), 32),
    "vit-mini": ImagePreset(vit, (6, 192), 32),
    "vit-small": ImagePreset(vit, (12, 384), 64),
    "vit-base": ImagePreset(vit, (12, 768), 224),
    "mlp-tiny": ImagePreset(mlp, ([256],), 32),
    "mlp-mini": ImagePreset(mlp, ([512, 512],), 32),
}


def get_preset(name: str, family: str | None = None) -> Preset:
    """That of an encoder of text. Raises `InputError`, which names those of `family`, where `name` is none of them."""
    return _find(name, family, PRESETS)


def get_image_preset(name: str, family: str | None = None) -> ImagePreset:
    """The same for an encoder of images."""
    return _find(name, family, IMAGE_PRESETS)


def _find(name: str, family: str | None, presets: dict[str, Any]) -> Any:
    names = [preset for preset in presets if family is None or preset.startswith(f"{family}-")]
    if name not in names:
        raise InputError(f"unknown preset '{name}', expected one of {', '.join(names)}")
    return presets[name]
