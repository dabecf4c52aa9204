"""Train a tokenizer on your text: wordpiece, bpe, word or bytes.

toolkit tokenizer --corpus sample --kind wordpiece --vocab_size 8192 --output_dir runs/wordpiece
toolkit tokenizer --corpus 'texts/*.txt' --kind bpe --do_lower_case --output_dir runs/bpe
toolkit tokenizer --corpus sample --kind bytes --output_dir runs/bytes
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

from toolkit.cli.flags import parse_flags
from toolkit.corpora.arguments import CleaningArguments, CorpusArguments
from toolkit.corpora.tokenization import TokenizerKind
from toolkit.errors import check_positive
from toolkit.hub.arguments import HubArguments
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.output import OutputArguments


@dataclass(kw_only=True)
class VocabularyArguments(Arguments):
    """tokenizer"""

    kind: TokenizerKind = "wordpiece"
    """wordpiece and bpe: pieces of words; word: whole words; bytes: the bytes of words, for an ELMo or a fastText."""
    vocab_size: int = 8192
    """Maximum vocabulary size; the vocabulary of bytes always has 517 entries."""
    min_frequency: int = 2
    """Leave out words, or merges of pieces, that occur fewer times."""
    do_lower_case: bool = False
    """Lower-case the text."""
    strip_accents: bool = False
    """Remove accents from letters."""

    def check(self) -> None:
        check_positive(self, "vocab_size min_frequency")


@dataclass(kw_only=True)
class TokenizerArguments(Arguments):
    text: CorpusArguments
    output: OutputArguments
    vocabulary: VocabularyArguments = defaults(VocabularyArguments)
    cleaning: CleaningArguments = defaults(CleaningArguments)
    hub: HubArguments = defaults(HubArguments)


def parse(words: Sequence[str]) -> TokenizerArguments:
    return parse_flags(words, TokenizerArguments, "toolkit tokenizer", __doc__)


def run(arguments: TokenizerArguments) -> None:
    from toolkit.corpora.corpus import open_corpus_of
    from toolkit.corpora.encoding import describe_lost_text
    from toolkit.corpora.tokenization import bert_normalizer
    from toolkit.corpora.tokenizer_training import train_on_corpus
    from toolkit.hub.upload import push_run
    from toolkit.runs.output import check_output_dir, create_output_dir
    from toolkit.runs.progress import Parts

    check_output_dir(arguments.output)
    flags, cleaning = arguments.vocabulary, arguments.cleaning
    corpus = open_corpus_of(arguments.text, cleaning)
    corpus.summary(arguments.text.split).say()
    tokenizer, words = train_on_corpus(
        corpus,
        flags.kind,
        bert_normalizer(flags.do_lower_case, flags.strip_accents),
        flags.vocab_size,
        flags.min_frequency,
        cleaning.memory_gb,
        cleaning.num_proc,
        Parts("counting words"),
    )
    for line in words.left_out():
        print(line, file=sys.stderr)
    folder = create_output_dir(arguments.output)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {len(tokenizer):,} entries; {_describe(tokenizer, corpus)}")
    print(describe_lost_text(tokenizer, corpus.texts()), file=sys.stderr)
    push_run(arguments.output.output_dir, arguments.hub.push_to_hub)


def _describe(tokenizer, corpus) -> str:
    """Pieces per word and the share of unknown pieces, on the first lines of the corpus."""
    from toolkit.corpora.encoding import word_spacer

    sample = list(islice((text for text in corpus.texts() if text.strip()), 1000))
    space = word_spacer(tokenizer.backend_tokenizer.normalizer)
    num_words = sum(len(line.split()) for line in space(sample))
    pieces = list(chain.from_iterable(tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"]))
    unknown = pieces.count(tokenizer.unk_token_id) / len(pieces)
    return f"on the first {len(sample):,} lines {len(pieces) / num_words:.2f} pieces a word, {unknown:.1%} unknown"
