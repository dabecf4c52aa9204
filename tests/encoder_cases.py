"""A small configuration, the classes and the inputs of every encoder in the table, for the tests of the contract."""

import importlib
from typing import Any, NamedTuple

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from toolkit.models import register
from toolkit.models.bert import BertForMaskedLM
from toolkit.models.electra import ElectraForPreTraining
from toolkit.models.families import FAMILIES, WRAPPERS, Architecture, architectures, family_of

NUM_LABELS = 4
SMALL_SIZES = {"text": 600, "image": 32, "audio": 40}  # entries of a vocabulary, pixels, frames
SMALL_FIELDS = {"num_labels": NUM_LABELS, "num_buckets": 50, "output_vocab_size": 50, "num_mel_bins": 32}
MODALITY_OF_INPUT = {"input_ids": "text", "pixel_values": "image", "input_values": "audio"}
HEADS = {
    "text": ("ForTokenClassification", "ForSequenceClassification"),
    "image": ("ForImageClassification",),
    "audio": ("ForAudioClassification",),
}
# [CLS], two words of several bytes, a word of one, [SEP]; then a shorter sentence with padding.
INPUT_IDS = torch.tensor([[2, 70, 330, 331, 71, 332, 40, 3], [2, 71, 332, 3, 0, 0, 0, 0]])
ATTENTION_MASK = (INPUT_IDS != 0).long()
WORD_LABELS = torch.tensor([[-100, 9, 8, 7, 3], [-100, 8, 3, -100, -100]])
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SPECTROGRAMS = torch.randn(4, 40, 32, generator=torch.Generator().manual_seed(0))

register()


def small_configs() -> dict[str, PreTrainedConfig]:
    """By `model_type`: the first preset that has it, with few n-grams and output words."""
    found: dict[str, PreTrainedConfig] = {}
    for family in FAMILIES.values():
        every = family.presets.values()
        small = SMALL_SIZES[family.modality]
        for preset, size in [*((preset, small) for preset in every), *((p, p.default_size) for p in every)]:
            config = preset.config(size)
            if config.model_type not in found:
                config.update({name: value for name, value in SMALL_FIELDS.items() if hasattr(config, name)})
                found[config.model_type] = config
    return found


CONFIGS = small_configs()
CONFIGS_OF_WRAPPERS: dict[str, dict[str, Any]] = {  # by `model_type`, and by the name of the Auto class
    "toolkit-pooled": {"": {"encoder": CONFIGS["toolkit-resnet"].to_dict(), "hidden_size": 64, "pooling": "gem"}},
    "toolkit-spectrogram": {"": {"encoder": CONFIGS["toolkit-resnet"].to_dict(), "hidden_size": 64}},
    "toolkit-layer-mix": {"": {"encoder": CONFIGS["bert"].to_dict()}},
    "toolkit-seq2seq": {
        "": {"encoder": CONFIGS["toolkit-rnn"].to_dict(), "encoder_width": 256, "vocab_size": NUM_LABELS}
    },
    "toolkit-few-shot": {
        "AutoModelForSequenceClassification": {
            "encoder": CONFIGS["toolkit-word2vec"].to_dict(),
            "hidden_size": 64,
            "num_points": NUM_LABELS,
            "num_tokens": SMALL_SIZES["text"],
            "metric": "linear",
        },
        "AutoModelForAudioClassification": {
            "encoder": {
                "model_type": "toolkit-spectrogram",
                "encoder": CONFIGS["toolkit-resnet"].to_dict(),
                "hidden_size": 64,
            },
            "hidden_size": 64,
            "num_points": NUM_LABELS,
            "metric": "linear",
        },
        "AutoModelForImageClassification": {
            "encoder": CONFIGS["toolkit-resnet"].to_dict(),
            "hidden_size": 64,
            "num_points": NUM_LABELS,
            "metric": "linear",
        },
    },
}


class Case(NamedTuple):
    """A class of model, the configuration that it is tested with, and what it reads."""

    model_class: type[PreTrainedModel]
    auto_class: str | None  # None for classes that only pretraining uses
    config: PreTrainedConfig
    modality: str

    def make(self) -> PreTrainedModel:
        torch.manual_seed(0)
        return self.model_class(self.config).eval()

    @property
    def rounding(self) -> float:
        """By how much outputs of the same weights may differ: those of the 50 layers of transformers' ResNet do."""
        return 1e-4 if self.config.model_type == "resnet" else 0.0

    @property
    def has_loss(self) -> bool:
        return "For" in self.model_class.__name__

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        if self.modality == "text":
            return {"input_ids": INPUT_IDS, "attention_mask": ATTENTION_MASK}
        return {"input_values": SPECTROGRAMS} if self.modality == "audio" else {"pixel_values": IMAGES}

    @property
    def labels(self) -> torch.Tensor:
        if self.modality != "text":
            return torch.tensor([0, 1, 2, 1])
        if self.model_class.__name__ == "ElmoForPreTraining":
            return WORD_LABELS
        if self.model_class.__name__.endswith("ForSequenceClassification"):
            return torch.tensor([1, 3])
        return torch.where(ATTENTION_MASK.bool(), INPUT_IDS % NUM_LABELS, -100)


def _cases_of_table() -> list[Case]:
    own = {architecture.model_type: architecture for architecture in architectures()}
    cases = []
    for model_type, config in CONFIGS.items():
        modality = family_of(model_type).modality
        if model_type in own:
            cases += [Case(cls, auto, config, modality) for auto, cls in _classes(own[model_type]).items()]
        else:
            for auto in ("AutoModel", *(f"AutoModel{head}" for head in HEADS[modality])):
                cases.append(Case(type(getattr(transformers, auto).from_config(config)), auto, config, modality))
    return cases


def _cases_of_wrappers() -> list[Case]:
    cases = []
    for architecture in WRAPPERS:
        fields = CONFIGS_OF_WRAPPERS[architecture.model_type]
        for auto, model_class in _classes(architecture).items():
            config = model_class.config_class(**fields.get(auto, fields.get("")), num_labels=NUM_LABELS)
            modality = MODALITY_OF_INPUT[model_class.main_input_name]
            cases.append(Case(model_class, auto, config, modality))
    return cases


def _classes(architecture: Architecture) -> dict[str, type[PreTrainedModel]]:
    """The classes of models by the name of the Auto class."""
    module = importlib.import_module(architecture.module)
    return {auto: getattr(module, name) for auto, name in architecture.classes().items() if "AutoModel" in auto}


PRETRAINING = [
    Case(BertForMaskedLM, None, CONFIGS["bert"], "text"),
    Case(ElectraForPreTraining, None, CONFIGS["electra"], "text"),
]
CASES = [*_cases_of_table(), *_cases_of_wrappers(), *PRETRAINING]


def case_of(model_class: type[PreTrainedModel]) -> Case:
    return next(case for case in CASES if case.model_class is model_class)


def floats(output) -> dict[str, torch.Tensor]:
    """The tensors of floating-point numbers in the output of a model."""
    return {k: v for k, v in output.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
