"""fastText as a Hugging Face encoder: a table of word vectors, and one of n-grams for the words that it lacks.

Bojanowski, Grave, Joulin & Mikolov (2017), "Enriching word vectors with subword information",
https://arxiv.org/abs/1607.04606. gensim trains the vectors (`toolkit.pretraining.skip_gram`); this file holds them.
The heads are word2vec's, windows of neighbours.

The input is a sequence of *pieces*, as `toolkit pretrain fasttext` leaves a tokenizer for them: a word of the
vocabulary is one piece, any other one piece a byte. The vector of a word of one piece stands in the table; that of
a word of several is the mean of the vectors of its n-grams of characters. Every piece gets the vector of its word:
logits and offsets stay one row a piece.

Shape legend: B batch, P pieces, W words, N words of the whole batch, H `hidden_size`.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput

from .heads import classification_output
from .pieces import find_words, gather_rows
from .word2vec import Word2VecConfig, Word2VecPreTrainedModel, Word2VecWindow, copy_word_vectors

# The bytes in the order of their pieces, that of the letters by which byte-level tokenizers write them: the printable
# ones are themselves, the others follow from letter 256 on.
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173]


class FastTextConfig(Word2VecConfig):
    """Sizes of the tables of word and n-gram vectors, and of the heads' window on them."""

    model_type = "toolkit-fasttext"

    vocab_size: int = 30517  # pieces: 5 special, 256 bytes that start a word, 256 that continue one, then whole words
    first_byte_id: int = 5
    first_continuation_id: int = 261
    num_buckets: int = 200_000  # rows of the table of n-grams, which share them by their hashes
    min_n: int = 3  # characters of the shortest n-gram, the brackets around a word included
    max_n: int = 6


@dataclass
class FastTextOutput(BaseModelOutput):
    """`last_hidden_state` (B, P, H): the vector of its word for each piece. `word_states`: the same, one row a word,
    (B, W, H). `word_index` (B, P): the word that each piece belongs to. `word_mask` (B, W): real words."""

    word_states: torch.Tensor | None = None
    word_index: torch.Tensor | None = None
    word_mask: torch.Tensor | None = None


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
    """Looks up the vector of each known word, and composes that of every other word from its n-grams."""

    def __init__(self, config: FastTextConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.ngram_embeddings = nn.EmbeddingBag(config.num_buckets, config.hidden_size, mode="mean")
        self.post_init()

    @classmethod
    @torch.no_grad()
    def from_word_vectors(cls, config: FastTextConfig, word_vectors, vocabulary: dict[str, int]) -> "FastTextModel":
        """From gensim `FastTextKeyedVectors`, sorted by frequency, and the piece that is each of its words.

        The vectors are then gensim's `word_vectors[word]`, of known words and of all others. A word of one byte is one
        piece, whether it is known or not: where it is not, its composed vector is put into the table.
        """
        model = cls(config)
        copy_word_vectors(model.embeddings, word_vectors, vocabulary)
        model.ngram_embeddings.weight[:] = torch.from_numpy(word_vectors.vectors_ngrams)
        lacking = [BYTES.index(code) for code in range(128) if chr(code) not in vocabulary]
        pieces = config.first_byte_id + torch.tensor(lacking, dtype=torch.long)
        model.embeddings.weight[pieces] = model._compose(pieces, torch.arange(len(pieces)), len(pieces))
        return model

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> FastTextOutput:
        """`input_ids` and `attention_mask` (B, P), padded on the right -> `last_hidden_state` (B, P, H), zero where
        `attention_mask` is."""
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        mask, first = attention_mask.bool(), self.config.first_continuation_id
        continues = (input_ids >= first) & (input_ids < first + len(BYTES))
        starts, word_index, word_mask = find_words(continues, mask)

        number = starts.flatten().cumsum(dim=0) - 1  # (B * P,), which word of the batch each piece belongs to
        vectors = self.embeddings(input_ids[starts])  # (N, H)
        spelled = torch.zeros(len(vectors), dtype=torch.bool, device=mask.device)
        spelled[number[(continues & mask).flatten()]] = True
        of_spelled = mask.flatten() & spelled[number]
        rank = spelled.cumsum(dim=0) - 1
        # Also where no word is spelled: every table then has its gradient, as processes that share gradients expect.
        pieces, words = input_ids.flatten()[of_spelled], rank[number[of_spelled]]
        vectors[spelled] = self._compose(pieces, words, int(spelled.sum()))

        word_states = vectors.new_zeros(*word_mask.shape, vectors.shape[-1])
        word_states[word_mask] = vectors
        states = gather_rows(word_states, word_index) * attention_mask.unsqueeze(-1)
        output = FastTextOutput(
            last_hidden_state=states,
            hidden_states=(states,) if output_hidden_states else None,
            word_states=word_states,
            word_index=word_index,
            word_mask=word_mask,
        )
        return output if return_dict is not False else output.to_tuple()

    def _compose(self, pieces: torch.Tensor, words: torch.Tensor, num_words: int) -> torch.Tensor:
        """The vectors of words, (num_words, H), from all their pieces and the word of each, both in order."""
        codes = torch.tensor(BYTES, device=pieces.device)[(pieces - self.config.first_byte_id) % len(BYTES)]
        hashes, counts = ngram_hashes(codes, words, num_words, self.config.min_n, self.config.max_n)
        return self.ngram_embeddings(hashes % self.config.num_buckets, counts.cumsum(dim=0) - counts)


def ngram_hashes(
    codes: torch.Tensor, words: torch.Tensor, num_words: int, min_n: int, max_n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """fastText's hashes of the n-grams of words: FNV-1a, with bytes that have a sign, as in its first implementation.

    `codes` are the UTF-8 bytes of all words, one word after the other, and `words` the word of each, from 0. The
    n-grams are those of `min_n` to `max_n` characters of the word between `<` and `>`. Returns the hashes, in the
    order of the words, and the number of each word's, (num_words,).
    """
    device = codes.device
    sizes = torch.bincount(words, minlength=num_words) + 2  # with the brackets
    opens = sizes.cumsum(dim=0) - sizes
    inner = torch.arange(len(codes), device=device) + 2 * words + 1  # where each byte stands, of all with brackets
    text = codes.new_full((len(codes) + 2 * num_words,), ord(">"))
    text[opens] = ord("<")
    text[inner] = codes
    is_bracket = torch.ones_like(text, dtype=torch.bool)
    is_bracket[inner] = False

    # A character is a byte and those after it that continue it, which begin with the bits 10; there are four at most.
    chars = ((text & 0xC0) != 0x80).nonzero().squeeze(1)  # (characters,)
    lengths = torch.diff(chars, append=chars.new_tensor([len(text)]))
    width = torch.arange(4, device=device)
    present = width < lengths.unsqueeze(1)  # (characters, 4)
    char_codes = text[(chars.unsqueeze(1) + width).clamp(max=len(text) - 1)]
    char_codes = torch.where(char_codes < 0x80, char_codes, char_codes | 0xFFFFFF00)

    hashes = []
    state = torch.full_like(chars, 2166136261)
    for n in range(max_n):  # the n-gram that starts at each character grows by a character
        for code, is_here in zip(char_codes.roll(-n, 0).unbind(1), present.roll(-n, 0).unbind(1), strict=True):
            state = torch.where(is_here, ((state ^ code) * 16777619) & 0xFFFFFFFF, state)
        hashes.append(state)

    word_of_char = torch.repeat_interleave(torch.arange(num_words, device=device), sizes)[chars]
    ends = torch.bincount(word_of_char, minlength=num_words).cumsum(dim=0)
    left = ends[word_of_char] - torch.arange(len(chars), device=device)  # characters from here to the end of the word
    n = torch.arange(1, max_n + 1, device=device)
    fits = (n >= min_n) & (n <= left.unsqueeze(1))  # (characters, max_n)
    fits[:, 0] &= ~is_bracket[chars]
    counts = torch.zeros(num_words, dtype=torch.long, device=device).index_add_(0, word_of_char, fits.sum(dim=1))
    return torch.stack(hashes, dim=1)[fits], counts


class FastTextForTokenClassification(FastTextPreTrainedModel):
    """Tags a word from the vectors of the words around it; one row of logits a piece."""

    def __init__(self, config: FastTextConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.fasttext = FastTextModel(config)
        self.window = Word2VecWindow(config)
        self.classifier = nn.Linear(config.classifier_hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """`labels` (B, P), -100 where a piece has none; logits (B, P, num_labels)."""
        outputs = self.fasttext(input_ids, attention_mask, output_hidden_states=output_hidden_states)
        word_logits = self.classifier(self.window(outputs.word_states))  # (B, W, num_labels)
        logits = gather_rows(word_logits, outputs.word_index)
        return classification_output(TokenClassifierOutput, logits, labels, outputs.hidden_states, return_dict)


class FastTextForSequenceClassification(FastTextPreTrainedModel):
    """Classifies a text by the strongest response of each feature to any of its windows."""

    def __init__(self, config: FastTextConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.fasttext = FastTextModel(config)
        self.window = Word2VecWindow(config)
        self.classifier = nn.Linear(config.classifier_hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """`labels` (B,); logits (B, num_labels)."""
        outputs = self.fasttext(input_ids, attention_mask, output_hidden_states=output_hidden_states)
        features = self.window(outputs.word_states) * outputs.word_mask.unsqueeze(-1)  # (B, W, classifier_hidden_size)
        logits = self.classifier(features.amax(dim=1))  # no feature is below zero: padding never wins
        return classification_output(SequenceClassifierOutput, logits, labels, outputs.hidden_states, return_dict)
