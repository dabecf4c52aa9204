"""Data sources (a path, a Hub id, `sample`) loaded as `datasets.Dataset`, and the cache of what is made of them."""
