"""Take an encoder by name: a folder, a Hub id, or `scratch:` and a preset or folder for random weights."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, extra, first_line
from toolkit.hub.download import local_copy
from toolkit.models import PREFIX

FEW_SHOT_FILE = "few_shot.json"  # in the folder of a few-shot classifier
SCRATCH = "scratch:"
TIMM = "timm/"
POOLED = "toolkit-pooled"
_POOLERS = (".pooler.", ".pooling.")
_LAYER = re.compile(r"(?:^|\.|_)(layers?|blocks?|stages?|h)\.(\d+)\.")


def load_config(name: str):
    """The configuration in a folder or on the Hub. Raises `InputError`, also where it asks for code to be run."""
    from transformers import AutoConfig

    folder = local_copy(name)
    if (folder / FEW_SHOT_FILE).is_file():
        raise InputError(f"{name}: a few-shot classifier, to be used by: toolkit fewshot predict --encoder {name}")
    if not (folder / "config.json").is_file():
        raise InputError(f"{name}: no config.json in this folder, expected a checkpoint")
    try:
        with extra("images"):  # timm, where the checkpoint is one of its networks
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{name}: a class of model that neither transformers nor this toolkit has; code that comes with a "
                "checkpoint is not run here"
            ) from None
        raise InputError(f"{name}: {first_line(error)}") from None
    config.__dict__.pop("auto_map", None)  # what is made from it does not come with that code
    return config


def load_encoder(
    name: str, model_class: str, tokenizer_name: str | None = None, mix_layers: bool = False, **config_fields: Any
):
    """The encoder `name` under a head of transformers' class `model_class`, and its tokenizer.

    `scratch:FOLDER` is the same network and tokenizer as in FOLDER with new weights; `scratch:PRESET` needs
    `tokenizer_name`. With `mix_layers` the head reads a mix of the layers of an encoder of transformers; the heads of
    this package's own read what they always do. `config_fields`, such as the labels, go into the configuration. Random
    weights are drawn from torch's generator: seed it first.

    Raises `InputError` where nothing can be loaded, weights are missing, or the tokenizer does not fit the model.
    """
    import transformers

    from toolkit.corpora.tokenization import load_tokenizer, spells_words
    from toolkit.models.families import PRESETS

    auto_class = getattr(transformers, model_class)
    is_scratch = name.startswith(SCRATCH)
    source = name.removeprefix(SCRATCH)
    if is_scratch and "/" not in source and not Path(source).is_dir() and source not in PRESETS:
        raise InputError(f"--encoder {name}: no such folder or preset, the presets are {', '.join(PRESETS)}")
    if is_scratch and source in PRESETS:
        if tokenizer_name is None:
            raise InputError(f"--encoder {name}: give a --tokenizer too")
        tokenizer = load_tokenizer(tokenizer_name)
        if PRESETS[source].tokenizer_kind == "bytes" and not spells_words(tokenizer):
            raise InputError(
                f"{tokenizer_name}: the tokenizer does not fit {source}, which reads bytes of words; "
                "make one with: toolkit tokenizer --kind bytes"
            )
        config = PRESETS[source].config(len(tokenizer))
    else:
        config = load_config(source)
        tokenizer = load_tokenizer(tokenizer_name or source)
    mix_layers = mix_layers and not config.model_type.startswith(PREFIX)
    if mix_layers:
        from toolkit.models.layer_mix import LayerMixConfig

        config = LayerMixConfig(encoder=config.to_dict())
    for field, value in config_fields.items():
        setattr(config, field, value)
    if len(tokenizer) > getattr(config, "vocab_size", len(tokenizer)):
        raise InputError(
            f"{tokenizer_name or source}: the tokenizer has {len(tokenizer)} entries and does not fit the encoder "
            f"{source}, which has {config.vocab_size}; give the one that it was pretrained with"
        )
    if model_class == "AutoModelForTokenClassification" and getattr(config, "tagging_head", None) == "crf":
        from toolkit.models.crf import with_crf

        auto_class = with_crf(auto_class._model_mapping[type(config)])
    if mix_layers and not is_scratch:
        return _load_wrapped(name, source, model_class, auto_class, config), tokenizer
    return _load_model(name, source, model_class, auto_class, config, has_new_head=bool(config_fields)), tokenizer


def load_image_encoder(
    name: str,
    model_class: str,
    image_size: int | None = None,
    train_rows=None,
    pooling: str | None = None,
    keep_size: bool = False,
    **config_fields: Any,
):
    """The encoder `name` under a head of transformers' class `model_class`, and its image processor.

    For `scratch:PRESET` images are normalised as `train_rows`, labelled images, say; `scratch:timm/NAME` is timm's
    network of that name. Otherwise as `load_encoder`, and `image_size` takes the place of the encoder's own. `pooling`
    is one of `toolkit.models.pooling`; under it, with `keep_size`, images stay as large as they are.
    """
    import transformers

    from toolkit.modalities.pixels import keep_sizes, load_processor, new_processor, normalised, set_size, timm_config
    from toolkit.models.depthwise import speed_up_depthwise
    from toolkit.models.families import IMAGE_PRESETS

    is_scratch = name.startswith(SCRATCH)
    source = name.removeprefix(SCRATCH)
    if is_scratch and source in IMAGE_PRESETS:
        preset = IMAGE_PRESETS[source]
        size = image_size or preset.image_size
        config, processor = preset.config(size), new_processor(size, train_rows)
    elif is_scratch and "/" not in source and not Path(source).is_dir():
        raise InputError(f"--encoder {name}: no such folder or preset, the presets are {', '.join(IMAGE_PRESETS)}")
    else:
        config = timm_config(source) if is_scratch and source.startswith(TIMM) else load_config(source)
        processor = load_processor(source, config)
        if image_size is not None:
            set_size(config, processor, image_size)
    is_wrapped = pooling is not None and config.model_type != POOLED
    if is_wrapped:
        config, processor = _pooled(name, config, processor)
    if pooling is not None:
        config.pooling = pooling
    for field, value in config_fields.items():
        setattr(config, field, value)
    auto_class = getattr(transformers, model_class)
    if is_wrapped and not is_scratch:
        model = _load_wrapped(name, source, model_class, auto_class, config)
    else:
        model = _load_model(name, source, model_class, auto_class, config, has_new_head=bool(config_fields))
    for module in model.modules():
        if is_scratch and hasattr(module, "whiten"):
            module.whiten(normalised(train_rows, processor))
    speed_up_depthwise(model)
    if keep_size:
        keep_sizes(config, processor)
    return model, processor


def _pooled(name: str, config, processor):
    """The configuration of the encoder under a pooling by choice, and a processor that goes with it."""
    import torch
    import transformers

    from toolkit.modalities.pixels import without_timm
    from toolkit.models.pooling import PooledConfig

    with _loading_explained(name, "AutoModel", config), torch.random.fork_rng(devices=()), torch.no_grad():
        encoder = transformers.AutoModel.from_config(config).eval()
        size = config.pretrained_cfg["input_size"][-1] if hasattr(config, "pretrained_cfg") else _size(config)
        maps = encoder(torch.zeros(1, 3, size, size)).last_hidden_state
    if maps is None or maps.dim() != 4:
        raise InputError(f"--pooling: {name} is no convolutional network, there are no maps of features to pool")
    return PooledConfig(encoder=config.to_dict(), hidden_size=maps.shape[1]), without_timm(processor)


def _size(config) -> int:
    """Pixels of an image that the encoder takes."""
    size = getattr(config, "image_size", None) or 64
    return size if isinstance(size, int) else size[0]


def _load_wrapped(name: str, source: str, model_class: str, auto_class, config):
    """The model of a configuration that holds an encoder's, which is loaded into it."""
    model = auto_class._model_mapping[type(config)](config)
    with _loading_explained(name, model_class, config):
        loading = model.load_encoder(local_copy(source))
    _check_that_all_is_there(name, model, loading)
    return model


def _load_model(name: str, source: str, model_class: str, auto_class, config, has_new_head: bool):
    """The model of a configuration, with new weights for a scratch encoder, else with those of `source`."""
    with _loading_explained(name, model_class, config):
        if name.startswith(SCRATCH):
            return getattr(auto_class, "from_config", auto_class)(config)
        model, loading = auto_class.from_pretrained(
            local_copy(source),
            config=config,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=has_new_head,  # other labels: the head of another task gives way
        )
    _check_that_all_is_there(name, model, loading)
    return model


@contextmanager
def _loading_explained(name: str, model_class: str, config) -> Iterator[None]:
    """Raises `InputError` in the place of what transformers raises."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{name}: {first_line(error)}") from None
    except KeyError:
        raise InputError(f"{name}: {type(config).__name__} has no {model_class.removeprefix('AutoModel')}") from None


def _check_that_all_is_there(name: str, model, loading: dict[str, Any]) -> None:
    """Raises `InputError` where weights are missing that are not of the head."""
    keys = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    if missing := _of_encoder(model, keys):
        raise InputError(f"{name}: the weights of {missing[0]} and {len(missing) - 1} others are not in it")


def _of_encoder(model, names: Iterable[str]) -> list[str]:
    """The names of those parameters that are none of the head's, to which a pooler belongs that pretraining leaves
    untrained."""
    if hasattr(model, "timm_model"):  # its head is one of its own layers
        head = model.timm_model.get_classifier()
        (prefix,) = (f"{name}." for name, module in model.named_modules() if module is head)
        return [name for name in names if not name.startswith(prefix)]
    return [
        name
        for name in names
        if name.startswith(f"{model.base_model_prefix}.") and not any(p in name for p in _POOLERS)
    ]


def layers_below_head(model) -> dict[str, int]:
    """How deep the parameter of each name lies: 0 the head, 1 the top layer of the encoder, then the embeddings."""
    heights = _heights(model)
    heights = {name: heights[name] for name in _of_encoder(model, heights)}
    top = max(heights.values(), default=0) + 1
    return {name: top - heights.get(name, top) for name, _ in model.named_parameters()}


def _heights(model) -> dict[str, int]:
    """How high the parameter of each name lies, counted from the input."""
    if hasattr(model, "timm_model"):
        from timm.models import group_parameters

        groups = group_parameters(model.timm_model, model.timm_model.group_matcher(), reverse=True)
        return {f"timm_model.{name}": group for name, group in groups.items()}
    heights, highest = {}, 0
    for name, _ in model.named_parameters():
        layer = _LAYER.search(name)
        heights[name] = int(layer[2]) + 1 if layer else highest  # 0 before all layers, after them as the top one
        highest = max(highest, heights[name])
    return heights
