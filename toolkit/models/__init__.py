"""Encoders that transformers does not have, one flat file each, in its own contract: Config, Model, heads.

`register` makes them known to transformers' Auto classes; `import toolkit` sees to that. This file loads no torch.
"""

import importlib

PREFIX = "toolkit-"
_ON_TEXT = "Model ForTokenClassification ForSequenceClassification"
_ON_IMAGES = "Model ForImageClassification"
_ENCODERS = {  # by model_type without the prefix: file, how its classes begin, which there are
    "word2vec": ("word2vec", "Word2Vec", _ON_TEXT),
    "fasttext": ("fasttext", "FastText", _ON_TEXT),
    "elmo": ("elmo", "Elmo", f"{_ON_TEXT} ForPreTraining"),
    "resnet": ("resnet", "SmallImageResNet", _ON_IMAGES),
    "fast-resnet": ("fast_resnet", "FastResNet", _ON_IMAGES),
    "lenet": ("lenet", "LeNet", _ON_IMAGES),
    "googlenet": ("googlenet", "GoogLeNet", _ON_IMAGES),
    "mlp": ("mlp", "Mlp", _ON_IMAGES),
    "pooled": ("pooling", "Pooled", _ON_IMAGES),
    "layer-mix": ("layer_mix", "LayerMix", "ForTokenClassification ForSequenceClassification"),
    "few-shot": ("few_shot", "FewShot", "ForSequenceClassification ForImageClassification"),
}


def classes_of(model_type: str) -> tuple[str, dict[str, str]]:
    """The module of an encoder, and the names of its classes by those of transformers' Auto classes. Raises
    `KeyError`."""
    file, family, ends = _ENCODERS[model_type.removeprefix(PREFIX)]
    classes = {f"AutoModel{end.removeprefix('Model')}": family + end for end in ends.split()}
    return f"{__name__}.{file}", {"AutoConfig": f"{family}Config", **classes}


def register() -> None:
    """Add every encoder of this package to transformers' `AutoConfig`, `AutoModel` and `AutoModelFor…`."""
    import transformers

    for name in _ENCODERS:
        module_name, classes = classes_of(name)
        module = importlib.import_module(module_name)
        config = getattr(module, classes.pop("AutoConfig"))
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto_class, model in classes.items():
            getattr(transformers, auto_class).register(config, getattr(module, model), exist_ok=True)
