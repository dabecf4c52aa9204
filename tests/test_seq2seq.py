"""Sequence to sequence models: attention by hand, padding, and `generate` against the model's own probabilities."""

import math
from itertools import product

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig

from toolkit.models.recurrent import CELLS
from toolkit.models.rnn import RnnConfig, RnnForPreTraining
from toolkit.models.seq2seq import ATTENTIONS, AdditiveAttention, Seq2SeqConfig, Seq2SeqForConditionalGeneration

START, END = 2, 3
NUM_LETTERS = 6
SOURCES = torch.tensor([[4, 5, 6, 7, 8], [9, 4, 0, 0, 0]])
LABELS = torch.tensor([[5, 6, 7, END], [8, END, -100, -100]])
TRANSFORMER = BertConfig(
    vocab_size=10,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    is_decoder=True,
    add_cross_attention=True,
)


def small(attention: str = "additive", cell: str = "lstm", encoder=None, **sizes) -> Seq2SeqForConditionalGeneration:
    """A small model; its attention may also be `transformer`, for such a decoder."""
    torch.manual_seed(0)
    if attention == "transformer":
        attention, sizes["transformer"] = "none", TRANSFORMER.to_dict()
    sizes_of_encoder = {"hidden_size": 16, "num_hidden_layers": 1, "hidden_dropout_prob": 0.0}
    encoder = encoder or RnnConfig(vocab_size=4 + NUM_LETTERS, cell=cell, **sizes_of_encoder)
    width = encoder.hidden_size * getattr(encoder, "num_directions", 1)
    config = Seq2SeqConfig(
        encoder=encoder.to_dict(),
        encoder_width=width,
        vocab_size=4 + NUM_LETTERS,
        cell=cell,
        attention=attention,
        hidden_dropout_prob=0.0,
        **{"hidden_size": 32, **sizes},
    )
    return Seq2SeqForConditionalGeneration(config).eval()


@pytest.fixture(scope="module", params=["additive", "transformer"])
def reverser(request) -> Seq2SeqForConditionalGeneration:
    """A model that has nearly learned to write a word backwards, so that not all of its answers are sure."""
    model = small(request.param)
    is_transformer = request.param == "transformer"
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3 if is_transformer else 1e-2)
    for _ in range(400 if is_transformer else 250):
        sources, labels = words(64)
        loss = model.train()(sources, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def words(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words of one to six letters, and each one backwards with the token that ends it."""
    lengths = torch.randint(1, 7, (number,))
    sources, labels = torch.zeros(number, 6, dtype=torch.long), torch.full((number, 7), -100)
    for row, length in enumerate(lengths.tolist()):
        letters = torch.randint(4, 4 + NUM_LETTERS, (length,))
        sources[row, :length] = letters
        labels[row, :length] = letters.flip(0)
        labels[row, length] = END
    return sources, labels


def log_probability(model, source: torch.Tensor, sequence: torch.Tensor) -> float:
    """The log-probability of a generated sequence, from its start token to its end, by teacher forcing."""
    target = [int(token) for token in sequence[1:]]
    target = target[: target.index(END) + 1] if END in target else target
    with torch.no_grad():
        logits = model(source[None], labels=torch.tensor([target])).logits[0]
    return float(logits.log_softmax(-1)[range(len(target)), target].sum())


def test_additive_attention_equals_a_hand_calculation():
    attention = AdditiveAttention(hidden_size=2, encoder_width=1)
    with torch.no_grad():
        attention.query.weight[:] = torch.tensor([[1.0, 0.0], [0.5, -1.0]])
        attention.query.bias[:] = torch.tensor([0.1, -0.2])
        attention.key.weight[:] = torch.tensor([[2.0], [-1.0]])
        attention.score.weight[:] = torch.tensor([[3.0, 4.0]])
    state, memory = torch.tensor([[[0.3, -0.4]]]), torch.tensor([[[0.0], [0.5], [-1.0]]])
    expected = [
        3 * math.tanh(0.4 + 2 * h) + 4 * math.tanh(0.5 * 0.3 + 0.4 - 0.2 - h) for h in (0.0, 0.5, -1.0)
    ]  # three states of the encoder
    assert attention(state, memory)[0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("attention", "cell"), [*product(["none", *ATTENTIONS], CELLS), ("transformer", "lstm")])
def test_padding_of_source_and_target_changes_nothing(attention, cell):
    model = small(attention, cell)
    with torch.no_grad():
        together = model(SOURCES, labels=LABELS)
        alone = model(SOURCES[1:, :2], labels=LABELS[1:, :2])
        first = model(SOURCES[:1], labels=LABELS[:1])
    torch.testing.assert_close(together.logits[1:, :2], alone.logits, rtol=0, atol=1e-5)
    mean = (4 * first.loss + 2 * alone.loss) / 6  # over the tokens of both targets
    assert together.loss.item() == pytest.approx(mean.item(), rel=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_weights_of_attention_are_shares_of_the_source(attention):
    with torch.no_grad():
        (weights,) = small(attention)(SOURCES, labels=LABELS, output_attentions=True).cross_attentions
    assert weights.shape == (2, 1, 4, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 4))
    assert weights[1, :, :, 2:].abs().max() == 0


def test_without_attention_the_decoder_knows_of_the_source_its_final_states_only():
    model = small("none")
    with torch.no_grad():
        encoded = model.encoder(SOURCES)
        states = encoded.last_hidden_state
        torch.testing.assert_close(encoded.pooler_output[0], torch.cat([states[0, 4, :16], states[0, 0, 16:]]))
        torch.testing.assert_close(encoded.pooler_output[1], torch.cat([states[1, 1, :16], states[1, 0, 16:]]))
        before = model(SOURCES, labels=LABELS).logits
        encoded.last_hidden_state = torch.zeros_like(states)
        torch.testing.assert_close(model(encoder_outputs=encoded, labels=LABELS).logits, before)


def test_an_encoder_of_transformers_is_read_too():
    encoder = BertConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = small(encoder=encoder)
    with torch.no_grad():
        together = model(SOURCES, labels=LABELS).logits
        alone = model(SOURCES[1:, :2], labels=LABELS[1:, :2]).logits
    torch.testing.assert_close(together[1:, :2], alone, rtol=0, atol=1e-5)


def test_it_learns_and_greedy_search_takes_the_likeliest_token_at_each_step(reverser):
    torch.manual_seed(1)
    sources, labels = words(100)
    generated = reverser.generate(sources, max_new_tokens=8, num_beams=1, do_sample=False)
    right = 0
    for source, label, found in zip(sources, labels, generated, strict=True):
        tokens = [START]
        while tokens[-1] != END and len(tokens) < 9:
            with torch.no_grad():
                logits = reverser(source[None], decoder_input_ids=torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
        assert found[: len(tokens)].tolist() == tokens
        right += tokens[1:] == label[label != -100].tolist()
    assert right >= 80


@pytest.mark.parametrize("num_beams", [1, 4])
def test_generation_with_and_without_the_cache_agree(num_beams, reverser):
    torch.manual_seed(2)
    sources, _ = words(30)
    settings = {"max_new_tokens": 8, "num_beams": num_beams, "do_sample": False}
    with_cache = reverser.generate(sources, **settings, use_cache=True)
    without = reverser.generate(sources, **settings, use_cache=False)
    assert torch.equal(with_cache, without)


def test_the_scores_of_beams_are_log_probabilities_and_not_below_greedy_search(reverser):
    torch.manual_seed(3)
    sources, _ = words(40)
    settings = {"max_new_tokens": 8, "do_sample": False}
    greedy = reverser.generate(sources, **settings, num_beams=1)
    beams = reverser.generate(
        sources,
        **settings,
        num_beams=5,
        length_penalty=0.0,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    of_model = reverser.log_probabilities({"input_ids": sources, "attention_mask": sources > 0}, beams.sequences)
    best, of_greedy = [], []
    for row, source in enumerate(sources):
        for place in (2 * row, 2 * row + 1):
            by_hand = log_probability(reverser, source, beams.sequences[place])
            assert beams.sequences_scores[place].item() == pytest.approx(by_hand, abs=1e-4)
            assert of_model[place].item() == pytest.approx(by_hand, abs=1e-4)
        best.append(beams.sequences_scores[2 * row].item())
        of_greedy.append(log_probability(reverser, source, greedy[row]))
    assert sum(best) >= sum(of_greedy) - 1e-4


def test_a_decoder_starts_as_the_language_model_that_it_was_loaded_from():
    torch.manual_seed(0)
    language_model = RnnForPreTraining(RnnConfig(vocab_size=10, hidden_size=16, num_hidden_layers=2)).eval()
    with torch.no_grad():
        language_model.output_bias.weight.normal_()
        expected = language_model(SOURCES[:1]).forward_logits[0]
        states = language_model.rnn(SOURCES[:1], of_words=False).last_hidden_state[0, :-1, :16]
        for attention in ("none", "additive"):
            model = small(attention, hidden_size=16, num_hidden_layers=2)
            model.decoder.load_pretrained(language_model)
            model.decoder.bridge.weight.zero_()  # as the language model starts
            found = model(SOURCES, decoder_input_ids=SOURCES[:1, :-1].expand(2, -1)).logits
            if attention == "none":
                torch.testing.assert_close(found[0], expected)
            else:
                flatter = F.linear(states.tanh(), language_model.output_embeddings.weight)
                torch.testing.assert_close(found[0], flatter + language_model.output_bias.weight.squeeze(-1))
                torch.testing.assert_close(found[0], found[1], msg="at first the source does not count")


def test_all_parameters_get_a_gradient_also_with_an_encoder_that_has_a_pooler():
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = small(encoder=BertConfig(vocab_size=4 + NUM_LETTERS, hidden_size=16, pad_token_id=0, **sizes))
    model(SOURCES, labels=LABELS).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_generate_returns_the_attention_at_each_step():
    settings = {"max_new_tokens": 3, "min_new_tokens": 3, "output_attentions": True, "return_dict_in_generate": True}
    found = small().generate(SOURCES, **settings)
    assert len(found.cross_attentions) == 3
    with torch.no_grad():
        (weights,) = small()(
            SOURCES, decoder_input_ids=found.sequences[:, :-1], output_attentions=True
        ).cross_attentions
    for step, (of_step,) in enumerate(found.cross_attentions):
        torch.testing.assert_close(of_step[:, :, 0], weights[:, :, step])


def test_label_smoothing_is_used_in_training_only():
    model = small(label_smoothing=0.1)
    logits = model(SOURCES, labels=LABELS).logits
    plain = F.cross_entropy(logits.flatten(0, 1), LABELS.flatten())
    smooth = F.cross_entropy(logits.flatten(0, 1), LABELS.flatten(), label_smoothing=0.1)
    assert model(SOURCES, labels=LABELS).loss.item() == pytest.approx(plain.item())
    assert model.train()(SOURCES, labels=LABELS).loss.item() == pytest.approx(smooth.item())


def test_a_saved_model_is_the_same(reverser, tmp_path):
    reverser.save_pretrained(tmp_path)
    loaded = Seq2SeqForConditionalGeneration.from_pretrained(tmp_path).eval()
    sources, labels = words(5)
    with torch.no_grad():
        assert torch.equal(loaded(sources, labels=labels).logits, reverser(sources, labels=labels).logits)
    settings = {"max_new_tokens": 8, "num_beams": 3}
    assert torch.equal(loaded.generate(sources, **settings), reverser.generate(sources, **settings))


@pytest.mark.parametrize("field", [{"cell": "transformer"}, {"attention": "hard"}])
def test_unknown_kinds_are_named(field):
    with pytest.raises(ValueError, match="expected one of"):
        Seq2SeqConfig(**field)
