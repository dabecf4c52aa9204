#!/usr/bin/env python
"""Run the baseline of `toolkit compare --baseline` alone, at several label budgets.

python scripts/baseline.py TASK DATA RECORD SIZE... [FLAGS OF toolkit finetune TASK]
python scripts/baseline.py pos sample runs/crf.json 50 all
python scripts/baseline.py pos UD_English-EWT/ docs/results/ewt_crf.json 100 500 2000 all   (a minute)
python scripts/baseline.py audio fsdd/ runs/theo.json all --group_column speaker --test_groups theo
"""

import sys
import tempfile
from pathlib import Path

from tasks import TASKS
from tasks.comparison import Grid, run_baseline
from toolkit.cli.flags import parse_flags
from toolkit.runs.results import Stopwatch, write_results

first_flag = next((place for place, word in enumerate(sys.argv) if word.startswith("--")), len(sys.argv))
name, data, output_file, *sizes = sys.argv[1:first_flag]
task, stopwatch = TASKS[name], Stopwatch()
train_sizes = [None if size == "all" else int(size) for size in sizes]
with tempfile.TemporaryDirectory() as output_dir:
    flags = ["--encoder", "", "--data", data, "--output_dir", output_dir, *sys.argv[first_flag:]]
    arguments = parse_flags(flags, task.arguments, "scripts/baseline.py", __doc__)
    grid = Grid(task.open(data, arguments.columns), {}, train_sizes, seeds=[], learning_rates=[])
    baseline = run_baseline(task, grid, arguments)
for budget in baseline["budgets"]:
    print(f"{budget['train_size']:>8,} examples  {budget[arguments.metric]}  {budget['seconds']:.0f} s")
record = {"task": name, "dataset": data, "split": "test", "baseline": baseline}
record["metrics"] = {f"{budget['train_size']} labels": budget[arguments.metric] for budget in baseline["budgets"]}
write_results(Path(output_file), stopwatch, **record)
