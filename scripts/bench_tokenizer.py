"""How a WordPiece is trained, beside the `tokenizers` library by hand: seconds, memory, and whether it is the same.

    python scripts/bench_tokenizer.py [ROUNDS 3] [CORPUS sample]

Both train 8,192 entries on the lines of the same text, lower-cased, in a process of their own that uses all cores:
ours counts words and trains on the counts, the library reads every line by `train_from_iterator`. Counted is from the
source to a trained tokenizer, without imports; memory is the peak of all processes together, resident. The library
numbers letters anew in each process and so breaks ties between merges differently each time; the vocabularies are
compared twice: as they are, and with the letters numbered in our order, where they must be equal. Record:
docs/results/bench_tokenizer.json.
"""

import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

VOCAB_SIZE = 8192


def ours(corpus: str) -> dict[str, int]:
    from toolkit.corpora.corpus import open_corpus
    from toolkit.corpora.tokenization import bert_normalizer
    from toolkit.corpora.tokenizer_training import train_on_corpus

    return train_on_corpus(open_corpus(corpus), "wordpiece", bert_normalizer(True), VOCAB_SIZE, memory_gb=8)[0].vocab


def by_hand(corpus: str, letters: list[str]) -> dict[str, int]:
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


def once(way: str, corpus: str, letters: str) -> dict:
    import tokenizers  # noqa: F401

    import toolkit.corpora.tokenizer_training  # noqa: F401

    start = time.perf_counter()
    vocabulary = ours(corpus) if way == "toolkit" else by_hand(corpus, json.loads(letters))
    return {"seconds": time.perf_counter() - start, "vocabulary": sorted(vocabulary, key=vocabulary.__getitem__)}


def main(rounds: int = 3, corpus: str = "sample") -> None:
    from alternation import alternate, watched, write  # here, since it loads torch, which the processes need not

    from toolkit.corpora.corpus import open_corpus

    file = open_corpus(corpus).blocks[0].file
    found: dict[str, list[dict]] = {"toolkit": [], "tokenizers": []}

    def run(way: str, letters: list[str]) -> dict:
        peak, output = watched([sys.executable, __file__, "once", way, file, json.dumps(letters)])
        return json.loads(output.splitlines()[-1]) | {"peak_memory_mb": peak}

    def seconds_of(way: str) -> float:
        found[way].append(run(way, []))
        return found[way][-1]["seconds"]

    figures = alternate({way: partial(seconds_of, way) for way in found}, rounds)
    vocabulary = found["toolkit"][0]["vocabulary"]
    letters = [entry for entry in vocabulary if entry.startswith("##") and len(entry) == 3]
    different = [len(set(vocabulary) ^ set(run["vocabulary"])) // 2 for run in found["tokenizers"]]
    in_order = run("tokenizers", letters)["vocabulary"]
    head = {"unit": "s", "corpus": Path(file).name, "megabytes": Path(file).stat().st_size / 1e6}
    memory = {way: statistics.median(run["peak_memory_mb"] for run in runs) for way, runs in found.items()}
    same = {
        "entries of ours that the library's lacks": different,
        "equal with letters in order": in_order == vocabulary,
    }
    write("bench_tokenizer", head | {"entries": len(vocabulary)} | figures | same | {"peak memory, MB": memory})


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(*sys.argv[2:5])))
    else:
        main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
