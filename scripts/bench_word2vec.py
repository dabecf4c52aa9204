#!/usr/bin/env python
"""Compare the seconds from raw text to saved word vectors with the seconds that gensim trains on the same words.

    python scripts/bench_word2vec.py [ROUNDS] [CORPUS] [METHOD]
    python scripts/bench_word2vec.py 3 ../shared/data/text_corpus/train.txt fasttext

METHOD is word2vec or fasttext. The toolkit's seconds are of the whole process of `toolkit pretrain METHOD`: imports,
reading text without a cache, splitting it into words, training, held-out evaluation, checkpoint. gensim's seconds are
of training alone, on a file of the same words; the seconds to count the words before, and of both together, are
recorded separately. Both run five epochs with two workers, each in its own process, in turns. The vectors of both are
scored on word sets. gensim's own scores leave out pairs and questions with unseen words, as they must for word2vec,
while a fastText of the toolkit answers them. Record: docs/results/bench_METHOD.json.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarking import alternate, run_in_process, write_record

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.encoding import word_spacer
from toolkit.corpora.tokenization import bert_normalizer
from toolkit.models.families import presets
from toolkit.pretraining import get_method
from toolkit.pretraining.skip_gram import Sentences, write_sentences
from toolkit.runs.arguments import flags_of, from_flags
from toolkit.runs.results import Stopwatch, read_results
from toolkit.transfer.word_vectors import WORD_SETS, score_words

EPOCHS, WORKERS = 5, 2


def train_with_toolkit(method: str, corpus: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "toolkit", "pretrain", method, "--corpus", corpus, "--do_lower_case"]
    command += ["--output_dir", str(folder / "encoder"), "--num_train_epochs", str(EPOCHS), "--workers", str(WORKERS)]
    start = time.perf_counter()
    subprocess.run(command, env={**os.environ, "HF_DATASETS_CACHE": str(folder / "cache")}, check=True)
    found = {"seconds": time.perf_counter() - start}
    record = read_results(folder / "encoder")
    found |= {"seconds of gensim within": record["training_seconds"], "peak_memory_mb": record["peak_memory_mb"]}
    for name in WORD_SETS:
        metrics = score_words(str(folder / "encoder"), name, folder / "score.json")["metrics"]
        found[name] = metrics["accuracy" if name == "analogies" else "spearman"]["value"]
        found[f"{name}, coverage"] = metrics["coverage"]["value"]
    shutil.rmtree(folder)
    return found


def train_with_gensim(method: str, sentences: Sentences) -> dict[str, float]:
    return run_in_process(__file__, method, str(sentences.file), str(EPOCHS))


def once(method: str, file: str, epochs: int) -> dict[str, float]:
    """Train and score gensim with the toolkit's default settings. Runs in its own process."""
    from gensim.models import FastText, Word2Vec
    from gensim.test.utils import datapath

    arguments: Any = from_flags(get_method(method).arguments, corpus="", output_dir="")
    preset, flags = presets(family=method)[arguments.encoder.preset], arguments.training
    settings = {"window": flags.window, "negative": flags.negative, "min_count": flags.min_count}
    settings |= {"alpha": flags.learning_rate, "epochs": epochs, "workers": WORKERS, "sg": 1, "seed": 0}
    settings |= {"vector_size": preset.sizes[0], "max_final_vocab": preset.default_size}
    if method == "fasttext":
        settings |= {"bucket": preset.sizes[1], "min_n": arguments.ngrams.min_n, "max_n": arguments.ngrams.max_n}
    model = (FastText if method == "fasttext" else Word2Vec)(**settings)
    stopwatch = Stopwatch()
    model.build_vocab(corpus_file=file)
    counting = stopwatch.seconds
    model.train(
        corpus_file=file, total_examples=model.corpus_count, total_words=model.corpus_total_words, epochs=epochs
    )
    both = stopwatch.seconds
    found = {"seconds": both - counting, "seconds of build_vocab": counting, "seconds of both": both}
    found["peak_memory_mb"] = stopwatch.peak_memory_mb
    found["analogies"] = model.wv.evaluate_word_analogies(datapath(WORD_SETS["analogies"]))[0]
    for name in ("wordsim353", "simlex999"):
        found[name] = model.wv.evaluate_word_pairs(datapath(WORD_SETS[name]))[1][0]
    return found


def main(rounds: int = 3, corpus: str = "sample", method: str = "word2vec") -> None:
    space = word_spacer(bert_normalizer(do_lower_case=True))
    texts, _ = open_corpus(corpus).hold_out(flags_of(get_method(method).arguments)["validation_fraction"].default)
    notes: dict[str, list[dict[str, float]]] = {"toolkit": [], "gensim": []}
    with tempfile.TemporaryDirectory() as root:
        sentences = write_sentences(map(space, texts), Path(root) / "sentences.txt")

        def seconds_of(name: str, found: dict[str, float]) -> float:
            notes[name].append(found)
            return found["seconds"]

        found: dict[str, Any] = alternate(
            {
                "toolkit": lambda: seconds_of("toolkit", train_with_toolkit(method, corpus, Path(root) / "run")),
                "gensim": lambda: seconds_of("gensim", train_with_gensim(method, sentences)),
            },
            rounds,
        )
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in notes.items()
    }
    found["ratio of medians to build_vocab and training"] = (
        found["medians"]["toolkit"] / medians["gensim"]["seconds of both"]
    )
    found["words/s"] = {name: EPOCHS * sentences.words.num_words / found["medians"][name] for name in notes}
    found["medians of all that was noted"] = medians
    head = {"unit": "s", "corpus": Path(corpus).name, "words": sentences.words.num_words, "epochs": EPOCHS}
    write_record(f"bench_{method}", head | {"workers": WORKERS} | found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        _, _, method, file, epochs = sys.argv
        print(json.dumps(once(method, file, int(epochs))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, *sys.argv[2:4])
