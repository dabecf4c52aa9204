#!/usr/bin/env python
"""Join records to one, by the names of their folders and files, and print it.

python scripts/join_records.py runs/words/seed?/analogies.json > docs/results/words_word2vec.json

Records of the same kind, such as those of seeds, are followed by the mean of each figure, with the lowest and highest.
"""

import json
import sys
from pathlib import Path

records = {f"{path.parent.name}/{path.stem}": json.loads(path.read_text()) for path in map(Path, sys.argv[1:])}
found = [record["metrics"] for record in records.values()]
if len({tuple(metrics) for metrics in found}) == 1:
    values = {name: [metrics[name]["value"] for metrics in found] for name in found[0]}
    means = {name: {"value": sum(v) / len(v), "low": min(v), "high": max(v)} for name, v in values.items()}
    records["means, with the lowest and the highest"] = {"metrics": means}
print(json.dumps(records, indent=2))
