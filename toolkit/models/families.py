"""The table of encoders: one row per family, with its sizes and how it is built, pretrained and described.

Whatever needs to know which encoders exist reads `FAMILIES`: presets, transformers' Auto classes, `toolkit pretrain`,
features, model cards, the contract tests and the documentation. A new encoder is one file in `toolkit/models` (or
anywhere else) and one row here (or `FAMILIES[...] = Family(...)` in a script of its own).

The sizes of BERT are those of Turc, Chang, Lee & Toutanova (2019), https://arxiv.org/abs/1908.08962; electra-small and
electra-base are those of Clark, Luong, Le & Manning (2020), https://arxiv.org/abs/2003.10555. Presets named tiny, mini
and small run on two CPU cores (minutes for tiny, half an hour for mini, hours for small); base needs a GPU.

This module imports neither torch nor transformers.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

PREFIX = "toolkit-"  # of the `model_type` of every encoder defined here
MAX_POSITIONS = 512  # of BERT and ELECTRA
SCRATCH = "scratch:"  # before the name of a preset or folder: the same network with random weights
OUTPUT_WORDS = "output_words"  # in the folder of an ELMo: the tokenizer of the words that it predicts
FEW_SHOT_FILE = "few_shot.json"  # in the folder of a few-shot classifier
SMALL_IMAGE = 64  # pixels; up to this size a network keeps the resolution in its first layer


class Preset(NamedTuple):
    """A named size of an encoder."""

    make: Callable[..., Any]  # builds the configuration from the vocabulary size or image size and then `sizes`
    sizes: tuple
    default_size: int  # usual vocabulary size (for ELMo and fastText: number of words), pixels, or frames

    def config(self, size: int) -> Any:
        """The configuration for that vocabulary size, image size in pixels or number of frames."""
        return self.make(size, *self.sizes)


_AUTO = {"ForConditionalGeneration": "ForSeq2SeqLM"}  # where the Auto class has another name than the classes


class Architecture(NamedTuple):
    """The classes of one `model_type`: they are named `prefix` plus `Config`, `Model` or the name of a head."""

    model_type: str
    module: str
    prefix: str
    heads: tuple[str, ...]  # such as ForTokenClassification
    feature_extractor: str | None = None  # of a model that reads recordings, a class of the module

    def classes(self) -> dict[str, str]:
        """The names of the classes, by the name of transformers' Auto class."""
        auto = {f"AutoModel{_AUTO.get(head, head.removeprefix('Model'))}": self.prefix + head for head in self.heads}
        extractor = {} if self.feature_extractor is None else {"AutoFeatureExtractor": self.feature_extractor}
        return {"AutoConfig": f"{self.prefix}Config", **auto, **extractor}


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    modality: str  # what the encoder reads, a key of `toolkit.modalities.MODALITIES`
    title: str  # what a model of this family is called in a sentence, with its article
    paper: str  # authors, year, title and URL
    presets: dict[str, Preset] = field(default_factory=dict)
    tokenizer: str | None = None  # the kind that it reads: wordpiece, word or bytes
    method: Any = None  # of `toolkit pretrain`: a `toolkit.pretraining.Method`, or where to find one, as `module:NAME`
    windows: str | None = None  # what `toolkit prepare` cuts a corpus into: pieces or words
    perplexity: str | None = None  # where to find the function that scores held-out text, as `module:NAME`
    architectures: tuple[Architecture, ...] = ()  # its classes, if transformers does not have them
    model_types: tuple[str, ...] = ()  # further values of `model_type`, of transformers' own classes
    first_word_id: int | None = None  # of the most frequent word, in a table of word vectors sorted by frequency

    @property
    def reader(self) -> str:
        """The title within a sentence: "a BERT"."""
        return self.title[0].lower() + self.title[1:]


def _own(name: str, prefix: str, *heads: str) -> Architecture:
    return Architecture(PREFIX + name, f"toolkit.models.{name.replace('-', '_')}", prefix, ("Model", *heads))


def _config(path: str, fields: tuple[str, ...], *values) -> Any:
    """Build a configuration of the class at `path`, `module:NAME`, from the values of its first `fields`."""
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)(**dict(zip(fields, values, strict=False)))


def _transformer_sizes(num_hidden_layers: int, hidden_size: int) -> dict[str, int]:
    return {
        "num_hidden_layers": num_hidden_layers,
        "hidden_size": hidden_size,
        "num_attention_heads": hidden_size // 64 if hidden_size % 64 == 0 else 1,
        "intermediate_size": 4 * hidden_size,
    }


def bert_config(vocab_size: int, *sizes: int):
    """The configuration of a BERT with that number of layers and that width."""
    from transformers import BertConfig

    return BertConfig(vocab_size=vocab_size, max_position_embeddings=MAX_POSITIONS, **_transformer_sizes(*sizes))


def _electra(vocab_size: int, num_hidden_layers: int, hidden_size: int, embedding_size: int, generator_size: float):
    from transformers import ElectraConfig

    config = ElectraConfig(
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        max_position_embeddings=MAX_POSITIONS,
        **_transformer_sizes(num_hidden_layers, hidden_size),
    )
    config.update({"generator_size": generator_size, "discriminator_weight": 50.0})  # read by pretraining only
    return config


def _resnet(image_size: int, layer_type: str, hidden_sizes: list[int], depths: list[int]):
    from transformers import ResNetConfig

    from toolkit.models.resnet import SmallImageResNetConfig

    config_class = SmallImageResNetConfig if image_size <= SMALL_IMAGE else ResNetConfig
    first = hidden_sizes[0] if layer_type == "basic" else 64
    return config_class(embedding_size=first, hidden_sizes=hidden_sizes, depths=depths, layer_type=layer_type)


def _fast_resnet(image_size: int, hidden_sizes: list[int]):
    return _config("toolkit.models.fast_resnet:FastResNetConfig", ("hidden_sizes",), hidden_sizes)


def _googlenet(image_size: int, width: float):
    from toolkit.models.googlenet import GoogLeNetConfig

    return GoogLeNetConfig(width=width, small_images=image_size <= SMALL_IMAGE)


def _vit(image_size: int, *sizes: int):
    from transformers import ViTConfig

    patch_size = max(1, image_size // 8) if image_size <= SMALL_IMAGE else 16
    return ViTConfig(image_size=image_size, patch_size=patch_size, **_transformer_sizes(*sizes))


_word2vec = partial(_config, "toolkit.models.word2vec:Word2VecConfig", ("vocab_size", "hidden_size"))
_fasttext = partial(_config, "toolkit.models.fasttext:FastTextConfig", ("vocab_size", "hidden_size", "num_buckets"))
_elmo = partial(
    _config,
    "toolkit.models.elmo:ElmoConfig",
    ("output_vocab_size", "hidden_size", "char_filters", "num_highway_layers"),
)
_rnn = partial(
    _config,
    "toolkit.models.rnn:RnnConfig",
    ("vocab_size", "cell", "hidden_size", "num_hidden_layers"),
)


def _ast(max_length: int, *sizes: int):
    from transformers import ASTConfig

    return ASTConfig(max_length=max_length, **_transformer_sizes(*sizes))


_lenet = partial(_config, "toolkit.models.lenet:LeNetConfig", ("image_size",))
_mlp = partial(_config, "toolkit.models.mlp:MlpConfig", ("image_size", "hidden_sizes"))
_TEXT_HEADS = ("ForTokenClassification", "ForSequenceClassification")
_IMAGE_HEADS = ("ForImageClassification",)

FAMILIES: dict[str, Family] = {
    "word2vec": Family(
        modality="text",
        title="A word2vec model",
        paper="Mikolov et al. (2013), Distributed representations of words and phrases, "
        "https://arxiv.org/abs/1310.4546",
        tokenizer="word",
        method="toolkit.pretraining.word2vec:METHOD",
        architectures=(_own("word2vec", "Word2Vec", *_TEXT_HEADS),),
        first_word_id=5,
        presets={
            "word2vec-tiny": Preset(_word2vec, (64,), 30_000),
            "word2vec-mini": Preset(_word2vec, (100,), 100_000),
            "word2vec-small": Preset(_word2vec, (200,), 200_000),
            "word2vec-base": Preset(_word2vec, (300,), 1_000_000),
        },
    ),
    "fasttext": Family(
        modality="text",
        title="A fastText model",
        paper="Bojanowski et al. (2017), Enriching word vectors with subword information, "
        "https://arxiv.org/abs/1607.04606",
        tokenizer="bytes",
        method="toolkit.pretraining.fasttext:METHOD",
        architectures=(_own("fasttext", "FastText", *_TEXT_HEADS),),
        first_word_id=517,
        presets={
            "fasttext-tiny": Preset(_fasttext, (64, 50_000), 30_000),
            "fasttext-mini": Preset(_fasttext, (100, 200_000), 100_000),
            "fasttext-small": Preset(_fasttext, (200, 500_000), 200_000),
            "fasttext-base": Preset(_fasttext, (300, 2_000_000), 1_000_000),
        },
    ),
    "elmo": Family(
        modality="text",
        title="An ELMo-style bidirectional LSTM",
        paper="Peters et al. (2018), Deep contextualized word representations, https://arxiv.org/abs/1802.05365",
        tokenizer="bytes",
        method="toolkit.pretraining.elmo:METHOD",
        windows="words",
        perplexity="toolkit.pretraining.perplexity:perplexity",
        architectures=(_own("elmo", "Elmo", *_TEXT_HEADS, "ForPreTraining"),),
        presets={
            "elmo-tiny": Preset(_elmo, (128, [[1, 16], [2, 32], [3, 48], [4, 64]]), 10_000),
            "elmo-mini": Preset(_elmo, (256, [[1, 32], [2, 64], [3, 96], [4, 128], [5, 160], [6, 192]]), 30_000),
            "elmo-small": Preset(_elmo, (512, [[1, 32], [2, 64], [3, 128], [4, 192], [5, 256], [6, 256]]), 50_000),
            "elmo-base": Preset(_elmo, (1024, [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512]], 2), 200_000),
        },
    ),
    "rnn": Family(
        modality="text",
        title="A recurrent network",
        paper="Elman (1990), Finding structure in time, https://doi.org/10.1207/s15516709cog1402_1",
        tokenizer="wordpiece",
        method="toolkit.pretraining.rnn:METHOD",
        windows="pieces",
        perplexity="toolkit.pretraining.perplexity:perplexity_of_tokens",
        architectures=(_own("rnn", "Rnn", *_TEXT_HEADS, "ForPreTraining"),),
        presets={
            f"{cell}-{size}": Preset(_rnn, (cell, *sizes), vocab_size)
            for cell in ("rnn", "gru", "lstm")
            for size, sizes, vocab_size in (
                ("tiny", (128, 1), 4_096),
                ("mini", (256, 2), 8_192),
                ("small", (512, 2), 16_384),
                ("base", (1024, 4), 30_522),
            )
        },
    ),
    "bert": Family(
        modality="text",
        title="A BERT",
        paper="Devlin et al. (2019), BERT, https://arxiv.org/abs/1810.04805",
        tokenizer="wordpiece",
        method="toolkit.pretraining.bert:METHOD",
        windows="pieces",
        model_types=("bert",),
        presets={
            "bert-tiny": Preset(bert_config, (2, 128), 4_096),
            "bert-mini": Preset(bert_config, (4, 256), 8_192),
            "bert-small": Preset(bert_config, (4, 512), 16_384),
            "bert-base": Preset(bert_config, (12, 768), 30_522),
        },
    ),
    "electra": Family(
        modality="text",
        title="An ELECTRA",
        paper="Clark et al. (2020), ELECTRA, https://arxiv.org/abs/2003.10555",
        tokenizer="wordpiece",
        method="toolkit.pretraining.electra:METHOD",
        windows="pieces",
        model_types=("electra",),
        presets={
            "electra-tiny": Preset(_electra, (2, 128, 128, 1 / 2), 4_096),
            "electra-mini": Preset(_electra, (4, 256, 128, 1 / 4), 8_192),
            "electra-small": Preset(_electra, (12, 256, 128, 1 / 4), 30_522),
            "electra-base": Preset(_electra, (12, 768, 768, 1 / 3), 30_522),
        },
    ),
    "resnet": Family(
        modality="image",
        title="A ResNet",
        paper="He et al. (2016), Deep residual learning, https://arxiv.org/abs/1512.03385",
        method="toolkit.pretraining.supervised:RESNET",
        architectures=(
            Architecture("toolkit-resnet", "toolkit.models.resnet", "SmallImageResNet", ("Model", *_IMAGE_HEADS)),
            _own("fast-resnet", "FastResNet", *_IMAGE_HEADS),
        ),
        model_types=("resnet",),
        presets={
            "resnet-tiny": Preset(_resnet, ("basic", [16, 32, 64], [1, 1, 1]), 32),
            "resnet-mini": Preset(_resnet, ("basic", [32, 64, 128], [2, 2, 2]), 32),
            "resnet-small": Preset(_resnet, ("basic", [64, 128, 256, 512], [2, 2, 2, 2]), 64),
            "resnet-base": Preset(_resnet, ("bottleneck", [256, 512, 1024, 2048], [3, 4, 6, 3]), 224),
            "resnet-fast": Preset(_fast_resnet, ([32, 128, 128],), 32),
            "resnet-fast-mini": Preset(_fast_resnet, ([32, 64, 128],), 32),
        },
    ),
    "googlenet": Family(
        modality="image",
        title="A GoogLeNet",
        paper="Szegedy et al. (2015), Going deeper with convolutions, https://arxiv.org/abs/1409.4842",
        method="toolkit.pretraining.supervised:GOOGLENET",
        architectures=(_own("googlenet", "GoogLeNet", *_IMAGE_HEADS),),
        presets={
            "googlenet-mini": Preset(_googlenet, (1 / 4,), 32),
            "googlenet-base": Preset(_googlenet, (1.0,), 224),
        },
    ),
    "lenet": Family(
        modality="image",
        title="A LeNet",
        paper="LeCun et al. (1998), Gradient-based learning, https://doi.org/10.1109/5.726791",
        method="toolkit.pretraining.supervised:LENET",
        architectures=(_own("lenet", "LeNet", *_IMAGE_HEADS),),
        presets={"lenet-5": Preset(_lenet, (), 32)},
    ),
    "vit": Family(
        modality="image",
        title="A ViT",
        paper="Dosovitskiy et al. (2021), An image is worth 16x16 words, https://arxiv.org/abs/2010.11929",
        method="toolkit.pretraining.supervised:VIT",
        model_types=("vit",),
        presets={
            "vit-tiny": Preset(_vit, (4, 128), 32),
            "vit-mini": Preset(_vit, (6, 192), 32),
            "vit-small": Preset(_vit, (12, 384), 64),
            "vit-base": Preset(_vit, (12, 768), 224),
        },
    ),
    "mlp": Family(
        modality="image",
        title="A multilayer perceptron",
        paper="Rumelhart et al. (1986), Learning representations by back-propagating errors, "
        "https://doi.org/10.1038/323533a0",
        method="toolkit.pretraining.supervised:MLP",
        architectures=(_own("mlp", "Mlp", *_IMAGE_HEADS),),
        presets={
            "mlp-tiny": Preset(_mlp, ([256],), 32),
            "mlp-mini": Preset(_mlp, ([512, 512],), 32),
        },
    ),
    "ast": Family(
        modality="audio",
        title="An audio spectrogram transformer",
        paper="Gong, Chung & Glass (2021), AST, https://arxiv.org/abs/2104.01778",
        model_types=("audio-spectrogram-transformer",),
        presets={
            "ast-tiny": Preset(_ast, (4, 128), 100),
            "ast-mini": Preset(_ast, (6, 192), 100),
            "ast-small": Preset(_ast, (12, 384), 1024),
            "ast-base": Preset(_ast, (12, 768), 1024),
        },
    ),
}

# Models around an encoder of any family.
WRAPPERS: tuple[Architecture, ...] = (
    Architecture("toolkit-pooled", "toolkit.models.pooling", "Pooled", ("Model", *_IMAGE_HEADS)),
    Architecture(
        "toolkit-spectrogram",
        "toolkit.models.spectrogram",
        "Spectrogram",
        ("Model", "ForAudioClassification"),
        "LogMelFeatureExtractor",
    ),
    Architecture("toolkit-layer-mix", "toolkit.models.layer_mix", "LayerMix", _TEXT_HEADS),
    Architecture("toolkit-seq2seq", "toolkit.models.seq2seq", "Seq2Seq", ("ForConditionalGeneration",)),
    Architecture(
        "toolkit-few-shot",
        "toolkit.models.few_shot_head",
        "FewShot",
        ("ForSequenceClassification", "ForImageClassification", "ForAudioClassification"),
    ),
)


def presets(modality: str | None = None, family: str | None = None) -> dict[str, Preset]:
    """All presets by name, or those of a modality or family."""
    return {
        preset_name: preset
        for name, row in FAMILIES.items()
        if family in (None, name) and modality in (None, row.modality)
        for preset_name, preset in row.presets.items()
    }


def family_of_preset(preset: str) -> Family:
    """The row that a preset is from."""
    return next(row for row in FAMILIES.values() if preset in row.presets)


def family_of(model_type: str) -> Family | None:
    """The row of a `model_type`; None for an encoder of another kind."""
    for row in FAMILIES.values():
        if model_type in (*row.model_types, *(each.model_type for each in row.architectures)):
            return row
    return None


def architectures() -> list[Architecture]:
    """The classes of every encoder and wrapper that transformers does not have."""
    return [each for row in FAMILIES.values() for each in row.architectures] + list(WRAPPERS)
