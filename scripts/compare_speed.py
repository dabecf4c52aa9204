#!/usr/bin/env python
"""Check that one version of the toolkit is as fast as another.

    git worktree add ../old COMMIT
    python scripts/compare_speed.py ../old . [--rounds 5] [--corpus FILE] [--only elmo]

The toolkit's part of five benchmarks runs in both checkouts in turns, each time in a process of its own: a training
step of BERT (`bench_mlm.py`) and of ELMo (`bench_elmo.py`), the training loop with logging and checkpoints
(`bench_loop.py`), the preparation of a corpus (`bench_prepare.py`), and the training of a tokenizer
(`bench_tokenizer.py`). Imports are not counted. The figures are seconds: a ratio of old to new above 1 means that the
new version is faster. Record: docs/results/compare_speed.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarking import alternate, write_record

LOOP = """
import json
import bench_loop
steps_per_second = getattr(bench_loop, "toolkit_loop", None) or bench_loop.ours  # the name in older versions
steps_per_second()  # warm up
print(json.dumps({"seconds": 1 / steps_per_second()}))
"""
NO_LETTERS = "[]"


def commands(corpus: str, tokenizer: str) -> dict[str, list[str]]:
    """The words after `python`, run in the folder of the scripts, by the name of the measurement."""
    return {
        "training step of BERT": ["bench_mlm.py", "once", "toolkit", "8192"],
        "training step of ELMo": ["bench_elmo.py", "once", "toolkit", "seconds"],
        "training loop": ["-c", LOOP],
        "preparation of a corpus": ["bench_prepare.py", "once", "toolkit", corpus, tokenizer],
        "training of a tokenizer": ["bench_tokenizer.py", "once", "toolkit", corpus, NO_LETTERS],
    }


def seconds_of(command: list[str], checkout: Path) -> float:
    """Run a benchmark once in a checkout, with an empty cache; the seconds that it prints."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_DATASETS_CACHE": cache, "HF_HUB_OFFLINE": "1"}
        process = [sys.executable, *command]
        done = subprocess.run(
            process, cwd=checkout / "scripts", env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def main() -> None:
    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.tokenizer_training import train_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="Checkout of the older version.")
    parser.add_argument("new", type=Path, help="Checkout of the newer version.")
    parser.add_argument("--rounds", type=int, default=5, help="Runs of each version.")
    parser.add_argument("--corpus", default="sample", help="Text file for preparation and tokenizer.")
    parser.add_argument("--only", action="append", help="Measure only what has this word in its name (repeatable).")
    arguments = parser.parse_args()
    checkouts = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    corpus = open_corpus(arguments.corpus)
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(corpus.texts(), "wordpiece").save_pretrained(folder)
        for name, command in commands(str(Path(corpus.blocks[0].file).resolve()), folder).items():
            if arguments.only and not any(word in name for word in arguments.only):
                continue
            print(name, flush=True)
            versions = {version: partial(seconds_of, command, folder) for version, folder in checkouts.items()}
            record[name] = alternate(versions, arguments.rounds)
    write_record("compare_speed", record)


if __name__ == "__main__":
    main()
