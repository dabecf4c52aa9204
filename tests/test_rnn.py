"""Recurrent networks: each cell against its equations, what each direction may see, and pretraining to a tagger."""

import json
import math

import pytest
import torch
from in_process import error_of, run_here
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer

from toolkit.models.elmo import ElmoConfig, ElmoForPreTraining
from toolkit.models.rnn import RnnConfig, RnnForPreTraining, RnnModel

CELLS = ("rnn", "gru", "lstm")
INPUT_IDS = torch.tensor([[2, 11, 12, 13, 14, 3], [2, 15, 16, 3, 0, 0]])
CONTINUES = (13, 16)  # tokens that continue the word of the token before them
FLAGS = ["--preset", "lstm-tiny", "--vocab_size", "500", "--max_length", "24", "--batch_size", "8", "--max_steps", "4"]


def small(model_class=RnnModel, **sizes):
    torch.manual_seed(0)
    config = RnnConfig(vocab_size=20, hidden_size=7, **{"num_hidden_layers": 1, **sizes})
    model = model_class(config).eval()
    model.base_model.continues[list(CONTINUES)] = True
    for name, parameter in model.named_parameters():  # the biases are zero at first
        if "bias" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    return model


def elman(x, h, c, w_i, w_h, b_i, b_h):
    return torch.tanh(w_h @ h + w_i @ x + b_i + b_h), c


def gru(x, h, c, w_i, w_h, b_i, b_h):
    (r_i, z_i, n_i), (r_h, z_h, n_h) = (w_i @ x + b_i).chunk(3), (w_h @ h + b_h).chunk(3)
    r, z = torch.sigmoid(r_i + r_h), torch.sigmoid(z_i + z_h)
    return (1 - z) * torch.tanh(n_i + r * n_h) + z * h, c


def lstm(x, h, c, w_i, w_h, b_i, b_h):
    i, f, g, o = (w_i @ x + b_i + w_h @ h + b_h).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def unrolled(model, input_ids: torch.Tensor) -> torch.Tensor:
    """The states of one layer and direction as a feed-forward network with one layer for each token, (T, H)."""
    step = {"rnn": elman, "gru": gru, "lstm": lstm}[model.config.cell]
    layer = model.forward_layers[0]
    weights = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
    h = c = torch.zeros(model.config.hidden_size)
    states = []
    for x in model.embeddings(input_ids):
        h, c = step(x, h, c, *weights)
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("cell", CELLS)
def test_a_network_with_a_cycle_is_the_same_network_unrolled(cell):
    """In its outputs and in the gradient of every weight."""
    model = small(cell=cell, num_directions=1)
    gradients = []
    for states in (model(INPUT_IDS[:1], of_words=False).last_hidden_state[0], unrolled(model, INPUT_IDS[0])):
        model.zero_grad()
        (states * torch.arange(states.numel()).view_as(states)).sum().backward()
        gradients.append((states.detach(), *(p.grad.clone() for p in model.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing(cell):
    model = small(cell=cell, num_hidden_layers=3)
    with torch.no_grad():
        alone, padded = model(INPUT_IDS[1:, :4]), model(INPUT_IDS)
    torch.testing.assert_close(alone.last_hidden_state[0], padded.last_hidden_state[1, :4], rtol=0, atol=1e-5)


def test_the_second_direction_reads_the_text_backwards():
    """Its states are those that the first direction has for the reversed text, with the same weights."""
    model = small(num_hidden_layers=2)
    model.backward_layers.load_state_dict(model.forward_layers.state_dict())
    with torch.no_grad():
        states = model(INPUT_IDS[:1], of_words=False).last_hidden_state
        reversed_states = model(INPUT_IDS[:1].flip(1), of_words=False).last_hidden_state
    torch.testing.assert_close(states[..., 7:], reversed_states[..., :7].flip(1))


def test_all_tokens_of_a_word_have_the_states_after_the_whole_word():
    model = small()
    with torch.no_grad():
        of_tokens = model(INPUT_IDS, of_words=False).last_hidden_state
        of_words = model(INPUT_IDS).last_hidden_state
    # The words of the first text are at the places 0, 1, 2 to 3, 4 and 5.
    for place, last, first in ((0, 0, 0), (1, 1, 1), (2, 3, 2), (3, 3, 2), (4, 4, 4), (5, 5, 5)):
        torch.testing.assert_close(of_words[0, place, :7], of_tokens[0, last, :7])
        torch.testing.assert_close(of_words[0, place, 7:], of_tokens[0, first, 7:])
    torch.testing.assert_close(of_words[1, 1, :7], of_tokens[1, 2, :7])


@pytest.mark.parametrize("cell", CELLS)
def test_a_language_model_does_not_see_the_token_that_it_predicts(cell):
    model = small(RnnForPreTraining, cell=cell, num_hidden_layers=2)
    other = INPUT_IDS.clone()
    other[0, 3] = 5
    with torch.no_grad():
        before, after = model(INPUT_IDS), model(other)
    # Logits at place i are of token i + 1 (forwards) and of token i (backwards).
    assert torch.equal(before.forward_logits[0, :3], after.forward_logits[0, :3])
    assert not torch.allclose(before.forward_logits[0, 3], after.forward_logits[0, 3])
    assert torch.equal(before.backward_logits[0, 3:], after.backward_logits[0, 3:])
    assert not torch.allclose(before.backward_logits[0, 2], after.backward_logits[0, 2])


@pytest.mark.parametrize("num_directions", [1, 2])
def test_the_loss_is_the_mean_over_predicted_tokens_of_all_directions(num_directions):
    model = small(RnnForPreTraining, num_directions=num_directions)
    labels = INPUT_IDS.masked_fill((INPUT_IDS == 0) | (INPUT_IDS == 2), -100)
    with torch.no_grad():
        logits, loss = model(INPUT_IDS), model(INPUT_IDS, labels=labels).loss
    losses = []
    for row, tokens in enumerate(INPUT_IDS.tolist()):
        for place, token in enumerate(tokens):
            if token in (0, 2):
                continue
            losses.append(F.cross_entropy(logits.forward_logits[row, place - 1], torch.tensor(token)))
            if num_directions == 2 and place < 5:
                losses.append(F.cross_entropy(logits.backward_logits[row, place], torch.tensor(token)))
    assert loss.item() == pytest.approx(sum(losses).item() / len(losses), rel=1e-5)


def test_with_all_tokens_as_negatives_the_sampled_loss_is_the_exact_one():
    model = small(RnnForPreTraining)
    labels = INPUT_IDS.masked_fill((INPUT_IDS == 0) | (INPUT_IDS == 2), -100)
    sampled = model(INPUT_IDS, labels=labels, negatives=torch.arange(20), negative_log_counts=torch.zeros(20)).loss
    assert sampled.item() == pytest.approx(model(INPUT_IDS, labels=labels).loss.item(), rel=1e-5)


@pytest.mark.parametrize("model_class", [RnnForPreTraining, ElmoForPreTraining])
def test_backwards_the_last_word_of_a_short_text_is_not_predicted_from_padding_that_has_read_it(model_class):
    torch.manual_seed(0)
    if model_class is RnnForPreTraining:
        model = small(RnnForPreTraining)
        longer, shorter = [2, 11, 12, 14, 3], [2, 15, 3]
    else:
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "output_vocab_size": 20}
        model = ElmoForPreTraining(ElmoConfig(vocab_size=600, **sizes)).eval()
        longer, shorter = [5, 6, 7, 8, 9], [6, 9, 7]
    torch.nn.init.normal_(model.output_bias.weight)
    with torch.no_grad():
        logits = model(torch.tensor([longer, shorter + [0, 0]])).backward_logits
    torch.testing.assert_close(logits[1, 2], model.output_bias.weight.squeeze(-1))
    assert not torch.allclose(logits[1, 1], logits[1, 2])


@pytest.fixture(scope="module")
def language_model(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rnn") / "lstm"
    done = run_here("pretrain", "rnn", "--corpus", corpus, "--output_dir", folder, *FLAGS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("cell", ["rnn", pytest.param("gru", marks=pytest.mark.slow)])
def test_the_same_seed_and_a_resumed_run_give_the_same_weights(cell, corpus, tmp_path):
    flags = ["--corpus", corpus, *FLAGS, "--preset", f"{cell}-tiny", "--save_steps", "3"]
    weights = []
    for folder, more in ((tmp_path / "one", []), (tmp_path / "two", []), (tmp_path / "one", ["--resume"])):
        done = run_here("pretrain", "rnn", *flags, "--output_dir", folder, *more)
        assert done.returncode == 0, done.stderr
        assert ("resuming from" in done.stdout + done.stderr) == bool(more)
        weights.append((folder / "model.safetensors").read_bytes())
        (folder / "results.json").unlink()
    assert weights[0] == weights[1] == weights[2]


def test_perplexity_equals_a_calculation_by_hand(language_model, tmp_path):
    """Of one window, which starts with `[CLS]`."""
    text = "The cat sat on the mat."
    (tmp_path / "text.txt").write_text(text)
    flags = ["--data", f"text:{tmp_path / 'text.txt'}", "--output_file", tmp_path / "score.json"]
    done = run_here("score", language_model, *flags)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "score.json").read_text())["metrics"]
    model = AutoModelForPreTraining.from_pretrained(language_model)
    ids = AutoTokenizer.from_pretrained(language_model)(text)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids]))
    forward = F.cross_entropy(logits.forward_logits[0], torch.tensor(ids[1:]))
    backward = F.cross_entropy(logits.backward_logits[0, 1:], torch.tensor(ids[1:-1]), reduction="none")
    assert metrics["forward_perplexity"]["value"] == pytest.approx(math.exp(forward), rel=1e-5)
    assert metrics["backward_perplexity"]["value"] == pytest.approx(math.exp(backward.mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("units", "flags"),
    [("words", []), ("characters", ["--num_directions", "1", "--num_hidden_layers", "2", "--preset", "rnn-tiny"])],
)
def test_units_and_directions(units, flags, corpus, tmp_path):
    done = run_here("pretrain", "rnn", "--corpus", corpus, "--output_dir", tmp_path, *FLAGS, "--units", units, *flags)
    assert done.returncode == 0, done.stderr
    pieces = AutoTokenizer.from_pretrained(tmp_path).tokenize("the")
    assert pieces == {"words": ["the"], "characters": ["t", "##h", "##e"]}[units]
    model = AutoModel.from_pretrained(tmp_path)
    assert model.config.num_directions == (1 if flags else 2)
    assert len(model.forward_layers) == (2 if flags else 1)
    assert model.continues.any() == (units == "characters")


def test_an_lstm_becomes_a_tagger(language_model, tmp_path):
    flags = ["--data", "sample", "--train_size", "40", "--max_steps", "4", "--output_dir", tmp_path / "tagger"]
    done = run_here("finetune", "pos", "--encoder", language_model, *flags)
    assert done.returncode == 0, done.stderr
    done = run_here("predict", tmp_path / "tagger", "Two uncommonly long words.")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 5
    done = run_here("finetune", "pos", "--encoder", "scratch:rnn-tiny", *flags, "--overwrite_output_dir")
    assert done.returncode == 0, done.stderr
    assert AutoModel.from_pretrained(tmp_path / "tagger").continues.any()  # also of a network with random weights


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_directions", "3"], "--num_directions 3: expected 1 or 2"),
        (["--num_hidden_layers", "0"], "--num_hidden_layers 0: expected a number greater than zero"),
        (["--max_length", "2"], "--max_length 2: expected at least 3"),
        (["--preset", "bert-tiny"], "unknown preset 'bert-tiny'"),
    ],
)
def test_bad_flags_are_one_line(flags, message, corpus, tmp_path):
    done = run_here("pretrain", "rnn", "--corpus", corpus, "--output_dir", tmp_path / "run", *flags)
    assert message in error_of(done)
    assert not (tmp_path / "run").exists()
