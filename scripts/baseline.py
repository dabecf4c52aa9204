#!/usr/bin/env python
"""Run the baseline of `toolkit compare --baseline` alone, at several label budgets.

python scripts/baseline.py TASK DATA RECORD SIZE...
python scripts/baseline.py pos sample runs/crf.json 50 all
python scripts/baseline.py pos UD_English-EWT/ docs/results/ewt_crf.json 100 500 2000 all   (a minute)
"""

import sys
import tempfile
from pathlib import Path

from tasks import TASKS
from tasks.comparison import Grid, run_baseline
from toolkit.runs.arguments import from_flags
from toolkit.runs.results import Stopwatch, write_results

name, data, output_file, *sizes = sys.argv[1:]
task, stopwatch = TASKS[name], Stopwatch()
train_sizes = [None if size == "all" else int(size) for size in sizes]
with tempfile.TemporaryDirectory() as output_dir:
    arguments = from_flags(task.arguments, encoder="", data=data, output_dir=output_dir)
    grid = Grid(task.open(data, arguments.columns), {}, train_sizes, seeds=[], learning_rates=[])
    baseline = run_baseline(task, grid, arguments)
for budget in baseline["budgets"]:
    print(f"{budget['train_size']:>8,} examples  {budget[arguments.metric]}  {budget['seconds']:.0f} s")
write_results(Path(output_file), stopwatch, task=name, dataset=data, split="test", baseline=baseline)
