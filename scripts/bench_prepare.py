"""How fast a corpus is prepared for a BERT, beside `datasets.map` by hand with as many processes.

    python scripts/bench_prepare.py [ROUNDS 3] [CORPUS sample]

Both make windows of 128 tokens of the same text file with the same WordPiece of 8,192 entries, trained on its first
100,000 lines, on two processes each: ours as `toolkit prepare` does it, the other by `load_dataset("text")` and one
`map`, which tokenizes batches of 1,000 lines, joins them with [SEP] and cuts them. Every time anew, with an empty
cache. All windows together must hold as many pieces of words; how many windows there are differs by a few, since each
process ends its part of the lines with a shorter batch. Counted is from the source to windows that can
be read, without the imports; memory is the peak of all processes together, resident. Record:
docs/results/bench_prepare.json.
"""

import json
import statistics
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

LENGTH, NUM_PROC, LINES_OF_TOKENIZER = 128, 2, 100_000


def ours(corpus: str, tokenizer):
    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.prepared import open_prepared, prepare
    from toolkit.corpora.windows import PieceWindows

    return lambda: open_prepared(prepare(open_corpus(corpus), PieceWindows(tokenizer, LENGTH), num_proc=NUM_PROC))


def by_hand(corpus: str, tokenizer):
    from datasets import load_dataset

    cls, sep, size = tokenizer.cls_token_id, tokenizer.sep_token_id, LENGTH - 1

    def cut(batch: dict[str, list[str]]) -> dict[str, list]:
        lines = [line for line in batch["text"] if line.strip()]
        encoded = tokenizer(
            lines, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        joined = [token for ids in encoded["input_ids"] for token in [*ids, sep]]
        return {"input_ids": [[cls, *joined[start : start + size]] for start in range(0, len(joined), size)]}

    def make():
        rows = load_dataset("text", data_files=corpus, split="train")
        return rows.map(cut, batched=True, num_proc=NUM_PROC, remove_columns=["text"])

    return make


def once(way: str, corpus: str, tokenizer: str) -> dict[str, float]:
    import datasets

    from toolkit.corpora.tokenization import load_tokenizer

    datasets.disable_progress_bars()
    make = {"toolkit": ours, "datasets.map": by_hand}[way](corpus, load_tokenizer(tokenizer))
    start = time.perf_counter()
    rows = make()
    seconds = time.perf_counter() - start
    special, pieces = load_tokenizer(tokenizer).all_special_ids, 0
    for batch in rows.with_format("arrow").iter(10_000):
        pieces += int((~np.isin(batch["input_ids"].combine_chunks().flatten(), special)).sum())
    return {"seconds": seconds, "windows": len(rows), "pieces": pieces}


def main(rounds: int = 3, corpus: str = "sample") -> None:
    from alternation import alternate, watched, write  # here, since it loads torch, which the processes need not

    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.tokenizer_training import train_tokenizer

    with tempfile.TemporaryDirectory() as root:
        opened = open_corpus(corpus)
        tokenizer = str(Path(root) / "tokenizer")
        train_tokenizer(islice(opened.texts(), LINES_OF_TOKENIZER), "wordpiece").save_pretrained(tokenizer)
        file = opened.blocks[0].file
        found: dict[str, list[dict[str, float]]] = {"toolkit": [], "datasets.map": []}

        def seconds_of(way: str) -> float:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, "once", way, file, tokenizer]
                peak, output = watched(command, HF_DATASETS_CACHE=cache)
            found[way].append(json.loads(output.splitlines()[-1]) | {"peak_memory_mb": peak})
            return found[way][-1]["seconds"]

        figures = alternate({way: partial(seconds_of, way) for way in found}, rounds)
    made = {run["pieces"] for runs in found.values() for run in runs}
    if len(made) > 1:
        sys.exit(f"the ways disagree: {made}")
    head = {
        "unit": "s",
        "corpus": Path(file).name,
        "megabytes": Path(file).stat().st_size / 1e6,
        "processes": NUM_PROC,
    }
    memory = {way: statistics.median(run["peak_memory_mb"] for run in runs) for way, runs in found.items()}
    write("bench_prepare", head | {"pieces": made.pop()} | figures | {"peak memory, MB": memory})


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(*sys.argv[2:5])))
    else:
        main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
