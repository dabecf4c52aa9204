"""fastText: skip-gram with negative sampling over words and their character n-grams, trained by gensim.

Bojanowski, Grave, Joulin & Mikolov (2017), "Enriching word vectors with subword information",
https://arxiv.org/abs/1607.04606.
"""

from dataclasses import dataclass
from typing import Any

from toolkit.corpora.encoding import word_spacer
from toolkit.corpora.tokenization import with_whole_words
from toolkit.errors import InputError, check_positive
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run
from toolkit.pretraining.text_corpus import byte_tokenizer
from toolkit.pretraining.word2vec import Word2VecArguments, train_and_record_vectors
from toolkit.runs.arguments import Arguments, defaults


@dataclass(kw_only=True)
class NgramArguments(Arguments):
    """n-grams"""

    num_buckets: int | None = None
    """Rows of the table of n-gram vectors, which n-grams share by their hashes (default: that of the preset)."""
    min_n: int = 3
    """Characters of the shortest n-gram, including the brackets around a word."""
    max_n: int = 6
    """Characters of the longest n-gram."""

    def check(self) -> None:
        check_positive(self, "num_buckets min_n")
        if self.max_n < self.min_n:
            raise InputError(f"--max_n {self.max_n}: expected at least --min_n {self.min_n}")


@dataclass(kw_only=True)
class FastTextArguments(Word2VecArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="fasttext-mini")
    ngrams: NgramArguments = defaults(NgramArguments)


def pretrain_fasttext(arguments: FastTextArguments) -> dict[str, Any]:
    """Train vectors of words and n-grams; returns the record."""
    run = Run("fasttext", arguments)
    tokenizer_of_bytes, flags = byte_tokenizer(run), arguments.ngrams
    num_buckets = flags.num_buckets or run.preset.sizes[1]

    def export(word_vectors) -> tuple[Any, Any]:
        from toolkit.models.fasttext import FastTextModel

        tokenizer, ids = with_whole_words(tokenizer_of_bytes, word_vectors.index_to_key)
        config = run.preset.config(len(tokenizer))
        config.update({"num_buckets": num_buckets, "min_n": flags.min_n, "max_n": flags.max_n})
        return FastTextModel.from_word_vectors(config, word_vectors, ids), tokenizer

    ngrams = {"bucket": num_buckets, "min_n": flags.min_n, "max_n": flags.max_n}
    space = word_spacer(tokenizer_of_bytes.backend_tokenizer.normalizer)
    return train_and_record_vectors(run, space, export, ngrams)


METHOD = Method(FastTextArguments, pretrain_fasttext)
