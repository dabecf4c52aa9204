"""Pretrain small encoders on your own data, transfer them to your task, see what the pretraining bought.

Importing this package takes a tenth of a second, because it imports neither torch nor transformers. As soon as
transformers' Auto classes are imported, before or after, the encoders of `toolkit.models` are registered with them.
Import it before numpy and torch, so that training stays fast beside other work (`toolkit.runs.threads`).
"""

import importlib

import wrapt

from toolkit.runs.threads import limit_spinning

__version__ = "0.1.0"

_EXPORTS = {
    "FAMILIES": "toolkit.models",
    "Family": "toolkit.models",
    "FewShotClassifier": "toolkit.transfer.few_shot_classifier",
    "InputError": "toolkit.errors",
    "MODALITIES": "toolkit.modalities",
    "TrainingArguments": "toolkit.training.arguments",
    "train": "toolkit.training.loop",
    "load_text": "toolkit.corpora.text",
    "load_treebank": "toolkit.data.treebank",
    "pretrain": "toolkit.pretraining",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _EncodersOnDemand(dict):
    """The configurations that were registered with AutoConfig; the first lookup of one of ours registers them all."""

    def __contains__(self, model_type: object) -> bool:
        from toolkit.models.families import PREFIX

        if not super().__contains__(model_type) and str(model_type).startswith(PREFIX):
            _register_encoders(None)
        return super().__contains__(model_type)


def _register_encoders(module) -> None:
    from toolkit.models import register

    register()


def _register_configs(module) -> None:
    # `AutoConfig.register` (transformers 5.23, models/auto/configuration_auto.py, line 458) takes classes, which need
    # torch and most of transformers; but this module is often imported while transformers is only half loaded.
    module.CONFIG_MAPPING._extra_content = _EncodersOnDemand(module.CONFIG_MAPPING._extra_content)


wrapt.when_imported("transformers.models.auto.configuration_auto")(_register_configs)
wrapt.when_imported("transformers.models.auto.modeling_auto")(_register_encoders)
wrapt.when_imported("transformers.models.auto.feature_extraction_auto")(_register_encoders)
limit_spinning()
