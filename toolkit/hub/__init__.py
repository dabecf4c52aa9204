"""Models and data sets to and from a Hub: push, pull, cards, and which files may travel.

>>> from toolkit.hub import pull, push

Importing this package loads neither torch nor transformers.
"""

import importlib

_EXPORTS = {"pull": "toolkit.hub.download", "push": "toolkit.hub.upload"}
__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
