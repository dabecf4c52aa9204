"""Tokenizers of short strings such as words, pronunciations or numbers; decoding restores a text of known symbols.

A text is a sequence of symbols: its characters, its words between spaces, or pieces of words. Symbols in angle
brackets at the start of a text, such as `<N><GEN>` in `<N><GEN>talo`, are one symbol each: tags, or the name of a
language, that the text comes with. The pieces are those of BPE (Sennrich, Haddow & Birch 2016,
https://arxiv.org/abs/1508.07909), with the space before a word as in SentencePiece (Kudo & Richardson 2018,
https://arxiv.org/abs/1808.06226).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from toolkit.corpora.tokenization import SPECIAL_TOKENS, UNKNOWN, add_start_and_end, spells_words, wrap

Units = Literal["characters", "words", "pieces"]
SPACE = "_"  # for a tokenizer that drops spaces
_TAGS = re.compile(r"(?:<[^<>\s]+>)+")
_TAG = re.compile(r"<[^<>\s]+>")


def split_tags(text: str) -> tuple[list[str], str]:
    """The symbols in angle brackets at the start of a text, and the rest of it."""
    found = _TAGS.match(text)
    return (_TAG.findall(found[0]), text[found.end() :]) if found else ([], text)


def symbols_of(text: str, units: Units) -> list[str]:
    """The characters of a text or, with other units, its words: what mistakes are counted in."""
    return list(text) if units == "characters" else text.split()


def train_symbol_tokenizer(texts: Sequence[str], units: Units, vocab_size: int, tags: Iterable[str] = ()):
    """Train a tokenizer on texts without tags; `tags` are further symbols.

    The same texts give the same tokenizer. `vocab_size` limits words and pieces, special tokens included and tags not.
    Rarer words are unknown; BPE splits them. All characters are kept.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import AddedToken

    if units == "pieces":
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        special: Any = list(SPECIAL_TOKENS.values())
        tokenizer.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
        )
    else:
        counts = Counter(symbol for text in texts for symbol in symbols_of(text, units))
        frequent = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        if units == "words":
            frequent = frequent[: vocab_size - len(SPECIAL_TOKENS)]
        vocabulary = {symbol: i for i, symbol in enumerate([*SPECIAL_TOKENS.values(), *frequent])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        if units == "characters":
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            tokenizer.decoder = decoders.Fuse()
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.normalizer = normalizers.NFC()
    add_start_and_end(tokenizer)
    wrapped = wrap(tokenizer)
    wrapped.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    return wrapped


def encode_sources(tokenizer, texts: Sequence[str], by_character: bool = False) -> list[list[int]]:
    """The ids of sources. With `by_character` the tokenizer gets each character as a word of its own."""
    if not texts:
        return []
    if not by_character:
        return tokenizer(list(texts), verbose=False)["input_ids"]
    words = [[*tags, *rest.replace(" ", SPACE)] for tags, rest in map(split_tags, texts)]
    return tokenizer(words, is_split_into_words=True, verbose=False)["input_ids"]


def unknown_symbols(tokenizer, text: str, units: Units) -> list[str]:
    """The tags, and the characters or words of a source that a tokenizer does not know."""
    tags, rest = split_tags(text)
    vocabulary = tokenizer.get_vocab()
    unknown = [tag for tag in tags if tag not in vocabulary and not spells_words(tokenizer)]
    parts = symbols_of(rest, units)
    encoding = tokenizer(parts, add_special_tokens=False, verbose=False)["input_ids"] if parts else []
    unknown += [part for part, ids in zip(parts, encoding, strict=True) if tokenizer.unk_token_id in ids]
    return list(dict.fromkeys(unknown))
