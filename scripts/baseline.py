#!/usr/bin/env python
"""Run the baseline of `toolkit compare --baseline` alone, at several label budgets.

python scripts/baseline.py TASK DATA RECORD SIZE...
python scripts/baseline.py pos sample runs/crf.json 50 all
python scripts/baseline.py pos UD_English-EWT/ docs/results/ewt_crf.json 100 500 2000 all   (a minute)
"""

import sys
from pathlib import Path

from tasks import TASKS
from tasks.comparison import run_baseline
from toolkit.runs.arguments import from_flags
from toolkit.runs.results import Stopwatch, write_results

task_name, data, record_file, *sizes = sys.argv[1:]
task, stopwatch = TASKS[task_name], Stopwatch()
arguments = from_flags(task.arguments, encoder="", data=data, output_dir="").resolved()
train_sizes = [None if size == "all" else int(size) for size in sizes]
baseline = run_baseline(task, arguments, train_sizes, [arguments.data.subset_seed], print)
for budget in baseline["budgets"]:
    print(f"{budget['train_size']:>8,} examples  {budget[arguments.metric]}  {budget['seconds']:.0f} s")
write_results(Path(record_file), stopwatch, task=task_name, dataset=data, split="test", baseline=baseline)
