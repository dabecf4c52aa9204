"""Split and encode many texts at once, several times faster than one by one."""

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import chain, islice
from typing import Any

import numpy as np

from toolkit.corpora.tokenization import MAX_LETTERS_A_WORD, byte_level
from toolkit.data.cache import digest

MAX_LOST = 0.01  # fraction of unknown pieces, and of lost letters, above which there is a warning
TEXTS_LOOKED_AT = 200  # to say how much of a corpus a tokenizer does not know

# The pre-tokenizers of tokenizers built here, as they describe themselves.
_BERT = {"type": "BertPreTokenizer"}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_CUTTER = {
    "type": "Split",
    "pattern": {"Regex": rf"\S{{{MAX_LETTERS_A_WORD}}}"},
    "behavior": "Isolated",
    "invert": False,
}
_BERT_AND_BYTES = {"type": "Sequence", "pretokenizers": [_BERT, _BYTES]}
_BERT_AND_CUTTER = {"type": "Sequence", "pretokenizers": [_BERT, _CUTTER]}


def word_spacer(normalizer) -> Callable[[list[str]], list[str]]:
    """A function that normalizes texts and puts spaces between their words, as tokenizers built here split them.

    The `BertNormalizer` and the splitting after it treat every character by itself. So they are called once for each
    character, and the texts are translated character by character.
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
    """A function that puts spaces between the tokens of texts, without special tokens around them."""

    def space(texts: list[str]) -> list[str]:
        encoding = tokenizer(texts, add_special_tokens=False, verbose=False)
        return [" ".join(encoding.tokens(i)) for i in range(len(texts))]

    return space


class _Numbers(dict[str, int]):
    """Words, numbered in the order in which they are first looked up."""

    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return self[word]


class LineEncoder:
    """Encode lines that are not blank, without special tokens around them.

    Tokenizers built here encode each word by itself, so a word is encoded once and then looked up. With other
    tokenizers, and where the text contains special tokens, `tokenizers` encodes the text.
    """

    MAX_WORDS, MAX_LETTERS = 1 << 18, 1 << 23  # that are remembered

    def __init__(self, tokenizer):
        self._backend = _without_state(tokenizer)
        description = json.loads(self._backend.to_str())
        self._special = [token["content"] for token in description["added_tokens"]]
        self._space = word_spacer(self._backend.normalizer) if _encodes_words(description) else None
        self._byte_level = byte_level() if description["pre_tokenizer"] == _BERT_AND_BYTES else None
        self._cuts = description["pre_tokenizer"] == _BERT_AND_CUTTER
        self._forget()

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._num_letters = 0
        self._pieces, self._ends = array("i"), array("i", [0])  # ids of all words; where those of each word end

    def __call__(self, lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all lines, concatenated, and the number of ids of each line."""
        lines = [line for line in lines if line and not line.isspace()]
        text = "\n".join(lines)
        if not lines or self._space is None or any(token in text for token in self._special):
            rows = [encoding.ids for encoding in self._backend.encode_batch_fast(lines, add_special_tokens=False)]
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            return np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=lengths.sum()), lengths
        words = [line.split() for line in self._space(lines)]
        num_words = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        ids, ends = self._look_up(list(chain.from_iterable(words)))
        if len(self._numbers) > self.MAX_WORDS or self._num_letters > self.MAX_LETTERS:
            self._forget()
        return ids, np.diff(ends[np.concatenate([[0], np.cumsum(num_words)])])

    def _cut(self, word: str) -> list[str]:
        """The parts of a word that the model gets one by one; all but the last have the largest length."""
        if not self._cuts or len(word) <= MAX_LETTERS_A_WORD:
            return [word]
        return [word[start : start + MAX_LETTERS_A_WORD] for start in range(0, len(word), MAX_LETTERS_A_WORD)]

    def _look_up(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all words, concatenated, and where those of each word end, after a zero."""
        num_known, model = len(self._numbers), self._backend.model
        numbers = np.fromiter(map(self._numbers.__getitem__, words), dtype=np.int64, count=len(words))
        for word in reversed([*islice(reversed(self._numbers), len(self._numbers) - num_known)]):
            self._num_letters += len(word)
            if self._byte_level is not None:
                ((word, _),) = self._byte_level.pre_tokenize_str(word)
            for part in self._cut(word):
                self._pieces.extend([token.id for token in model.tokenize(part)])
            self._ends.append(len(self._pieces))
        # The views of numpy end with this call: an array cannot grow while there is one.
        pieces, bounds = np.frombuffer(self._pieces, dtype=np.int32), np.frombuffer(self._ends, dtype=np.int32)
        starts, sizes = bounds[numbers], np.diff(bounds)[numbers]
        ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return pieces[np.repeat(starts - ends[:-1], sizes) + np.arange(ends[-1])], ends


def lost_text(tokenizer, texts: Sequence[str]) -> tuple[float, float]:
    """The fraction of the pieces of texts that are unknown, and the fraction of their letters that are lost so."""
    texts = [text for text in texts if text.strip()]
    if not texts or tokenizer.unk_token_id is None:
        return 0.0, 0.0
    encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    num_pieces = num_unknown = num_lost = 0
    for ids, offsets in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True):
        unknown = [stop - start for i, (start, stop) in zip(ids, offsets, strict=True) if i == tokenizer.unk_token_id]
        num_pieces, num_unknown, num_lost = num_pieces + len(ids), num_unknown + len(unknown), num_lost + sum(unknown)
    num_letters = sum(len("".join(text.split())) for text in texts)
    return num_unknown / max(1, num_pieces), num_lost / max(1, num_letters)


def describe_lost_text(tokenizer, texts: Iterable[str]) -> str:
    """A line that says how much of the first texts a tokenizer does not know, with advice if that is more than 1%."""
    unknown, lost = lost_text(tokenizer, list(islice(texts, TEXTS_LOOKED_AT)))
    line = f"{unknown:.1%} of the pieces are unknown, {lost:.1%} of the letters are lost"
    if max(unknown, lost) <= MAX_LOST:
        return line
    return f"warning: {line}; use a tokenizer that was trained on such text: toolkit tokenizer"


def key_of(tokenizer) -> str:
    """A hash that is the same for tokenizers that encode texts in the same way."""
    return digest(_without_state(tokenizer).to_str(), version("tokenizers"))


def _without_state(tokenizer):
    """A copy of the backend of a tokenizer, without the truncation and padding of its last call."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _encodes_words(description: dict[str, Any]) -> bool:
    """Whether a tokenizer splits text as `word_spacer` does and encodes each word by itself."""
    normalizer = description["normalizer"] or {}
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and description["pre_tokenizer"] in (_BERT, _BERT_AND_BYTES, _BERT_AND_CUTTER)
        and not description["model"].get("dropout")
        and all(token["special"] and not token["normalized"] for token in description["added_tokens"])
    )
