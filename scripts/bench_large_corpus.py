"""Memory and time for a large corpus: tokenizer, first and second start of pretraining.

    python scripts/bench_large_corpus.py [GIGABYTES 2] [CORPUS sample] [FORMAT txt jsonl parquet …]

Makes a corpus with large_corpus.py in each format. Then it runs these commands with an empty cache, and samples the
memory of all processes together ten times per second: `toolkit tokenizer` with a WordPiece of 8,192 entries, and
`toolkit pretrain` of a bert-tiny for 20 steps, which prepares the corpus first; then the same again, and twice on the
sample. Record: docs/results/bench_large_corpus.json.
"""

import sys
import tempfile
import time
from pathlib import Path

import large_corpus
from benchmarking import run_with_peak_memory, write_record

FORMATS = ("txt", "jsonl", "parquet")


def measure(corpus: Path, folder: Path) -> dict[str, dict[str, float]]:
    tokenizer = folder / "tokenizer"
    commands = {"tokenizer": ["tokenizer", "--corpus", corpus, "--vocab_size", "8192", "--output_dir", tokenizer]}
    for source, suffix in ((corpus, ""), ("sample", " on the sample")):
        for number in ("first", "second"):
            name = f"{number} start{suffix}"
            train = ["pretrain", "bert", "--preset", "bert-tiny", "--max_steps", "20", "--corpus", source]
            commands[name] = [*train, "--tokenizer", tokenizer, "--output_dir", folder / name]
    found = {}
    for name, words in commands.items():
        start = time.perf_counter()
        command = [sys.executable, "-m", "toolkit", *map(str, words)]
        peak, output = run_with_peak_memory(command, HF_DATASETS_CACHE=str(folder / "cache"))
        found[name] = {"seconds": time.perf_counter() - start, "peak_memory_mb": peak}
        print(corpus.suffix, name, found[name], output.strip(), flush=True)
    return found


def main(gigabytes: float = 2.0, corpus: str = "sample", *formats: str) -> None:
    found = {}
    for suffix in formats or FORMATS:
        with tempfile.TemporaryDirectory() as root:
            large = Path(root) / f"large.{suffix}"
            large_corpus.main(str(large), gigabytes, corpus)
            found[suffix] = {"megabytes": large.stat().st_size / 1e6, **measure(large, Path(root))}
    write_record("bench_large_corpus", {"corpus": Path(corpus).name, "gigabytes of text": gigabytes, "formats": found})


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *sys.argv[2:])
