"""word2vec as a Hugging Face encoder: a table of word vectors, which gensim trains.

Mikolov, Chen, Corrado & Dean (2013), "Efficient estimation of word representations in vector space",
https://arxiv.org/abs/1301.3781. Since a word vector does not depend on its context, the heads read windows of words:
Collobert, Weston, Bottou, Karlen, Kavukcuoglu & Kuksa (2011), "Natural language processing (almost) from scratch",
https://arxiv.org/abs/1103.0398. To classify a text, they take the maximum of each feature over all windows: Kim
(2014), "Convolutional neural networks for sentence classification", https://arxiv.org/abs/1408.5882.

Shape legend: B batch, T tokens, H `hidden_size`.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput

from .heads import TextClassifierMixin
from .subwords import gather_rows


class Word2VecConfig(PreTrainedConfig):
    """Sizes of a table of word vectors and of the heads."""

    model_type = "toolkit-word2vec"

    vocab_size: int = 30000
    hidden_size: int = 100
    classifier_window: int = 5  # words per window, an odd number; the word to classify is in the middle
    classifier_hidden_size: int = 128
    classifier_dropout: float = 0.3
    pad_token_id: int | None = 0


@dataclass
class WordVectorOutput(BaseModelOutput):
    """Output of an encoder whose states are vectors of words; `last_hidden_state` has one row per token."""

    word_states: torch.Tensor | None = None  # (B, W, H)
    word_index: torch.Tensor | None = None  # (B, P), the word of each token, if words have several
    word_mask: torch.Tensor | None = None  # (B, W), zero for padding


class Word2VecPreTrainedModel(PreTrainedModel):
    config_class = Word2VecConfig
    base_model_prefix = "word2vec"
    _input_embed_layer = "embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            # The norm of gensim's vectors of frequent words is about 2 to 4; random vectors get a similar one.
            init.normal_(module.weight, std=2 * self.config.hidden_size**-0.5)
            init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, (nn.Conv1d, nn.Linear)):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)


@torch.no_grad()
def copy_word_vectors(embeddings: nn.Embedding, word_vectors, vocabulary: dict[str, int]) -> None:
    """Fill a table from gensim `KeyedVectors`, sorted by frequency; `vocabulary` gives the row of each word.

    Words that gensim does not know, such as [UNK], get the mean of the rarest tenth of the words, and padding zeros.
    """
    vectors = torch.from_numpy(word_vectors.vectors.copy())
    embeddings.weight[:] = vectors[-max(1, len(vectors) // 10) :].mean(dim=0)
    known = [(vocabulary[word], i) for word, i in word_vectors.key_to_index.items() if word in vocabulary]
    rows, indices = torch.tensor(known).T
    embeddings.weight[rows] = vectors[indices]
    embeddings.weight[embeddings.padding_idx] = 0


class Word2VecModel(Word2VecPreTrainedModel):
    """Looks up the vector of each word, or that of [UNK] for a word that is not in the vocabulary."""

    def __init__(self, config: Word2VecConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.post_init()

    @classmethod
    def from_word_vectors(cls, config: Word2VecConfig, word_vectors, vocabulary: dict[str, int]) -> "Word2VecModel":
        """Build a model from gensim `KeyedVectors`, sorted by frequency, and the vocabulary of the tokenizer."""
        model = cls(config)
        copy_word_vectors(model.embeddings, word_vectors, vocabulary)
        return model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> WordVectorOutput:
        """`input_ids` (B, T) -> `last_hidden_state` (B, T, H), zero where `attention_mask` (B, T) is zero."""
        states = self.embeddings(input_ids)
        if attention_mask is not None:
            states = states * attention_mask.unsqueeze(-1)
        output = WordVectorOutput(
            last_hidden_state=states,
            hidden_states=(states,) if output_hidden_states else None,
            word_states=states,
            word_mask=attention_mask,
        )
        return output if return_dict is not False else output.to_tuple()


class Word2VecWindow(nn.Module):
    """Computes features of each word from the vectors in a window around it."""

    def __init__(self, config: Word2VecConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.window = nn.Conv1d(
            config.hidden_size, config.classifier_hidden_size, config.classifier_window, padding="same"
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(B, T, H) -> (B, T, classifier_hidden_size), non-negative."""
        states = self.dropout(states).transpose(1, 2)  # (B, H, T)
        return self.dropout(F.relu(self.window(states)).transpose(1, 2))


class WindowClassifierMixin(TextClassifierMixin):
    """A classifier of words or texts by windows of words."""

    encoder_class = Word2VecModel

    def add_head(self, config: Word2VecConfig) -> None:
        self.window = Word2VecWindow(config)
        self.classifier = nn.Linear(config.classifier_hidden_size, config.num_labels)


class Word2VecForTokenClassification(WindowClassifierMixin, Word2VecPreTrainedModel):
    """Classifies each word by the window around it; one row of logits per token."""

    output_class = TokenClassifierOutput

    def logits(self, outputs: WordVectorOutput) -> torch.Tensor:
        logits = self.classifier(self.window(outputs.word_states))
        return logits if outputs.word_index is None else gather_rows(logits, outputs.word_index)


class Word2VecForSequenceClassification(WindowClassifierMixin, Word2VecPreTrainedModel):
    """Classifies a text by the maximum of each feature over all windows."""

    output_class = SequenceClassifierOutput

    def logits(self, outputs: WordVectorOutput) -> torch.Tensor:
        features = self.window(outputs.word_states)  # (B, W, classifier_hidden_size), non-negative
        if outputs.word_mask is not None:
            features = features * outputs.word_mask.unsqueeze(-1)  # so that padding is never the maximum
        return self.classifier(features.amax(dim=1))
