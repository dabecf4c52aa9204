"""From a source (a path, a Hub id, `sample`) to a `datasets.Dataset`."""
