"""Train a tokenizer on your text: wordpiece, bpe, word or bytes.

toolkit tokenizer --corpus sample --kind wordpiece --vocab_size 8192 --output_dir runs/wordpiece
toolkit tokenizer --corpus 'texts/*.txt' --kind bpe --do_lower_case --output_dir runs/bpe
toolkit tokenizer --corpus sample --kind bytes --output_dir runs/bytes
"""

import sys
from dataclasses import dataclass

from toolkit.cli.flags import parse_flags
from toolkit.corpora.arguments import TextArguments
from toolkit.corpora.tokenization import Kind
from toolkit.errors import check_positive
from toolkit.training.arguments import SharedArguments


@dataclass(kw_only=True)
class TokenizerArguments(SharedArguments, TextArguments):
    output_dir: str
    """Folder for the tokenizer."""
    kind: Kind = "wordpiece"
    """wordpiece and bpe: pieces of words; word: whole words; bytes: the bytes of words, for an ELMo or a fastText."""
    vocab_size: int = 8192
    """Largest number of entries; bytes always has 517."""
    min_frequency: int = 2
    """Leave out words, or merges of pieces, that occur fewer times."""
    do_lower_case: bool = False
    """Lower-case the text."""
    strip_accents: bool = False
    """Take the accents off letters."""
    overwrite_output_dir: bool = False
    """Replace an earlier tokenizer in the output folder."""

    def __post_init__(self):
        SharedArguments.__post_init__(self)
        TextArguments.__post_init__(self)
        check_positive(self, "vocab_size min_frequency")


def parse(arguments: list[str]) -> TokenizerArguments:
    return parse_flags(arguments, TokenizerArguments, "toolkit tokenizer", __doc__)


def run(arguments: TokenizerArguments) -> None:
    from itertools import islice

    from toolkit.corpora.corpus import open_corpus_of
    from toolkit.corpora.tokenization import bert_normalizer, train_on_corpus, word_spacer
    from toolkit.hub.upload import share
    from toolkit.reports.progress import Parts
    from toolkit.reports.results import check_output_dir, create_output_dir

    check_output_dir(arguments.output_dir, overwrite=arguments.overwrite_output_dir)
    corpus = open_corpus_of(arguments)
    tokenizer, words = train_on_corpus(
        corpus,
        arguments.kind,
        bert_normalizer(arguments.do_lower_case, arguments.strip_accents),
        arguments.vocab_size,
        arguments.min_frequency,
        arguments.memory_gb,
        arguments.num_proc,
        Parts("counting words"),
    )
    for line in words.left_out():
        print(line, file=sys.stderr)
    folder = create_output_dir(arguments.output_dir, arguments.overwrite_output_dir)
    tokenizer.save_pretrained(folder)
    sample = list(islice((text for text in corpus.texts() if text.strip()), 1000))
    space = word_spacer(tokenizer.backend_tokenizer.normalizer)
    num_words = sum(len(line.split()) for line in space(sample))
    pieces = tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"]
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in pieces)
    num_pieces = sum(map(len, pieces))
    print(
        f"{folder}: {len(tokenizer):,} entries; on the first {len(sample):,} lines "
        f"{num_pieces / num_words:.2f} pieces a word, {unknown / num_pieces:.1%} unknown"
    )
    share(arguments)
