"""fastText as a Hugging Face encoder: a table of word vectors, and one of character n-grams for unknown words.

Bojanowski, Grave, Joulin & Mikolov (2017), "Enriching word vectors with subword information",
https://arxiv.org/abs/1607.04606. gensim trains the vectors. The heads are those of word2vec.

The input is a sequence of *pieces*, from the tokenizer that `toolkit pretrain fasttext` saves: a known word is one
piece, any other word one piece per byte. The vector of a word of one piece is in the table of words; that of a word of
several pieces is the mean of the vectors of its character n-grams. Every piece gets the vector of its word: logits and
offsets have one row per piece.

Shape legend: B batch, P pieces, W words, N words of the whole batch, H `hidden_size`.
"""

import torch
from torch import nn
from transformers import initialization as init

from .subwords import find_words, gather_rows
from .word2vec import (
    Word2VecConfig,
    Word2VecForSequenceClassification,
    Word2VecForTokenClassification,
    Word2VecPreTrainedModel,
    WordVectorOutput,
    copy_word_vectors,
)

# The bytes in the order of their pieces, which is the order of the characters that byte-level tokenizers write for
# them: printable bytes stand for themselves, the others are written as the characters from 256 on.
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173]


class FastTextConfig(Word2VecConfig):
    """Sizes of the tables of word and n-gram vectors and of the heads."""

    model_type = "toolkit-fasttext"

    vocab_size: int = 30517  # pieces: 5 special, 256 bytes that start a word, 256 that continue one, then whole words
    first_byte_id: int = 5
    first_continuation_id: int = 261
    num_buckets: int = 200_000  # rows of the table of n-grams; an n-gram's row is determined by its hash
    min_n: int = 3  # characters of the shortest n-gram, the brackets around a word included
    max_n: int = 6


class FastTextPreTrainedModel(Word2VecPreTrainedModel):
    config_class = FastTextConfig
    base_model_prefix = "fasttext"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.EmbeddingBag):
            init.normal_(module.weight, std=2 * self.config.hidden_size**-0.5)
        else:
            super()._init_weights(module)


class FastTextModel(FastTextPreTrainedModel):
    """Looks up the vector of each known word and composes that of every other word from its n-grams."""

    def __init__(self, config: FastTextConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.ngram_embeddings = nn.EmbeddingBag(config.num_buckets, config.hidden_size, mode="mean")
        self.post_init()

    @classmethod
    @torch.no_grad()
    def from_word_vectors(cls, config: FastTextConfig, word_vectors, vocabulary: dict[str, int]) -> "FastTextModel":
        """Build a model from gensim `FastTextKeyedVectors`; it gives `word_vectors[word]` for any word.

        `vocabulary` gives the id of the piece of each known word; the vectors are sorted by frequency. A word of one
        byte is one piece whether it is known or not. If it is not, the table gets its composed vector.
        """
        model = cls(config)
        copy_word_vectors(model.embeddings, word_vectors, vocabulary)
        model.ngram_embeddings.weight[:] = torch.from_numpy(word_vectors.vectors_ngrams)
        unknown = [BYTES.index(code) for code in range(128) if chr(code) not in vocabulary]
        pieces = config.first_byte_id + torch.tensor(unknown, dtype=torch.long)
        model.embeddings.weight[pieces] = model._compose(pieces, torch.arange(len(pieces)), len(pieces))
        return model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> WordVectorOutput:
        """`input_ids` (B, P), padded on the right -> `last_hidden_state` (B, P, H), zero for padding."""
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        mask, first = attention_mask.bool(), self.config.first_continuation_id
        continues = (input_ids >= first) & (input_ids < first + len(BYTES))
        starts, word_index, word_mask = find_words(continues, mask)

        word_of_piece = starts.flatten().cumsum(dim=0) - 1  # (B * P,), numbered over the whole batch
        vectors = self.embeddings(input_ids[starts])  # (N, H)
        is_composed = torch.zeros(len(vectors), dtype=torch.bool, device=mask.device)
        is_composed[word_of_piece[(continues & mask).flatten()]] = True
        chosen = mask.flatten() & is_composed[word_of_piece]
        rank = is_composed.cumsum(dim=0) - 1
        # Also without any such word, so that both tables have a gradient, as distributed training expects.
        pieces, words = input_ids.flatten()[chosen], rank[word_of_piece[chosen]]
        vectors[is_composed] = self._compose(pieces, words, int(is_composed.sum()))

        word_states = vectors.new_zeros(*word_mask.shape, vectors.shape[-1])
        word_states[word_mask] = vectors
        states = gather_rows(word_states, word_index) * attention_mask.unsqueeze(-1)
        output = WordVectorOutput(
            last_hidden_state=states,
            hidden_states=(states,) if output_hidden_states else None,
            word_states=word_states,
            word_index=word_index,
            word_mask=word_mask,
        )
        return output if return_dict is not False else output.to_tuple()

    def _compose(self, pieces: torch.Tensor, words: torch.Tensor, num_words: int) -> torch.Tensor:
        """Vectors (num_words, H) from the pieces of all words, in order, and the word of each piece, from 0."""
        codes = torch.tensor(BYTES, device=pieces.device)[(pieces - self.config.first_byte_id) % len(BYTES)]
        hashes, counts = ngram_hashes(codes, words, num_words, self.config.min_n, self.config.max_n)
        return self.ngram_embeddings(hashes % self.config.num_buckets, counts.cumsum(dim=0) - counts)


def ngram_hashes(
    codes: torch.Tensor, words: torch.Tensor, num_words: int, min_n: int, max_n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """fastText's hashes of n-grams of `min_n` to `max_n` characters: FNV-1a on bytes that are taken as signed.

    `codes` (bytes,) are the UTF-8 bytes of all words, one word after the other, and `words` (bytes,) the word of each
    byte, from 0; `<` and `>` are put around each word. Returns the hashes of the n-grams of all words, in order, and
    the number of n-grams of each word, (num_words,).
    """
    device = codes.device
    sizes = torch.bincount(words, minlength=num_words) + 2  # with brackets
    text_starts = sizes.cumsum(dim=0) - sizes
    places = torch.arange(len(codes), device=device) + 2 * words + 1  # of the bytes in the text with brackets
    text = codes.new_full((len(codes) + 2 * num_words,), ord(">"))
    text[text_starts] = ord("<")
    text[places] = codes
    is_bracket = torch.ones_like(text, dtype=torch.bool)
    is_bracket[places] = False

    # A character is a byte and up to three bytes that continue it, which begin with the bits 10.
    chars = ((text & 0xC0) != 0x80).nonzero().squeeze(1)  # (characters,)
    lengths = torch.diff(chars, append=chars.new_tensor([len(text)]))
    width = torch.arange(4, device=device)
    present = width < lengths.unsqueeze(1)  # (characters, 4)
    char_codes = text[(chars.unsqueeze(1) + width).clamp(max=len(text) - 1)]
    char_codes = torch.where(char_codes < 0x80, char_codes, char_codes | 0xFFFFFF00)

    hashes = []
    state = torch.full_like(chars, 2166136261)
    for n in range(max_n):  # extend the n-gram that starts at each character by one character
        for code, is_here in zip(char_codes.roll(-n, 0).unbind(1), present.roll(-n, 0).unbind(1), strict=True):
            state = torch.where(is_here, ((state ^ code) * 16777619) & 0xFFFFFFFF, state)
        hashes.append(state)

    word_of_char = torch.repeat_interleave(torch.arange(num_words, device=device), sizes)[chars]
    ends = torch.bincount(word_of_char, minlength=num_words).cumsum(dim=0)
    left = ends[word_of_char] - torch.arange(len(chars), device=device)  # characters up to the end of the word
    n = torch.arange(1, max_n + 1, device=device)
    fits = (n >= min_n) & (n <= left.unsqueeze(1))  # (characters, max_n)
    fits[:, 0] &= ~is_bracket[chars]
    counts = torch.zeros(num_words, dtype=torch.long, device=device).index_add_(0, word_of_char, fits.sum(dim=1))
    return torch.stack(hashes, dim=1)[fits], counts


class FastTextForTokenClassification(FastTextPreTrainedModel, Word2VecForTokenClassification):
    encoder_class = FastTextModel


class FastTextForSequenceClassification(FastTextPreTrainedModel, Word2VecForSequenceClassification):
    encoder_class = FastTextModel
