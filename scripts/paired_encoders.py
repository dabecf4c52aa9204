#!/usr/bin/env python
"""Print how much better one encoder of a comparison is than another on the same test items, paired, seeds pooled.

python scripts/paired_encoders.py RESULTS_JSON ENCODER:OTHER [MORE PAIRS]
python scripts/paired_encoders.py runs/tagging/500/results.json lstm-2:lstm-1 lstm-2:rnn-2

RESULTS_JSON is that of `toolkit compare`, whose runs still exist. Each difference has a 95% interval.
"""

import json
import sys
from itertools import product
from pathlib import Path

from tasks import TASKS
from tasks.comparison import FROM_SCRATCH, PRETRAINED, figure_of_run
from toolkit.metrics.intervals import bootstrap_mean

record = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
task, metric = TASKS[record["task"]], record["figure"]
budgets = {encoder["name"]: encoder["budgets"] for encoder in record["encoders"]}
figures = {
    (name, budget["name"], variant): bootstrap_mean(
        [figure_of_run(task, metric, Path(folder)) for folder in budget[variant]["folders"]]
    )
    for name, of_encoder in budgets.items()
    for budget, variant in product(of_encoder, (PRETRAINED, FROM_SCRATCH))
}
differences = {}
for pair in sys.argv[2:]:
    name, other = pair.split(":")
    for budget, variant in product(budgets[name], (PRETRAINED, FROM_SCRATCH)):
        figure, figure_of_other = (figures[each, budget["name"], variant] for each in (name, other))
        key = f"{name} above {other}, {variant}, {budget['name']}"
        differences[key] = figure.minus(figure_of_other).interval()
print(json.dumps(differences, indent=2))
