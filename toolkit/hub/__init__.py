"""Models and data sets to and from a Hub: push, pull, cards, and which files may be transferred.

Importing this package loads neither torch nor transformers.
"""

from toolkit.hub.download import pull
from toolkit.hub.upload import push

__all__ = ["pull", "push"]
