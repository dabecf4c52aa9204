"""What recurrent networks share: kinds of cells and their initial weights."""

import torch
from torch import nn
from transformers import initialization as init

CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@torch.no_grad()
def initialize_recurrent(layer: nn.RNNBase) -> None:
    """Set random weights: orthogonal hidden-to-hidden matrices against exploding and vanishing gradients, uniform
    input-to-hidden matrices, each gate by itself, zero biases, and 1 as the bias of the forget gate of an LSTM.

    Saxe, McClelland & Ganguli (2014), https://arxiv.org/abs/1312.6120; Glorot & Bengio (2010),
    https://proceedings.mlr.press/v9/glorot10a.html; Gers, Schmidhuber & Cummins (2000), "Learning to forget",
    https://doi.org/10.1162/089976600300015015.
    """
    for name, parameter in layer.named_parameters():
        if "weight" in name:
            for gate in parameter.split(layer.hidden_size):
                (init.orthogonal_ if "weight_hh" in name else init.xavier_uniform_)(gate)
        else:
            init.zeros_(parameter)
            if "bias_ih" in name and isinstance(layer, nn.LSTM):
                init.ones_(parameter.split(layer.hidden_size)[1])


@torch.no_grad()
def initialize_embedding(embedding: nn.Embedding) -> None:
    """Set random vectors from a standard normal distribution, as torch does, and zeros for padding.

    With shorter vectors, gates start so close to one half that an LSTM or GRU learns a language more slowly.
    """
    init.normal_(embedding.weight)
    if embedding.padding_idx is not None:
        init.zeros_(embedding.weight[embedding.padding_idx])
