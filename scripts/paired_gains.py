#!/usr/bin/env python
"""Print the gains of fine-tuned image classifiers over others on the same test images, paired, with 95% intervals.

python scripts/paired_gains.py METRIC FOLDER OTHER_FOLDER [MORE PAIRS OF FOLDERS]
python scripts/paired_gains.py roc_auc runs/frozen/imagenet-47 runs/frozen/imagenet-random-47
"""

import json
import sys
from pathlib import Path

from tasks import TASKS
from tasks.comparison import figure_of_run

metric, *folders = sys.argv[1:]
gains = {}
for folder, other in zip(map(Path, folders[::2]), map(Path, folders[1::2]), strict=True):
    figure, figure_of_other = (figure_of_run(TASKS["image"], metric, each) for each in (folder, other))
    gains[f"{folder.name} above {other.name}"] = figure.minus(figure_of_other).interval()
print(json.dumps(gains, indent=2))
