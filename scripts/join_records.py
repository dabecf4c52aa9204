#!/usr/bin/env python
"""Join records to one, by the names of their folders and files, and print it.

python scripts/join_records.py runs/words/seed?/analogies.json > docs/results/words_word2vec.json
"""

import json
import sys
from pathlib import Path

paths = map(Path, sys.argv[1:])
print(json.dumps({f"{path.parent.name}/{path.stem}": json.loads(path.read_text()) for path in paths}, indent=2))
