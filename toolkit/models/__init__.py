"""Encoders that transformers does not have, one flat file each, in its own contract: Config, Model, heads.

`families.py` is the table of all encoders. `register` makes the classes known to transformers' Auto classes, and
`import toolkit` calls it when transformers is imported. Importing this package loads no torch.
"""

import importlib

from toolkit.models.families import FAMILIES, PREFIX, Architecture, Family, Preset, architectures, family_of, presets

__all__ = ["FAMILIES", "PREFIX", "Architecture", "Family", "Preset", "family_of", "presets", "register"]


def register() -> None:
    """Add the classes of every row of `FAMILIES` to transformers' `AutoConfig`, `AutoModel` and `AutoModelFor…`."""
    import transformers

    for architecture in architectures():
        module = importlib.import_module(architecture.module)
        classes = architecture.classes()
        config = getattr(module, classes.pop("AutoConfig"))
        transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto_class, model in classes.items():
            getattr(transformers, auto_class).register(config, getattr(module, model), exist_ok=True)
