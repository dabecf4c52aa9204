"""Load an encoder by name: from a folder, a Hub id, or `scratch:PRESET` (random weights).

`scratch:FOLDER` is the network and the processor of a folder with random weights, and `scratch:timm/NAME` a timm
architecture.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.corpora.blocks import chunks_of, content_hash
from toolkit.data.cache import digest
from toolkit.errors import InputError, extra, first_line
from toolkit.hub.download import local_copy
from toolkit.modalities import MODALITIES, Modality, modality_of
from toolkit.models.families import FEW_SHOT_FILE, SCRATCH, family_of_preset, presets

TIMM = "timm/"
_POOLERS = (".pooler.", ".pooling.")
_LAYER = re.compile(r"(?:^|\.|_)(layers?|blocks?|stages?|h)\.(\d+)\.")


def load_config(name: str):
    """The configuration in a folder or on the Hub. Raises `InputError` if there is none, or if it needs code."""
    from transformers import AutoConfig

    from toolkit.models import register

    register()  # also rows that a script has added to `FAMILIES`
    folder = local_copy(name)
    if (folder / FEW_SHOT_FILE).is_file():
        raise InputError(f"{name}: a few-shot classifier, to be used by: toolkit fewshot predict --encoder {name}")
    if not (folder / "config.json").is_file():
        raise InputError(f"{name}: no config.json in this folder, expected a checkpoint")
    try:
        with extra("images"):  # timm, if the checkpoint is one of its networks
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{name}: a class of model that neither transformers nor this toolkit has; code that comes with a "
                "checkpoint is not run here"
            ) from None
        raise InputError(f"{name}: {first_line(error)}") from None
    config.__dict__.pop("auto_map", None)  # a model that is saved from it does not come with that code
    return config


def content_of_encoder(name: str) -> str:
    """A hash of the configuration and the weights of an encoder; of the name of one with random weights."""
    if name.startswith(SCRATCH):
        return digest(name)
    folder = local_copy(name)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return digest([content_hash(chunks_of(str(file))) for file in files if file.is_file()])


def modality_of_encoder(name: str, given: str | None = None) -> Modality:
    """What an encoder reads: what the user has `given`, or by its name or configuration. Raises `InputError`."""
    if given is not None:
        if given not in MODALITIES:
            raise InputError(f"--modality {given}: expected one of {', '.join(MODALITIES)}")
        return MODALITIES[given]
    source = name.removeprefix(SCRATCH)
    if name.startswith(SCRATCH) and source in presets():
        return MODALITIES[family_of_preset(source).modality]
    if name.startswith(SCRATCH) and source.startswith(TIMM):
        return MODALITIES["image"]
    return modality_of(load_config(source))


def load_encoder(
    name: str, auto_class: str, modality: Modality, options: Any = None, train_rows=None, **config_fields: Any
) -> tuple[Any, Any]:
    """Load an encoder under a head, and its tokenizer or image processor.

    Random weights come from torch's generator: seed it first. Raises `InputError` if nothing can be loaded, weights
    are missing, or processor and model do not fit.

    Args:
        name: A folder, a Hub id, or one of the `scratch:` names.
        auto_class: The name of transformers' Auto class of the head, such as `AutoModelForTokenClassification`.
        modality: What the encoder has to read.
        options: The group of flags `modality.encoder_arguments`.
        train_rows: Training data, to which the processor of a preset is fitted.
        config_fields: Values for the configuration, such as the labels; then a head of the checkpoint that does not
            fit is replaced by a new one.
    """
    options = options or modality.encoder_arguments()
    is_scratch = name.startswith(SCRATCH)
    source = name.removeprefix(SCRATCH)
    known = modality.presets()
    if is_scratch and source in known:
        processor = modality.new_processor(source, options, train_rows)
        config = modality.new_config(source, options, processor)
    elif is_scratch and "/" not in source and not Path(source).is_dir():
        raise InputError(f"--encoder {name}: no such folder or preset, the presets are {', '.join(known)}")
    else:
        if is_scratch and source.startswith(TIMM):
            from toolkit.modalities.pixels import timm_config  # needs the extra `images`

            config = timm_config(source)
        else:
            config = load_config(source)
        processor = modality.load_processor(source, config, options)
    with _explain_loading_errors(name, auto_class, config):
        config, processor, is_wrapped = modality.apply_options(source, config, processor, options)
    for field, value in config_fields.items():
        setattr(config, field, value)
    model = load_model(name, auto_class, config, is_wrapped, has_new_head=bool(config_fields))
    modality.finish(model, processor, train_rows, is_scratch)
    return model, processor


def load_model(
    name: str, auto_class: str, config, is_wrapped: bool = False, has_new_head: bool = False, new_layers: str = ""
):
    """The model of a configuration: with random weights for a scratch encoder, else with those of the checkpoint.

    Args:
        name: A folder, a Hub id, or one of the `scratch:` names.
        auto_class: The name of transformers' Auto class.
        is_wrapped: The configuration is that of a model around the encoder, which has the method `load_encoder`.
        has_new_head: A head of the checkpoint that does not fit the configuration is replaced by a new one.
        new_layers: In the names of parameters that the checkpoint may lack.

    Raises:
        InputError: The weights are missing or do not fit.
    """
    import transformers

    is_scratch = name.startswith(SCRATCH)
    loader: Any = getattr(transformers, auto_class)
    has_crf = auto_class == "AutoModelForTokenClassification" and getattr(config, "tagging_head", None) == "crf"
    if has_crf:
        from toolkit.models.crf import with_crf

        loader = with_crf(transformers.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(config)])
    with _explain_loading_errors(name, auto_class, config):
        if is_scratch or is_wrapped:
            model = getattr(loader, "from_config", loader)(config)
            if is_scratch:
                return model
            loading = model.load_encoder(local_copy(name))
        else:
            model, loading = loader.from_pretrained(
                local_copy(name),
                config=config,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=has_new_head,  # with other labels the head of the checkpoint is replaced
            )
    keys = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    keys = [key for key in keys if not new_layers or new_layers not in key]
    if missing := _encoder_parameters(model, keys):
        raise InputError(f"{name}: the weights of {missing[0]} and {len(missing) - 1} others are not in it")
    return model


@contextmanager
def _explain_loading_errors(name: str, auto_class: str, config) -> Iterator[None]:
    """Turn the exceptions of transformers into `InputError`."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{name}: {first_line(error)}") from None
    except KeyError:
        raise InputError(f"{name}: {type(config).__name__} has no {auto_class.removeprefix('AutoModel')}") from None


def _encoder_parameters(model, names: Iterable[str]) -> list[str]:
    """The parameters of the encoder. A pooler counts as part of the head, because pretraining leaves it untrained."""
    if hasattr(model, "timm_model"):  # the head is one of its layers
        head = model.timm_model.get_classifier()
        (prefix,) = (f"{name}." for name, module in model.named_modules() if module is head)
        return [name for name in names if not name.startswith(prefix)]
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    return [name for name in names if name.startswith(prefix) and not any(p in f".{name}" for p in _POOLERS)]


def layer_depths(model) -> dict[str, int]:
    """The depth of every parameter below the output: 0 for the head, 1 for the top layer of the encoder, then down to
    the embeddings."""
    heights = _layer_heights(model)
    heights = {name: heights[name] for name in _encoder_parameters(model, heights)}
    top = max(heights.values(), default=0) + 1
    return {name: top - heights.get(name, top) for name, _ in model.named_parameters()}


def _layer_heights(model) -> dict[str, int]:
    """The height of every parameter above the input."""
    if hasattr(model, "timm_model"):
        from timm.models import group_parameters

        groups = group_parameters(model.timm_model, model.timm_model.group_matcher(), reverse=True)
        return {f"timm_model.{name}": group for name, group in groups.items()}
    heights, highest = {}, 0
    for name, _ in model.named_parameters():
        layer = _LAYER.search(name)
        heights[name] = int(layer[2]) + 1 if layer else highest  # 0 before all layers; after them like the top one
        highest = max(highest, heights[name])
    return heights
