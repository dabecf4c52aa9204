"""Compare the training of a WordPiece with the `tokenizers` library: seconds, memory and vocabulary.

    python scripts/bench_tokenizer.py [ROUNDS 3] [CORPUS sample]

Both train 8,192 entries on the lower-cased lines of the same text, in a separate process that uses all cores. The
toolkit counts words and trains on the counts; the library reads every line with `train_from_iterator`. Measured are
the seconds from the source to a trained tokenizer, without imports, and the peak resident memory of all processes
together. The library numbers the letters in a random order in each process, so it breaks ties between merges
differently each time. The vocabularies are compared as they are, and with the letters numbered in the toolkit's order;
then they must be equal. Record: docs/results/bench_tokenizer.json.
"""

import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

VOCAB_SIZE = 8192


def train_with_toolkit(corpus: str) -> dict[str, int]:
    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.tokenization import bert_normalizer
    from toolkit.corpora.tokenizer_training import train_on_corpus

    return train_on_corpus(open_corpus(corpus), "wordpiece", bert_normalizer(True), VOCAB_SIZE, memory_gb=8)[0].vocab


def train_with_tokenizers(corpus: str, letters: list[str]) -> dict[str, int]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False)
    trainer.min_frequency = 2
    with open(corpus, encoding="utf-8") as lines:
        tokenizer.train_from_iterator(lines, trainer)
    return tokenizer.get_vocab()


def once(alternative: str, corpus: str, letters: str) -> dict:
    import tokenizers  # noqa: F401

    import toolkit.corpora.tokenizer_training  # noqa: F401

    start = time.perf_counter()
    vocabulary = (
        train_with_toolkit(corpus) if alternative == "toolkit" else train_with_tokenizers(corpus, json.loads(letters))
    )
    return {"seconds": time.perf_counter() - start, "vocabulary": sorted(vocabulary, key=vocabulary.__getitem__)}


def main(rounds: int = 3, corpus: str = "sample") -> None:
    from benchmarking import alternate, run_with_peak_memory, write_record  # loads torch, which `once` does not need

    from toolkit.corpora.corpus import open_corpus

    file = open_corpus(corpus).blocks[0].file
    found: dict[str, list[dict]] = {"toolkit": [], "tokenizers": []}

    def run(name: str, letters: list[str]) -> dict:
        peak, output = run_with_peak_memory([sys.executable, __file__, "once", name, file, json.dumps(letters)])
        return json.loads(output.splitlines()[-1]) | {"peak_memory_mb": peak}

    def seconds_of(name: str) -> float:
        found[name].append(run(name, []))
        return found[name][-1]["seconds"]

    figures = alternate({name: partial(seconds_of, name) for name in found}, rounds)
    vocabulary = found["toolkit"][0]["vocabulary"]
    letters = [entry for entry in vocabulary if entry.startswith("##") and len(entry) == 3]
    different = [len(set(vocabulary) ^ set(run["vocabulary"])) // 2 for run in found["tokenizers"]]
    with_same_order = run("tokenizers", letters)["vocabulary"]
    head = {"unit": "s", "corpus": Path(file).name, "megabytes": Path(file).stat().st_size / 1e6}
    memory = {name: statistics.median(run["peak_memory_mb"] for run in runs) for name, runs in found.items()}
    same = {
        "entries of ours that the library's lacks": different,
        "equal with letters in order": with_same_order == vocabulary,
    }
    write_record("bench_tokenizer", head | {"entries": len(vocabulary)} | figures | same | {"peak memory, MB": memory})


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(*sys.argv[2:5])))
    else:
        main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
