"""Make a large corpus from a small one: new sentences of its words, mixed with identifiers and numbers.

    python scripts/large_corpus.py OUT.txt [GIGABYTES 2] [CORPUS sample]

Each line joins the beginning of one line of the corpus and the end of another; a pair hardly ever occurs twice.
Between the words are identifiers of two words and a number, hexadecimal identifiers, and numbers, nearly all of them
new. So words follow Zipf's law as in real text, with ten million distinct words per gigabyte. The same arguments give
the same file. OUT may end in .txt, .jsonl or .parquet.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from toolkit.corpora.corpus import open_corpus

LINES_PER_BATCH = 10_000


def lines(corpus: str, seed: int = 0) -> Iterator[str]:
    """Generate lines without end."""
    rng = random.Random(seed)
    lines_of_words = [words for text in open_corpus(corpus).texts() if len(words := text.split()) >= 4]
    names = sorted({word for words in lines_of_words for word in words if word.isalpha()})
    while True:
        start, end = rng.choice(lines_of_words), rng.choice(lines_of_words)
        words = start[: len(start) // 2] + end[len(end) // 2 :]
        for _ in range(2 + len(words) // 12):
            number = int(10 ** rng.uniform(2, 12))
            kind = rng.random()
            if kind < 0.4:
                new = f"{rng.choice(names)}{rng.choice(names).capitalize()}{number % 1000}"
            else:
                new = f"{number:x}" if kind < 0.7 else str(number)
            words.insert(rng.randrange(len(words) + 1), new)
        yield " ".join(words)


def main(out: str, gigabytes: float = 2.0, corpus: str = "sample") -> None:
    path, left = Path(out), gigabytes * 1e9
    source = lines(corpus)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema([("text", pyarrow.string())])
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            while left > 0:
                texts = [next(source) for _ in range(LINES_PER_BATCH)]
                writer.write_table(pyarrow.table({"text": texts}, schema))
                left -= sum(map(len, texts)) + len(texts)
        return
    with open(path, "w", encoding="utf-8") as file:
        while left > 0:
            texts = [next(source) for _ in range(LINES_PER_BATCH)]
            rows = texts if path.suffix == ".txt" else [json.dumps({"text": text}) for text in texts]
            file.write("\n".join(rows) + "\n")
            left -= sum(map(len, texts)) + len(texts)


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:3]), *sys.argv[3:4])
