"""Train a tokenizer on text, or load one: always a plain `PreTrainedTokenizerFast`, its padding on the right.

WordPiece is of Schuster & Nakajima (2012), BPE of Sennrich, Haddow & Birch (2016), https://arxiv.org/abs/1508.07909;
`tokenizers` trains both. The kind `bytes` is for encoders that read the spelling of words: one piece a byte, `##` on
each piece that continues its word; `with_whole_words` makes words that an encoder knows one piece each. All kinds
split text at white space and punctuation first, as BERT does.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from toolkit.corpora.arguments import MEMORY_GB
from toolkit.corpora.corpus import Corpus, digest
from toolkit.corpora.word_counts import WordCounts, count_words, count_words_of
from toolkit.corpora.workers import available_cores
from toolkit.errors import InputError, first_line
from toolkit.hub.download import local_copy

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
# What training takes, as measured: the program, each process that counts, each word counted or trained on.
BYTES_WITHOUT_WORDS, BYTES_A_PROCESS, BYTES_COUNTED, BYTES_TRAINED = 350_000_000, 120_000_000, 200, 900
NUM_BYTES = 256
TEXTS_TOGETHER = 1000
WORDS_A_TEXT = 10_000  # that the library is trained on
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

    `texts` is read once, by `bytes`, which has a fixed vocabulary, not at all. Words seen fewer than `min_frequency`
    times are left out of `word`, and merges seen fewer times out of `wordpiece` and `bpe`. A `BertNormalizer` of
    another tokenizer takes the place of lower-casing and stripping. The same texts give the same tokenizer.
    """
    normalizer = normalizer or bert_normalizer(do_lower_case, strip_accents)
    check_vocabulary(kind, vocab_size)
    rest = iter(() if kind == "bytes" else texts)
    words = count_words_of(iter(lambda: list(islice(rest, TEXTS_TOGETHER)), []), word_spacer(normalizer))
    return tokenizer_of_words(words, kind, vocab_size, min_frequency, normalizer, model_max_length)


def train_on_corpus(
    corpus: Corpus,
    kind: Kind,
    normalizer,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    memory_gb: float = MEMORY_GB,
    num_proc: int | None = None,
    on_block: Callable[[int, int], None] = lambda done, of: None,
):
    """The same on a corpus of any size, with as many distinct words as fit into `memory_gb`; and the counts of words.

    While all fit the tokenizer is that of `train_tokenizer`; else the rarest are dropped.
    """
    check_vocabulary(kind, vocab_size)
    if kind == "bytes":
        words = WordCounts()
    else:
        max_words = words_that_fit(memory_gb, BYTES_COUNTED if kind == "word" else BYTES_TRAINED)
        room = memory_gb * 1e9 - BYTES_WITHOUT_WORDS - max_words * BYTES_COUNTED
        num_proc = max(1, min(num_proc or available_cores(), int(room / BYTES_A_PROCESS)))
        words = count_words(corpus, word_spacer(normalizer), max_words, num_proc, on_block)
    return tokenizer_of_words(words, kind, vocab_size, min_frequency, normalizer), words


def words_that_fit(memory_gb: float, bytes_a_word: int = BYTES_COUNTED) -> int:
    """How many distinct words there is room for in so much memory, beside the program and two processes that count.

    Raises `InputError` where there is next to none.
    """
    room = memory_gb * 1e9 - BYTES_WITHOUT_WORDS
    if bytes_a_word == BYTES_COUNTED:
        room -= 2 * BYTES_A_PROCESS
    if room <= 0:
        raise InputError(f"--memory_gb {memory_gb}: too little for the program itself, expected 0.7 or more")
    return int(room / bytes_a_word)


def check_vocabulary(kind: Kind, vocab_size: int) -> None:
    """Raises `InputError` where there is no such kind, or it cannot have so few entries."""
    if kind not in get_args(Kind):
        raise InputError(f"--kind {kind}: expected one of {', '.join(get_args(Kind))}")
    smallest = len(SPECIAL_TOKENS) + 1
    if kind != "bytes" and vocab_size < smallest:
        raise InputError(
            f"--vocab_size {vocab_size}: expected at least {smallest}, {len(SPECIAL_TOKENS)} are special tokens"
        )


def tokenizer_of_words(
    words: WordCounts, kind: Kind, vocab_size: int, min_frequency: int, normalizer, model_max_length: int = 512
):
    """The tokenizer that `train_tokenizer` trains on texts, of counts of their words."""
    from tokenizers import pre_tokenizers

    if kind == "bytes":
        tokenizer = _tokenizer(_byte_model(), normalizer)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, byte_level])
        return _wrap(tokenizer, WITHOUT_LIMIT)
    if kind == "word":
        frequent = [word for word, count in words.counts.items() if count >= min_frequency]
        frequent.sort(key=lambda word: (-words.counts[word], word))
        return word_level_tokenizer(frequent[: vocab_size - len(SPECIAL_TOKENS)], normalizer)
    return _wrap(_train_subwords(kind, words, normalizer, vocab_size, min_frequency), model_max_length)


class LineEncoder:
    """From lines to the pieces of those that are not blank, without special ones around them.

    Tokenizers made here encode each word by itself, so words are encoded once and then looked up, several times
    faster; with others, and where the text holds special tokens, all of the text is encoded.
    """

    MAX_WORDS, MAX_LETTERS = 1 << 18, 1 << 23  # known at a time

    def __init__(self, tokenizer):
        self._backend = _without_state(tokenizer)
        description = json.loads(self._backend.to_str())
        self._special = [token["content"] for token in description["added_tokens"]]
        self._space = word_spacer(self._backend.normalizer) if _encodes_words(description) else None
        self._known = _KnownWords(self._backend)

    def __call__(self, lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of all lines one after the other, and how many there are of each line."""
        lines = [line for line in lines if line and not line.isspace()]
        text = "\n".join(lines)
        if not lines or self._space is None or any(token in text for token in self._special):
            rows = [encoding.ids for encoding in self._backend.encode_batch_fast(lines, add_special_tokens=False)]
            lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
            return np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=lengths.sum()), lengths
        words = [line.split() for line in self._space(lines)]
        num_words = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        pieces, ends = self._known.look_up(list(chain.from_iterable(words)))
        if len(self._known) > self.MAX_WORDS or self._known.num_letters > self.MAX_LETTERS:
            self._known = _KnownWords(self._backend)
        return pieces, np.diff(ends[np.concatenate([[0], np.cumsum(num_words)])])


class _KnownWords(dict[str, int]):
    """Words, each with its number, by which its pieces are found."""

    def __init__(self, backend):
        from tokenizers import pre_tokenizers

        self._model, self._new = backend.model, []  # type: ignore[var-annotated]
        self.num_letters = 0
        self._byte_level = None
        if isinstance(backend.pre_tokenizer, pre_tokenizers.Sequence):
            self._byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        # Arrays that grow; one that numpy looks into cannot.
        self._sizes, self._starts, self._pieces = array("i"), array("i"), array("i")

    def __missing__(self, word: str) -> int:
        self._new.append(word)
        self[word] = len(self)
        return self[word]

    def look_up(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of all words one after the other, and where those of each end, after a zero."""
        numbers = np.fromiter(map(self.__getitem__, words), dtype=np.int64, count=len(words))
        self.num_letters += sum(map(len, self._new))
        for word in self._new:
            if self._byte_level is not None:
                ((word, _),) = self._byte_level.pre_tokenize_str(word)
            ids = [token.id for token in self._model.tokenize(word)]
            self._sizes.append(len(ids))
            self._starts.append(len(self._pieces))
            self._pieces.extend(ids)
        self._new.clear()
        sizes, starts, pieces = (np.frombuffer(of, dtype=np.int32) for of in (self._sizes, self._starts, self._pieces))
        sizes = sizes[numbers]
        ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return pieces[np.repeat(starts[numbers] - ends[:-1], sizes) + np.arange(ends[-1])], ends


def key_of(tokenizer) -> str:
    """The same for tokenizers that cut texts into the same pieces."""
    return digest(_without_state(tokenizer).to_str(), version("tokenizers"))


def _without_state(tokenizer):
    """A copy of what does the work of a tokenizer, without the truncation and padding of the last call."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _encodes_words(description: dict[str, Any]) -> bool:
    """Whether it splits text as `word_spacer` does and cuts each word by itself, but for special tokens."""
    normalizer = description["normalizer"] or {}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    bert = {"type": "BertPreTokenizer"}
    splits = (bert, {"type": "Sequence", "pretokenizers": [bert, byte_level]})
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and description["pre_tokenizer"] in splits
        and not description["model"].get("dropout")
        and all(token["special"] and not token["normalized"] for token in description["added_tokens"])
    )


def _train_subwords(kind: Kind, words: WordCounts, normalizer, vocab_size: int, min_frequency: int):
    """Train so that the same words give the same vocabulary.

    The library numbers the letters that continue a word in the order of a hash table, and the numbers decide between
    merges of equal count (https://github.com/huggingface/tokenizers/issues/1794). Named as special tokens the letters
    are numbered in our order; a model with the trained vocabulary then takes the place of the one with such tokens.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers

    trainer_class = trainers.WordPieceTrainer if kind == "wordpiece" else trainers.BpeTrainer
    trainer = trainer_class(
        special_tokens=[*SPECIAL_TOKENS.values(), *(CONTINUATION + letter for letter in sorted(words.letters))],
        continuing_subword_prefix=CONTINUATION,
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
    )
    trained = Tokenizer(_subword_model(kind))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(repeated(words.counts), trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]] if kind == "bpe" else None
    tokenizer = _tokenizer(_subword_model(kind, model["vocab"], merges), normalizer)
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def repeated(counts: Mapping[str, int]) -> Iterator[str]:
    """Each word as often as it occurs: the library trains on text alone."""
    for word, count in counts.items():
        while count > 0:
            yield " ".join([word] * min(count, WORDS_A_TEXT))
            count -= WORDS_A_TEXT


def _subword_model(kind: Kind, vocabulary: dict[str, int] | None = None, merges: list[tuple] | None = None):
    from tokenizers import models

    if kind == "wordpiece":
        return models.WordPiece(vocabulary or {}, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION)
    return models.BPE(vocabulary or {}, merges or [], unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION)


def word_level_tokenizer(words: Iterable[str], normalizer):
    """A tokenizer of kind `word` with exactly these words, in this order after the special tokens."""
    from tokenizers import models

    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS.values(), *words])}
    return _wrap(_tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN), normalizer), WITHOUT_LIMIT)


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
    folder = local_copy(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise InputError(f"{name}: no tokenizer in this folder; make one with: toolkit tokenizer --output_dir {name}")
    try:
        tokenizer = _tokenizer_class(folder).from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no tokenizer can be loaded ({first_line(error)})") from None
    if not tokenizer.is_fast:
        raise InputError(f"{name}: a slow tokenizer, which has no offsets; expected one with a tokenizer.json")
    return tokenizer


def _tokenizer_class(folder: Path):
    """The class that loads a tokenizer: for those that need no code of their own without torch, which AutoTokenizer
    takes seconds and half a gigabyte to load."""
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    except (OSError, ValueError, AttributeError):
        named = None
    if named in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def continuing_tokens(tokenizer) -> np.ndarray:
    """(vocab_size,): whether a token goes on with the word of the token before it, which its ## says.

    Raises `InputError` where no token does.
    """
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    continues = np.array([piece.startswith(CONTINUATION) and piece != CONTINUATION for piece in pieces])
    if not continues.any():
        raise InputError("--whole_word_mask: the tokenizer does not mark the pieces that continue a word with ##")
    return continues


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


def _tokenizer(model, normalizer):
    from tokenizers import Tokenizer, pre_tokenizers, processors

    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
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
