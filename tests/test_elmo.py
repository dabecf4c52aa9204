"""The ELMo encoder: words from pieces, both directions, and cached character vectors."""

import torch
from encoder_cases import ATTENTION_MASK, INPUT_IDS

from toolkit.models import elmo

CONFIG = elmo.ElmoConfig(
    hidden_size=12, char_embedding_size=6, char_filters=[[1, 6], [3, 8]], output_vocab_size=50, num_labels=4
)


def make(model_class):
    torch.manual_seed(0)
    return model_class(CONFIG).eval()


def test_padding_is_found_by_the_ids_without_a_mask():
    model = make(elmo.ElmoForTokenClassification)
    with torch.no_grad():
        assert torch.equal(model(INPUT_IDS, attention_mask=ATTENTION_MASK).logits, model(INPUT_IDS).logits)


def elmo_states(input_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The forward and the backward states of the top layer: (words, H) each."""
    with torch.no_grad():
        states = make(elmo.ElmoModel)(torch.tensor([input_ids])).word_states[-1][0]
    return states.chunk(2, dim=-1)


def test_forward_states_do_not_see_later_words_nor_backward_states_earlier_ones():
    forwards, backwards = elmo_states([2, 70, 330, 71, 331, 72, 3])
    changed_forwards, changed_backwards = elmo_states([2, 70, 330, 71, 335, 72, 3])  # another third word
    assert torch.equal(forwards[:2], changed_forwards[:2])
    assert not torch.allclose(forwards[2:], changed_forwards[2:])
    assert torch.equal(backwards[3:], changed_backwards[3:])
    assert not torch.allclose(backwards[:3], changed_backwards[:3])


def test_pieces_have_the_state_of_their_word_and_one_row_of_logits_each():
    model = make(elmo.ElmoForTokenClassification)
    with torch.no_grad():
        output = model(INPUT_IDS, attention_mask=ATTENTION_MASK, output_hidden_states=True)
    assert output.logits.shape == (2, 8, 4)
    assert torch.equal(output.logits[0, 1], output.logits[0, 3])
    assert not torch.allclose(output.logits[0, 3], output.logits[0, 4])
    assert [state.shape for state in output.hidden_states] == [(2, 8, 24)] * 3


def test_a_word_has_the_same_characters_wherever_it_stands():
    with torch.no_grad():
        states = make(elmo.ElmoModel)(torch.tensor([[2, 70, 330, 71, 70, 330, 3]])).word_states[0][0]
    assert torch.equal(states[1], states[3])
    assert not torch.allclose(states[1], states[2])


def test_two_layers_equal_torch_run_by_hand():
    """Compare with `nn.LSTM` applied word by word to one sentence."""
    model = make(elmo.ElmoModel)
    with torch.no_grad():
        output = model(INPUT_IDS, attention_mask=ATTENTION_MASK)
        words = output.word_states[0][1, :3, :12]  # the second sentence has three words
        for layers, half, order in (
            (model.forward_layers, slice(0, 12), [0, 1, 2]),
            (model.backward_layers, slice(12, 24), [2, 1, 0]),
        ):
            states = words[order].unsqueeze(0)
            for number, layer in enumerate(layers):
                hidden = cell = torch.zeros(1, 1, 12)
                new = []
                for t in range(3):
                    out, (hidden, cell) = layer(states[:, t : t + 1], (hidden, cell))
                    new.append(out)
                states = torch.cat(new, dim=1) + (states if number else 0)
                expected = states[0][order]
                assert torch.allclose(output.word_states[number + 1][1, :3, half], expected, atol=1e-6)


def test_consecutive_windows_equal_one_long_window():
    """Forward from the first window, backward from the last. The state restarts after a padded window."""
    model = make(elmo.ElmoModel)
    ids = torch.tensor([[2, 70, 330, 71, 72, 73], [2, 80, 331, 81, 82, 83], [2, 90, 332, 92, 93, 0]])
    parts = ids[:, :3], ids[:, 3:]
    with torch.no_grad():
        whole = model(ids[:2]).last_hidden_state
        first = model(parts[0], recurrent_direction="forwards")
        second = model(parts[1], recurrent_direction="forwards", state=first.state)
        read = torch.cat([first.last_hidden_state, second.last_hidden_state], dim=1)
        size = model.config.hidden_size
        torch.testing.assert_close(read[:2, :, :size], whole[..., :size])
        last = model(parts[1], recurrent_direction="backwards")
        before = model(parts[0], recurrent_direction="backwards", state=last.state)
        read = torch.cat([before.last_hidden_state, last.last_hidden_state], dim=1)
        torch.testing.assert_close(read[:2, :, size:], whole[..., size:])
        anew = model(parts[0]).last_hidden_state
        torch.testing.assert_close(before.last_hidden_state[2], anew[2])
        assert not torch.allclose(before.last_hidden_state[1], anew[1], atol=1e-3)
    assert not last.state.requires_grad


def test_character_vectors_are_cached_until_weights_or_precision_change(monkeypatch):
    model = make(elmo.ElmoModel)
    spelled = []
    encode = elmo.ElmoCharacterEncoder.forward

    def noted(self, spellings):
        spelled.append(len(spellings))
        return encode(self, spellings)

    monkeypatch.setattr(elmo.ElmoCharacterEncoder, "forward", noted)
    texts = torch.tensor([[2, 70, 330, 71, 3], [2, 71, 330, 71, 3]])
    anew = [model(text.unsqueeze(0)).last_hidden_state for text in texts]  # with gradients nothing is kept
    assert spelled == [4, 4]
    with torch.no_grad():
        for text, expected in zip([*texts, *texts], [*anew, *anew], strict=True):
            torch.testing.assert_close(model(text.unsqueeze(0)).last_hidden_state, expected)
        assert spelled == [4, 4, 4, 1]  # the second text has one new word
        model.character_encoder.projection.weight.mul_(2)
        changed = model(texts[:1]).last_hidden_state
        assert not torch.allclose(changed, anew[0], atol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.equal(model(texts[:1]).last_hidden_state, changed)
        assert torch.equal(model(texts[:1]).last_hidden_state, changed)
        assert spelled[4:] == [4, 4, 4]


def test_a_very_long_word_is_cut_not_refused():
    model = make(elmo.ElmoModel)
    limit = model.config.max_word_length
    with torch.no_grad():
        exact = model(torch.tensor([[2, 70] + [330] * (limit - 1) + [3]])).word_states[0]
        longer = model(torch.tensor([[2, 70] + [330] * (limit + 500) + [3]])).word_states[0]
    assert torch.equal(exact, longer)
