#!/usr/bin/env python
"""Join records, keyed by the names of their folders and files, into one and print it.

python scripts/join_records.py runs/words/seed?/analogies.json > docs/results/words_word2vec.json

If all records have the same metrics, such as those of several seeds, the mean, minimum and maximum of each metric
follow.
"""

import json
import sys
from pathlib import Path

records = {f"{path.parent.name}/{path.stem}": json.loads(path.read_text()) for path in map(Path, sys.argv[1:])}
metrics_of_records = [record["metrics"] for record in records.values()]
if len({tuple(metrics) for metrics in metrics_of_records}) == 1:
    values = {name: [metrics[name]["value"] for metrics in metrics_of_records] for name in metrics_of_records[0]}
    means = {name: {"value": sum(v) / len(v), "low": min(v), "high": max(v)} for name, v in values.items()}
    records["means, with the lowest and the highest"] = {"metrics": means}
print(json.dumps(records, indent=2))
