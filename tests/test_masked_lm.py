"""BERT and ELECTRA in pretraining: the losses of transformers, and the initial weights."""

import json

import numpy as np
import pytest
import torch
import transformers
from encoder_cases import ATTENTION_MASK, CONFIGS, INPUT_IDS
from transformers.models.bert.modeling_bert import BertLayer

from toolkit.models import bert, electra
from toolkit.models.families import presets


def make(model_class):
    torch.manual_seed(0)
    return model_class(CONFIGS["bert" if model_class is bert.BertForMaskedLM else "electra"]).eval()


def test_random_weights_equal_transformers():
    """The last layer has its own class, but building it uses no random numbers."""
    torch.manual_seed(0)
    expected = transformers.BertForMaskedLM(CONFIGS["bert"])
    after = torch.rand(3)
    model = make(bert.BertForMaskedLM)
    assert torch.equal(torch.rand(3), after)
    assert list(model.state_dict()) == list(expected.state_dict())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.state_dict().items())
    assert [type(layer) for layer in model.bert.encoder.layer] == [BertLayer, bert.BertLastLayer]


def test_loss_and_gradients_at_masked_positions_equal_transformers():
    """Rows of different lengths with three targets, one target and, as can happen on one process, none."""
    torch.manual_seed(1)
    model = make(bert.BertForMaskedLM)
    plain = transformers.BertForMaskedLM(model.config).eval()
    plain.load_state_dict(model.state_dict())
    input_ids = torch.cat([INPUT_IDS, INPUT_IDS[:1]])
    labels = torch.full_like(input_ids, -100)
    labels[0, [2, 3, 6]], labels[1, 1] = torch.tensor([17, 400, 9]), 18
    ours, theirs = (m(input_ids, attention_mask=(input_ids != 0).long(), labels=labels) for m in (model, plain))
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-6)
    assert torch.allclose(ours.logits, theirs.logits[labels != -100], atol=1e-5)
    ours.loss.backward()
    theirs.loss.backward()
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, atol=1e-5), name
    with torch.no_grad():
        assert torch.equal(model(input_ids).logits, plain(input_ids).logits)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_sequence_equals_the_sequence_alone(attention):
    model = make(bert.BertForMaskedLM)
    model.set_attn_implementation(attention)
    first, second, third = [2, 70, 330, 331, 3], [2, 71, 332, 3], [2, 400, 401, 402, 403, 404, 3]
    input_ids = torch.tensor([[*first, *second], [*third, 0, 0]])
    sequence_ids = torch.tensor([[1] * 5 + [2] * 4, [1] * 7 + [0] * 2])
    labels = torch.full_like(input_ids, -100)
    labels[0, 1], labels[0, 6], labels[1, 3] = 9, 10, 11
    alone = [model(torch.tensor([ids])).logits[0] for ids in (first, second, third)]
    packed = model(input_ids, sequence_ids=sequence_ids).logits
    for found, expected in zip((packed[0, :5], packed[0, 5:], packed[1, :7]), alone, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    targets = torch.stack([alone[0][1], alone[1][1], alone[2][3]])
    trained = model(input_ids, sequence_ids=sequence_ids, labels=labels)
    assert torch.allclose(trained.logits, targets, atol=1e-5)
    trained.loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    torch.nn.functional.cross_entropy(targets, torch.tensor([9, 10, 11])).backward()
    for found, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, atol=1e-5)


def test_set_dropout_changes_the_modules_and_not_the_configuration():
    torch.manual_seed(0)
    model = bert.BertForMaskedLM(presets()["bert-tiny"].config(600)).train()
    labels = torch.where(ATTENTION_MASK.bool(), INPUT_IDS, -100)

    def loss() -> float:
        return model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=labels).loss.item()

    assert loss() != loss()
    model.set_dropout(0.0)
    assert loss() == loss()
    model.set_dropout(0.3)
    assert loss() != loss()
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0.1


def test_output_bias_predicts_the_token_frequencies():
    model = make(bert.BertForMaskedLM)
    counts = torch.arange(600) % 7
    model.set_output_bias(counts)
    with torch.no_grad():
        model.cls.predictions.decoder.weight.zero_()
        guesses = model(INPUT_IDS, labels=INPUT_IDS).logits.softmax(dim=-1)
    expected = (counts + 1) / (counts.sum() + 600)
    assert torch.allclose(guesses, expected.expand_as(guesses), atol=1e-7)


def attentions_of_stacks(model, ids: torch.Tensor) -> list[list[torch.Tensor]]:
    """The attentions (texts, heads, from, to) of each layer, for each stack of layers."""
    with torch.no_grad():
        found = [list(model.base_model(ids, output_attentions=True).attentions)]
        if hasattr(model, "generator"):
            states, of_generator = model.generator.embeddings_project(model.electra.embeddings(ids)), []
            for layer in model.generator.encoder.layer:
                of_generator.append(layer.attention.self(states)[1])
                states = layer(states)
            found.append(of_generator)
    return found


@pytest.mark.parametrize(
    ("model_class", "preset"),
    [
        (bert.BertForMaskedLM, "bert-tiny"),
        (bert.BertForMaskedLM, "bert-mini"),
        (electra.ElectraForPreTraining, "electra-tiny"),
        (electra.ElectraForPreTraining, "electra-mini"),
    ],
)
def test_heads_start_on_neighbouring_tokens(model_class, preset):
    torch.manual_seed(0)
    config = presets()[preset].config(600)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    ids = torch.randint(5, 600, (4, 40))
    before = attentions_of_stacks(model, ids)
    model.attend_to_neighbours()
    inner = torch.arange(2, 38)
    for stack, stack_before in zip(attentions_of_stacks(model, ids), before, strict=True):
        for head, place in zip(range(stack[0].shape[1]), [-1, 1, -2, 2], strict=False):
            assert stack_before[0][:, head, inner, inner + place].max() < 0.1
            assert stack[0][:, head, inner, inner + place].mean() > 0.4
            for attention in stack:
                assert (attention[:, head, inner].argmax(dim=-1) == inner + place).float().mean() > 0.9
    embeddings = model.base_model.embeddings
    words, positions = (
        e.weight.norm(dim=1)[1:].mean() for e in (embeddings.word_embeddings, embeddings.position_embeddings)
    )
    torch.testing.assert_close(positions, words, rtol=0.02, atol=0)


def test_given_embeddings_are_rescaled_and_tied_to_the_output_layer():
    model = make(bert.BertForMaskedLM)
    before = model.get_input_embeddings().weight.detach().clone()
    ids = np.array([9, 400, 7, 8])
    vectors = np.random.default_rng(0).normal(3.0, 5.0, (4, 128)).astype(np.float32)
    model.set_word_embeddings(torch.from_numpy(ids), torch.from_numpy(vectors))
    after = model.get_input_embeddings().weight.detach()
    others = [i for i in range(600) if i not in ids]
    assert torch.equal(after[others], before[others])
    assert after[ids].std(unbiased=False).item() == pytest.approx(0.02)
    assert after[ids].mean(dim=0).abs().max() < 1e-8
    cosines = np.corrcoef(vectors - vectors.mean(axis=0))
    assert np.allclose(np.corrcoef(after[ids].numpy()), cosines, atol=1e-5), "the directions are those given"
    assert torch.equal(model.cls.predictions.decoder.weight, after)


def test_transformers_loads_the_checkpoint_as_its_own_class(tmp_path):
    make(bert.BertForMaskedLM).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]


def test_electra_loss_equals_transformers_generator_and_discriminator():
    """numpy computes the samples of the generator from the probabilities of transformers' generator."""
    model = make(electra.ElectraForPreTraining)
    generator = transformers.ElectraForMaskedLM(model.generator.config).eval()
    generator.electra.embeddings.load_state_dict(model.electra.embeddings.state_dict())
    generator.electra.encoder.load_state_dict(model.generator.encoder.state_dict())
    generator.electra.embeddings_project.load_state_dict(model.generator.embeddings_project.state_dict())
    generator.generator_predictions.load_state_dict(model.generator.predictions.state_dict())
    model.generator.bias.data.normal_(std=2.0)
    generator.generator_lm_head.bias.data = model.generator.bias.data
    discriminator = transformers.ElectraForPreTraining(model.config).eval()
    discriminator.load_state_dict(model.state_dict(), strict=False)

    labels, uniforms = torch.full_like(INPUT_IDS, -100), torch.rand(INPUT_IDS.shape)
    labels[0, [2, 3, 6]], labels[1, 1] = torch.tensor([17, 400, 9]), 18
    masked = labels != -100
    with torch.no_grad():
        guesses = generator(INPUT_IDS, attention_mask=ATTENTION_MASK).logits[masked]
        filled_in = INPUT_IDS.clone()
        sums = guesses.softmax(dim=-1).double().numpy().cumsum(axis=1)
        drawn = [np.searchsorted(row, u) for row, u in zip(sums, uniforms[masked].numpy(), strict=True)]
        drawn[1] = 400  # a generator may be right: that token is as it was
        uniforms[0, 3] = float(sums[1, 399:401].mean())
        filled_in[masked] = torch.tensor(drawn)
        is_replaced = (masked & (filled_in != labels)).long()
        assert is_replaced.sum() == 3
        judged = discriminator(filled_in, attention_mask=ATTENTION_MASK, labels=is_replaced)
    num_tokens = int(ATTENTION_MASK.sum())
    guessed = torch.nn.functional.cross_entropy(guesses, labels[masked], reduction="sum")
    expected = guessed / 0.15 / num_tokens + 50 * judged.loss
    found = model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=labels, uniforms=uniforms)
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    real = ATTENTION_MASK.bool()
    assert torch.allclose(found.logits[real], judged.logits[real], atol=1e-5)


def test_the_generator_samples_from_its_probabilities():
    logits = torch.tensor([2.0, -1.0, 0.5, -float("inf"), 1.0])
    uniforms = (torch.arange(10_000) + 0.5) / 10_000
    drawn = electra.sample_tokens(logits.expand(10_000, -1), uniforms)
    assert torch.allclose(drawn.bincount(minlength=5) / 10_000, logits.softmax(dim=0), atol=2e-4)
    assert electra.sample_tokens(logits.unsqueeze(0), torch.ones(1)).item() == 4


def test_the_electra_discriminator_loads_in_transformers(tmp_path):
    model = make(electra.ElectraForPreTraining)
    expected = model(INPUT_IDS, attention_mask=ATTENTION_MASK).logits
    model.without_generator().save_pretrained(tmp_path)
    opened, loading = transformers.ElectraForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(opened.eval()(INPUT_IDS, attention_mask=ATTENTION_MASK).logits, expected)
