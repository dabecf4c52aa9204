"""ELMo's character encoder: the vector of a word from its bytes.

Kim, Jernite, Sontag & Rush (2016), "Character-aware neural language models", https://arxiv.org/abs/1508.06615.
Highway layers are due to Srivastava, Greff & Schmidhuber (2015), "Highway networks", https://arxiv.org/abs/1505.00387.

Shape legend: D distinct words, L bytes of a word, H width of a word vector.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init


class ElmoCharacterEncoder(nn.Module):
    """Convolutions of several widths, the maximum over positions, highway layers and a projection."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.embeddings = nn.Embedding(config.vocab_size, config.char_embedding_size)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embedding_size, filters, width) for width, filters in config.char_filters
        )
        num_filters = sum(filters for _, filters in config.char_filters)
        self.highways = nn.ModuleList(
            nn.Linear(num_filters, 2 * num_filters) for _ in range(config.num_highway_layers)
        )
        self.projection = nn.Linear(num_filters, config.hidden_size)

    @torch.no_grad()
    def initialize(self) -> None:
        """Set random weights."""
        init.normal_(self.embeddings.weight, std=0.5)
        for layer in [*self.convolutions, *self.highways, self.projection]:
            init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            init.zeros_(layer.bias)
        for highway in self.highways:  # a highway layer starts by passing most of its input through (gate 0.88)
            init.constant_(highway.bias[highway.bias.shape[0] // 2 :], 2.0)

    def forward(self, spellings: torch.Tensor) -> torch.Tensor:
        """`spellings` (D, L), piece ids padded on the right with `pad_token_id` -> (D, H)."""
        is_byte = spellings != self.pad_token_id
        lengths = is_byte.sum(dim=1)
        by_length = lengths.argsort()
        # One product for all convolutions and bytes. Windows may extend beyond the end of a word, into its padding.
        widest = max(convolution.kernel_size[0] for convolution in self.convolutions)
        padded = F.pad(spellings[by_length], (0, widest - 1), value=self.pad_token_id)
        size = self.embeddings.embedding_dim
        windows = self.embeddings(padded).flatten(1).unfold(1, widest * size, size)  # (D, L, widest * size)
        features = F.linear(windows[is_byte[by_length]], *self._joint_convolution(widest))  # (bytes, filters)
        # The maximum over the bytes of each word, for all words of one length at a time; without bytes it is 0.
        counts = lengths.bincount().tolist()
        parts = features.split([length * count for length, count in enumerate(counts)])
        pooled = [part.unflatten(0, (-1, length)).amax(dim=1) for length, part in enumerate(parts) if len(part)]
        states = F.relu(torch.cat([features.new_zeros(counts[0], features.shape[1]), *pooled]))[by_length.argsort()]
        for highway in self.highways:
            transform, gate = highway(states).chunk(2, dim=-1)
            gate = torch.sigmoid(gate)
            states = gate * states + (1 - gate) * F.relu(transform)
        return self.projection(states)

    def _joint_convolution(self, widest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (filters, widest * char_embedding_size) and bias (filters,) of all convolutions as one."""
        weights = [F.pad(layer.weight, (0, widest - layer.kernel_size[0])) for layer in self.convolutions]
        weight = torch.cat(weights).transpose(1, 2).flatten(1)  # from (filters, char_embedding_size, widest)
        return weight, torch.cat([layer.bias for layer in self.convolutions])


class WordCache:
    """Keeps the vectors that a character encoder has computed, as long as its weights do not change."""

    MAX_WORDS = 200_000  # then the cache is emptied; with vectors of 256 numbers these are 200 MB

    def __init__(self):
        self.version: tuple = ()
        self.keys = self.vectors = torch.empty(0)

    def look_up(self, keys: torch.Tensor, spellings: torch.Tensor, encoder: ElmoCharacterEncoder) -> torch.Tensor:
        """The vectors (D, H) of the words `spellings` (D, L), computed for new words only.

        The sorted numbers `keys` (D,) identify the words.
        """
        device = spellings.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        # `_version` counts changes in place; torch has no public name for it.
        version = precision, *((weight.data_ptr(), weight._version) for weight in encoder.parameters())
        if version != self.version or len(self.keys) > self.MAX_WORDS:
            self.version, self.keys, self.vectors = version, keys, encoder(spellings)
        missing = ~torch.isin(keys, self.keys)
        if missing.any():
            all_keys = torch.cat([self.keys, keys[missing]])
            all_vectors = torch.cat([self.vectors, encoder(spellings[missing])])
            self.keys, order = all_keys.sort()
            self.vectors = all_vectors[order]
        return self.vectors[torch.searchsorted(self.keys, keys)]
