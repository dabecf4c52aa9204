"""Compare the preparation of a corpus for a BERT with a plain `datasets.map` on as many processes.

    python scripts/bench_prepare.py [ROUNDS 3] [CORPUS sample]

Both cut the same text file into windows of 128 tokens with the same WordPiece of 8,192 entries, trained on its first
100,000 lines, on two processes each and with an empty cache. The toolkit does what `toolkit prepare` does. The peer is
`load_dataset("text")` and one `map`, which tokenizes batches of 1,000 lines, joins them with [SEP] and cuts them. The
windows of both must hold the same number of pieces. The number of windows differs by a few, since each process ends
its part of the lines with a shorter batch. Measured are the seconds from the source to readable windows, without
imports, and the peak resident memory of all processes together. Record: docs/results/bench_prepare.json.
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


def prepare_with_toolkit(corpus: str, tokenizer):
    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.prepared import open_prepared, prepare
    from toolkit.corpora.windows import PieceWindows

    return lambda: open_prepared(prepare(open_corpus(corpus), PieceWindows(tokenizer, LENGTH), num_proc=NUM_PROC))


def prepare_with_map(corpus: str, tokenizer):
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


def once(alternative: str, corpus: str, tokenizer: str) -> dict[str, float]:
    import datasets

    from toolkit.corpora.tokenization import load_tokenizer

    datasets.disable_progress_bars()
    make = {"toolkit": prepare_with_toolkit, "datasets.map": prepare_with_map}[alternative](
        corpus, load_tokenizer(tokenizer)
    )
    start = time.perf_counter()
    rows = make()
    seconds = time.perf_counter() - start
    special, pieces = load_tokenizer(tokenizer).all_special_ids, 0
    for batch in rows.with_format("arrow").iter(10_000):
        pieces += int((~np.isin(batch["input_ids"].combine_chunks().flatten(), special)).sum())
    return {"seconds": seconds, "windows": len(rows), "pieces": pieces}


def main(rounds: int = 3, corpus: str = "sample") -> None:
    from benchmarking import alternate, run_with_peak_memory, write_record  # loads torch, which `once` does not need

    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.tokenizer_training import train_tokenizer

    with tempfile.TemporaryDirectory() as root:
        opened = open_corpus(corpus)
        tokenizer = str(Path(root) / "tokenizer")
        train_tokenizer(islice(opened.texts(), LINES_OF_TOKENIZER), "wordpiece").save_pretrained(tokenizer)
        file = opened.blocks[0].file
        found: dict[str, list[dict[str, float]]] = {"toolkit": [], "datasets.map": []}

        def seconds_of(name: str) -> float:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, "once", name, file, tokenizer]
                peak, output = run_with_peak_memory(command, HF_DATASETS_CACHE=cache)
            found[name].append(json.loads(output.splitlines()[-1]) | {"peak_memory_mb": peak})
            return found[name][-1]["seconds"]

        figures = alternate({name: partial(seconds_of, name) for name in found}, rounds)
    num_pieces = {run["pieces"] for runs in found.values() for run in runs}
    if len(num_pieces) > 1:
        sys.exit(f"the numbers of pieces differ: {num_pieces}")
    head = {
        "unit": "s",
        "corpus": Path(file).name,
        "megabytes": Path(file).stat().st_size / 1e6,
        "processes": NUM_PROC,
    }
    memory = {name: statistics.median(run["peak_memory_mb"] for run in runs) for name, runs in found.items()}
    write_record("bench_prepare", head | {"pieces": num_pieces.pop()} | figures | {"peak memory, MB": memory})


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(*sys.argv[2:5])))
    else:
        main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
