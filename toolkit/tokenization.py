"""Train a tokenizer on text, or load one: always a plain `PreTrainedTokenizerFast`, its padding on the right.

WordPiece is of Schuster & Nakajima (2012), BPE of Sennrich, Haddow & Birch (2016), https://arxiv.org/abs/1508.07909;
`tokenizers` trains both. The kind `bytes` is for encoders that read the spelling of words: one piece a byte, `##` on
each piece that continues its word; `with_whole_words` makes words that an encoder knows one piece each. All kinds
split text at white space and punctuation first, as BERT does.
"""

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from toolkit.errors import InputError, first_line
from toolkit.hub import local_copy

Kind = Literal["wordpiece", "bpe", "word", "bytes"]
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
UNKNOWN = SPECIAL_TOKENS["unk_token"]
CONTINUATION = "##"
WITHOUT_LIMIT = int(1e30)  # what transformers takes for a model that reads texts of any length
NUM_BYTES = 256
FIRST_CONTINUATION_ID = len(SPECIAL_TOKENS) + NUM_BYTES  # of the kind `bytes`: a piece from here on continues a word


def train_tokenizer(
    texts: Iterable[str],
    kind: Kind,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    do_lower_case: bool = False,
    strip_accents: bool = False,
    model_max_length: int = 512,
    normalizer=None,
):
    """A `PreTrainedTokenizerFast` whose vocabulary has at most `vocab_size` entries, the special ones first.

    `texts` is read twice for `wordpiece` and `bpe`, so not a generator; once for `word`; not for `bytes`, which has a
    fixed vocabulary. Words seen fewer than `min_frequency` times are left out of `word`, and merges seen fewer times
    out of `wordpiece` and `bpe`. A `normalizer` of another tokenizer takes the place of lower-casing and stripping.
    The same texts give the same tokenizer.
    """
    from tokenizers import models, pre_tokenizers, trainers

    if kind not in get_args(Kind):
        raise InputError(f"--kind {kind}: expected one of {', '.join(get_args(Kind))}")
    if kind == "bytes":
        tokenizer = _tokenizer(_byte_model(), do_lower_case, strip_accents)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, byte_level])
        return _wrap(tokenizer, WITHOUT_LIMIT)

    smallest = len(SPECIAL_TOKENS) + 1
    if vocab_size < smallest:
        raise InputError(
            f"--vocab_size {vocab_size}: expected at least {smallest}, {len(SPECIAL_TOKENS)} are special tokens"
        )
    blank = models.WordLevel(unk_token=UNKNOWN) if kind == "word" else _subword_model(kind)
    tokenizer = _tokenizer(blank, do_lower_case, strip_accents)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    options: dict[str, Any] = {"vocab_size": vocab_size, "min_frequency": min_frequency, "show_progress": False}
    if kind == "word":
        special = list(SPECIAL_TOKENS.values())
        tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special, **options))
        return _wrap(tokenizer, WITHOUT_LIMIT)
    return _wrap(_train_subwords(tokenizer, kind, texts, options), model_max_length)


def encode_lines(tokenizer, lines: list[str]) -> list[list[int]]:
    """The pieces of each line that is not blank, without special ones around it."""
    lines = [line for line in lines if line.strip()]
    return tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"] if lines else []


def _train_subwords(tokenizer, kind: Kind, texts: Iterable[str], options: dict[str, Any]):
    """Train `tokenizer` so that the same texts give the same vocabulary.

    The library numbers the letters that continue a word in the order of a hash table, and the numbers decide between
    merges of equal count (https://github.com/huggingface/tokenizers/issues/1794). Named as special tokens the letters
    are numbered in our order; a model with the trained vocabulary then takes the place of the one with such tokens.
    """
    from tokenizers import Tokenizer, decoders, trainers

    special = [*SPECIAL_TOKENS.values(), *(CONTINUATION + letter for letter in _continuing_letters(tokenizer, texts))]
    trainer_class = trainers.WordPieceTrainer if kind == "wordpiece" else trainers.BpeTrainer
    trained = Tokenizer.from_str(tokenizer.to_str())
    trained.train_from_iterator(
        texts, trainer_class(special_tokens=special, continuing_subword_prefix=CONTINUATION, **options)
    )
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]] if kind == "bpe" else None
    tokenizer.model = _subword_model(kind, model["vocab"], merges)
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _continuing_letters(tokenizer, texts: Iterable[str]) -> list[str]:
    """Every letter that follows another within a word of the texts, sorted."""
    pairs: set[tuple[str, str]] = set()
    for text in texts:
        pairs.update(pairwise(text))
    letters = set()
    for pair in pairs:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str("".join(pair)))
        letters |= {letter for word, _ in words for letter in word[1:]}
    return sorted(letters)


def _subword_model(kind: Kind, vocabulary: dict[str, int] | None = None, merges: list[tuple] | None = None):
    from tokenizers import models

    if kind == "wordpiece":
        return models.WordPiece(vocabulary or {}, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION)
    return models.BPE(vocabulary or {}, merges or [], unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION)


def word_level_tokenizer(words: Iterable[str], do_lower_case: bool = False, strip_accents: bool = False):
    """A tokenizer of kind `word` with exactly these words, in this order after the special tokens."""
    from tokenizers import models

    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS.values(), *words])}
    model = models.WordLevel(vocabulary, unk_token=UNKNOWN)
    return _wrap(_tokenizer(model, do_lower_case, strip_accents), WITHOUT_LIMIT)


def with_whole_words(tokenizer, words: Iterable[str]):
    """A tokenizer like `tokenizer`, of kind `bytes`, for which each of `words` is one piece; and the id of each word.

    The ids follow those of the bytes, in the order of the words. A word of one byte is the piece of that byte.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary, ids = tokenizer.get_vocab(), {}
    for word in words:
        ((piece, _),) = byte_level.pre_tokenize_str(word)
        ids[word] = vocabulary.setdefault(piece, len(vocabulary))
    whole = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    whole.model = models.BPE(
        vocabulary, [], unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION, ignore_merges=True
    )
    # Words back from their marks, with the letter that stands for a space between them; then letters back to bytes.
    whole.decoder = decoders.Sequence(
        [decoders.WordPiece(CONTINUATION, cleanup=False), decoders.Replace(" ", "Ġ"), decoders.ByteLevel()]
    )
    return _wrap(whole, WITHOUT_LIMIT), ids


def word_spacer(normalizer) -> Callable[[list[str]], list[str]]:
    """The function from texts to the words of each, spaces between them, that tokenizers made here look up.

    `normalizer` is theirs, a `BertNormalizer`. It and the splitting after it treat every character by itself. So they
    are asked once for each character what becomes of it, and many texts are translated at once, several times faster
    than one after the other.
    """
    from tokenizers import pre_tokenizers

    pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    class Translation(dict):
        def __missing__(self, character: int) -> str:
            words = pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(f"a{chr(character)}a"))
            self[character] = " ".join(word for word, _ in words)[1:-1]
            return self[character]

    translation = Translation({ord("\n"): "\n"})

    def space(texts: list[str]) -> list[str]:
        return "\n".join([text.replace("\n", " ") for text in texts]).translate(translation).split("\n")

    return space


def token_spacer(tokenizer) -> Callable[[list[str]], list[str]]:
    """The function from texts to the tokens of each, spaces between them, without special ones around them."""

    def space(texts: list[str]) -> list[str]:
        encoding = tokenizer(texts, add_special_tokens=False, verbose=False)
        return [" ".join(encoding.tokens(i)) for i in range(len(texts))]

    return space


def bert_normalizer(do_lower_case: bool = False, strip_accents: bool = False):
    """The normalizer of all tokenizers made here."""
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, lowercase=do_lower_case, strip_accents=strip_accents
    )


def load_tokenizer(name: str | Path):
    """The tokenizer of a folder or a Hub id. Raises `InputError` where there is none."""
    from transformers import AutoTokenizer

    folder = local_copy(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise InputError(f"{name}: no tokenizer in this folder; make one with: toolkit tokenizer --output_dir {name}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no tokenizer can be loaded ({first_line(error)})") from None
    if not tokenizer.is_fast:
        raise InputError(f"{name}: a slow tokenizer, which has no offsets; expected one with a tokenizer.json")
    return tokenizer


def is_byte_level(tokenizer) -> bool:
    """Whether this is a tokenizer of kind `bytes`."""
    return len(tokenizer) == FIRST_CONTINUATION_ID + NUM_BYTES and spells_words(tokenizer)


def spells_words(tokenizer) -> bool:
    """Whether this is a tokenizer of kind `bytes`, with whole words or without."""
    return tokenizer.convert_tokens_to_ids(CONTINUATION + "!") == FIRST_CONTINUATION_ID


def _byte_model():
    """BPE without merges over the 256 bytes, each as the start of a word and as its continuation."""
    from tokenizers import pre_tokenizers

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIAL_TOKENS.values(), *characters, *(CONTINUATION + character for character in characters)]
    return _subword_model("bpe", {piece: i for i, piece in enumerate(pieces)})


def _tokenizer(model, do_lower_case: bool, strip_accents: bool):
    from tokenizers import Tokenizer, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = bert_normalizer(do_lower_case, strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    ids = {token: i for i, token in enumerate(SPECIAL_TOKENS.values())}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    return tokenizer


def _wrap(tokenizer, model_max_length: int):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )
