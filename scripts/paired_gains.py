#!/usr/bin/env python
"""How much fine-tuned image classifiers are above others on the same test images, paired, with 95% intervals; as JSON.

python scripts/paired_gains.py roc_auc runs/frozen/imagenet-47 runs/frozen/imagenet-random-47 [MORE PAIRS OF FOLDERS]
"""

import json
import sys
from pathlib import Path

from tasks.base import PREDICTIONS_FILE

from tasks import TASKS

figure, *folders = sys.argv[1:]
lines = [
    [json.loads(line) for line in (Path(folder) / PREDICTIONS_FILE).read_text(encoding="utf-8").splitlines()]
    for folder in folders
]
gains = {
    f"{Path(folders[i]).name} above {Path(folders[i + 1]).name}": TASKS["image"].measure(
        figure, [lines[i]], [lines[i + 1]]
    )
    for i in range(0, len(folders), 2)
}
print(json.dumps(gains, indent=2))
