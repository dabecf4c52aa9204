"""Take an encoder by name: a folder, a Hub id, or `scratch:` and a preset or folder for random weights."""

import re
from pathlib import Path
from typing import Any

from toolkit.errors import InputError

SCRATCH = "scratch:"
_POOLER = ".pooler."
_LAYER = re.compile(r"(?:^|\.|_)(layers?|blocks?|stages?|h)\.(\d+)\.")


def load_config(name: str):
    """The configuration in a folder or on the Hub. Raises `InputError`."""
    from transformers import AutoConfig

    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"{name}: no config.json in this folder, expected a checkpoint")
    elif name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(f"{name}: no such folder, expected a checkpoint or a Hub id like org/name")
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {_explain(error)}") from None


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
    from safetensors import SafetensorError

    from toolkit.presets import PRESETS
    from toolkit.tokenization import load_tokenizer, spells_words

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
    mix_layers = mix_layers and not config.model_type.startswith("toolkit-")
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
    try:
        if model_class == "AutoModelForTokenClassification" and getattr(config, "tagging_head", None) == "crf":
            from toolkit.models.crf import with_crf

            auto_class = with_crf(auto_class._model_mapping[type(config)])
        if is_scratch:
            build = getattr(auto_class, "from_config", auto_class)
            return build(config), tokenizer
        if mix_layers:
            model = auto_class._model_mapping[type(config)](config)
            loading = model.load_encoder(source)
        else:
            model, loading = auto_class.from_pretrained(
                source,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=bool(config_fields),  # other labels: the head of another task gives way
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{name}: {_explain(error)}") from None
    except KeyError:
        raise InputError(f"{name}: {type(config).__name__} has no {model_class.removeprefix('AutoModel')}") from None
    missing = [
        key
        for key in [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
        if key.startswith(f"{model.base_model_prefix}.") and _POOLER not in key  # pretraining leaves it untrained
    ]
    if missing:
        raise InputError(f"{name}: the weights of {missing[0]} and {len(missing) - 1} others are not in it")
    return model, tokenizer


def layers_below_head(model) -> dict[str, int]:
    """How deep the parameter of each name lies: 0 the head, 1 the top layer of the encoder, then the embeddings."""
    prefix = f"{model.base_model_prefix}."
    heights = {}
    for name, _ in model.named_parameters():
        if name.startswith(prefix) and _POOLER not in name:
            layer = _LAYER.search(name)
            heights[name] = int(layer[2]) + 1 if layer else 0
    top = max(heights.values(), default=0) + 1
    return {name: top - heights.get(name, top) for name, _ in model.named_parameters()}


def _explain(error: BaseException) -> str:
    """The first line of what a library has to say."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
