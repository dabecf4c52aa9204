"""Build tokenizers and load them: always a plain `PreTrainedTokenizerFast` that pads on the right.

All kinds split text at white space and punctuation first, as BERT does. The kind `bytes` is for encoders that read the
spelling of words: one piece per byte, with `##` before each piece that continues a word.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy

TokenizerKind = Literal["wordpiece", "bpe", "word", "bytes"]
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
UNKNOWN = SPECIAL_TOKENS["unk_token"]
CONTINUATION = "##"
SUBWORDS: dict[str, Any] = {"unk_token": UNKNOWN, "continuing_subword_prefix": CONTINUATION}  # of WordPiece and BPE
WITHOUT_LIMIT = int(1e30)  # transformers' value for a model that reads texts of any length
NUM_BYTES = 256
MAX_LETTERS_A_WORD = 100  # of WordPiece in `tokenizers`
FIRST_CONTINUATION_ID = len(SPECIAL_TOKENS) + NUM_BYTES  # of the kind `bytes`: ids from here on continue a word


def bert_normalizer(do_lower_case: bool = False, strip_accents: bool = False):
    """The normalizer of all tokenizers built here."""
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, lowercase=do_lower_case, strip_accents=strip_accents
    )


def build_byte_tokenizer(normalizer):
    """The tokenizer of kind `bytes`: BPE without merges over 256 bytes, each as the start of a word and as its
    continuation."""
    from tokenizers import models, pre_tokenizers

    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIAL_TOKENS.values(), *characters, *(CONTINUATION + character for character in characters)]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, [], **SUBWORDS)
    tokenizer = build_tokenizer(model, normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, byte_level()])
    return wrap(tokenizer)


def word_level_tokenizer(words: Iterable[str], normalizer):
    """A tokenizer of kind `word` with exactly these words, in this order after the special tokens."""
    from tokenizers import models

    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS.values(), *words])}
    return wrap(build_tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN), normalizer))


def with_whole_words(tokenizer, words: Iterable[str]):
    """Add whole words to a tokenizer of kind `bytes`, so that each of them is one piece.

    Returns the new tokenizer, and the id of each word. The ids follow those of the bytes, in the order of the words;
    a word of one byte has the id of that byte.
    """
    from tokenizers import Tokenizer, models

    vocabulary, ids = tokenizer.get_vocab(), {}
    for word in words:
        ((piece, _),) = byte_level().pre_tokenize_str(word)
        ids[word] = vocabulary.setdefault(piece, len(vocabulary))
    whole = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    whole.model = models.BPE(vocabulary, [], **SUBWORDS, ignore_merges=True)
    whole.decoder = byte_decoder()
    return wrap(whole), ids


def byte_decoder():
    """The decoder of the kind `bytes`: it joins pieces to words, with the letter that stands for a space between
    words, and then turns letters into bytes."""
    from tokenizers import decoders

    return decoders.Sequence(
        [decoders.WordPiece(CONTINUATION, cleanup=False), decoders.Replace(" ", "Ġ"), decoders.ByteLevel()]
    )


def byte_level():
    """The pre-tokenizer that writes each byte of a word as a letter."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def cutter():
    """The pre-tokenizer that cuts long words into parts: WordPiece takes a word that is longer for an unknown one, and
    in scripts without spaces a word is a whole clause."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(rf"\S{{{MAX_LETTERS_A_WORD}}}"), "isolated")


def build_tokenizer(model, normalizer):
    """A `tokenizers.Tokenizer` that splits text as BERT does and encodes it as `[CLS] … [SEP]`."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    add_start_and_end(tokenizer)
    return tokenizer


def add_start_and_end(tokenizer) -> None:
    """Let a `tokenizers.Tokenizer` with the `SPECIAL_TOKENS` encode a text as `[CLS] … [SEP]`."""
    from tokenizers import processors

    cls, sep = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    special_ids = [(token, i) for i, token in enumerate(SPECIAL_TOKENS.values()) if token in (cls, sep)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=special_ids
    )


def wrap(tokenizer, model_max_length: int = WITHOUT_LIMIT):
    """The `PreTrainedTokenizerFast` of a `tokenizers.Tokenizer`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )


def load_tokenizer(name: str | Path):
    """Load a tokenizer from a folder or a Hub id. Raises `InputError` if there is none, or only a slow one."""
    folder = local_copy(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise InputError(f"{name}: no tokenizer in this folder; make one with: toolkit tokenizer --output_dir {name}")
    try:
        tokenizer = _class_of(folder).from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no tokenizer can be loaded ({first_line(error)})") from None
    if not tokenizer.is_fast:
        raise InputError(f"{name}: a slow tokenizer, which has no offsets; expected one with a tokenizer.json")
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:  # as of a GPT; what is padded is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise InputError(f"{name}: the tokenizer has no token for padding, nor for the end of a text")
    return tokenizer


def space_before_words(tokenizer) -> str:
    """What to put before each word but the first of a sentence whose words are given one by one: a space or nothing.

    A tokenizer that marks the space before a word, as RoBERTa's does, would else take it for the rest of another word.
    """
    in_text = tokenizer("a a", add_special_tokens=False)["input_ids"]
    with_space, without = (
        tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
        for words in (["a", " a"], ["a", "a"])
    )
    return " " if with_space == in_text != without else ""


def _class_of(folder: Path):
    """The class that loads a tokenizer. `AutoTokenizer` imports torch, which takes seconds and half a gigabyte, so it
    is used only for tokenizers with a class of their own."""
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    except (OSError, ValueError, AttributeError):
        named = None
    if named in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def continues_word(tokenizer) -> np.ndarray:
    """Whether each token continues the word of the token before it, (vocab_size,), marked by ##."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return np.array([bool(piece) and piece.startswith(CONTINUATION) and piece != CONTINUATION for piece in pieces])


def continuing_tokens(tokenizer) -> np.ndarray:
    """Like `continues_word`. Raises `InputError` if no token does."""
    continues = continues_word(tokenizer)
    if not continues.any():
        raise InputError("--whole_word_mask: the tokenizer does not mark the pieces that continue a word with ##")
    return continues


def is_byte_level(tokenizer) -> bool:
    """Whether a tokenizer is of kind `bytes`, without whole words."""
    return len(tokenizer) == FIRST_CONTINUATION_ID + NUM_BYTES and spells_words(tokenizer)


def spells_words(tokenizer) -> bool:
    """Whether a tokenizer is of kind `bytes`, with or without whole words."""
    return tokenizer.convert_tokens_to_ids(CONTINUATION + "!") == FIRST_CONTINUATION_ID
