"""The contract that every encoder keeps: one table, one set of tests. A class that the table lacks fails."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from test_images import IMAGE_MODELS
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, PreTrainedModel

import toolkit.models
from toolkit.models import bert, electra, elmo, fasttext, heads, layer_mix, word2vec
from toolkit.models.contrastive import SimCLRForPreTraining
from toolkit.models.families import presets
from toolkit.models.few_shot import FewShotForImageClassification, FewShotForSequenceClassification
from toolkit.models.prototypical import PrototypicalForPreTraining

SMALL = {
    "toolkit-word2vec": word2vec.Word2VecConfig(
        vocab_size=600, hidden_size=16, classifier_hidden_size=8, num_labels=4
    ),
    "toolkit-fasttext": fasttext.FastTextConfig(
        vocab_size=600, hidden_size=16, num_buckets=50, classifier_hidden_size=8, num_labels=4
    ),
    "toolkit-elmo": elmo.ElmoConfig(
        hidden_size=12, char_embedding_size=6, char_filters=[[1, 6], [3, 8]], output_vocab_size=50, num_labels=4
    ),
    "bert": presets()["bert-tiny"].config(600),
    "electra": presets()["electra-tiny"].config(600),
}
SMALL["bert"].num_labels = SMALL["electra"].num_labels = 4
SMALL["toolkit-layer-mix"] = layer_mix.LayerMixConfig(encoder=SMALL["bert"].to_dict(), num_labels=4)
# Every class, with the configuration it is tried with. Abstract bases are left out by their names.
MODELS: dict[type[PreTrainedModel], str] = {
    word2vec.Word2VecModel: "toolkit-word2vec",
    word2vec.Word2VecForTokenClassification: "toolkit-word2vec",
    word2vec.Word2VecForSequenceClassification: "toolkit-word2vec",
    fasttext.FastTextModel: "toolkit-fasttext",
    fasttext.FastTextForTokenClassification: "toolkit-fasttext",
    fasttext.FastTextForSequenceClassification: "toolkit-fasttext",
    elmo.ElmoModel: "toolkit-elmo",
    elmo.ElmoForPreTraining: "toolkit-elmo",
    elmo.ElmoForTokenClassification: "toolkit-elmo",
    elmo.ElmoForSequenceClassification: "toolkit-elmo",
    layer_mix.LayerMixForTokenClassification: "toolkit-layer-mix",
    layer_mix.LayerMixForSequenceClassification: "toolkit-layer-mix",
    bert.BertForMaskedLM: "bert",
    electra.ElectraForPreTraining: "electra",
}
all_models = pytest.mark.parametrize("model_class", MODELS, ids=lambda model_class: model_class.__name__)
# [CLS], two words of several bytes, a word of one, [SEP]; then a shorter sentence with padding.
INPUT_IDS = torch.tensor([[2, 70, 330, 331, 71, 332, 40, 3], [2, 71, 332, 3, 0, 0, 0, 0]])
ATTENTION_MASK = (INPUT_IDS != 0).long()
WORD_LABELS = torch.tensor([[-100, 9, 8, 7, 3], [-100, 8, 3, -100, -100]])


def make(model_class: type[PreTrainedModel]) -> PreTrainedModel:
    torch.manual_seed(0)
    return model_class(SMALL[MODELS[model_class]]).eval()


def labels_for(model_class: type[PreTrainedModel]) -> torch.Tensor:
    if model_class is elmo.ElmoForPreTraining:
        return WORD_LABELS
    if model_class.__name__.endswith("ForSequenceClassification"):
        return torch.tensor([1, 3])
    return torch.where(ATTENTION_MASK.bool(), INPUT_IDS % 4, -100)


def outputs(model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        output = model(input_ids, attention_mask=attention_mask)
    return [value for name, value in output.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]


def test_the_table_has_every_class():
    found = set()
    for info in pkgutil.iter_modules(toolkit.models.__path__):
        module = importlib.import_module(f"toolkit.models.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, PreTrainedModel) and member.__module__ == module.__name__:
                found.add(member)
    # in test_unlabelled.py, test_prototypical.py, test_few_shot.py
    elsewhere = {SimCLRForPreTraining, PrototypicalForPreTraining}
    elsewhere |= {FewShotForSequenceClassification, FewShotForImageClassification}
    tried = {*MODELS, *IMAGE_MODELS, *elsewhere}
    assert {cls for cls in found if not cls.__name__.endswith("PreTrainedModel")} == tried


@all_models
def test_one_step_of_training_then_save_and_load(model_class, tmp_path):
    model = make(model_class).train()
    if "For" in model_class.__name__:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=labels_for(model_class)).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path).eval()
    before, after = (outputs(m, INPUT_IDS, ATTENTION_MASK) for m in (model, loaded))
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not (tmp_path / "pytorch_model.bin").exists()


@pytest.mark.parametrize("family", SMALL)
def test_every_parameter_gets_a_gradient_in_at_least_one_use(family):
    with_gradient, without = set(), set()
    tagger = AutoModelForTokenClassification.from_config(SMALL[family])
    heads = [make(cls) for cls in MODELS if MODELS[cls] == family and "For" in cls.__name__]
    for model in [*heads, tagger]:
        model.train()
        model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=labels_for(type(model))).loss.backward()
        for name, parameter in model.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            (with_gradient if moved else without).add(name)
    assert not without - with_gradient
    assert with_gradient


@all_models
def test_a_sentence_alone_equals_the_same_in_a_padded_batch(model_class):
    model = make(model_class)
    length = int(ATTENTION_MASK[1].sum())
    together = outputs(model, INPUT_IDS, ATTENTION_MASK)
    alone = outputs(model, INPUT_IDS[1:, :length], ATTENTION_MASK[1:, :length])
    for batch, single in zip(together, alone, strict=True):
        width = single.shape[1]
        assert torch.allclose(batch[1:, :width], single, atol=1e-5)


def test_elmo_tells_padding_from_the_ids_where_no_mask_is_given():
    model = make(elmo.ElmoForTokenClassification)
    with_mask, without = outputs(model, INPUT_IDS, ATTENTION_MASK), outputs(model, INPUT_IDS, None)
    assert all(torch.equal(a, b) for a, b in zip(with_mask, without, strict=True))


@pytest.mark.parametrize("preset", presets("text"))
def test_every_preset_keeps_the_contract(preset, tmp_path):
    """One step of training lowers the loss, save and load change no bit, padding does not leak."""
    config = presets()[preset].config(700)  # a small vocabulary, and as few n-grams; the rest as it is
    config.update({"num_labels": 4, "num_buckets": 700})
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_config(config).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=INPUT_IDS % 4).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    (logits,) = outputs(loaded, INPUT_IDS, ATTENTION_MASK)
    assert torch.equal(logits, outputs(model, INPUT_IDS, ATTENTION_MASK)[0])
    length = int(ATTENTION_MASK[1].sum())
    (alone,) = outputs(loaded, INPUT_IDS[1:, :length], ATTENTION_MASK[1:, :length])
    assert torch.allclose(logits[1:, :length], alone, atol=1e-5)


@pytest.mark.parametrize("family", ["toolkit-word2vec", "toolkit-fasttext", "toolkit-elmo"])
def test_auto_classes_know_the_encoder(family, tmp_path):
    base = next(cls for cls in MODELS if MODELS[cls] == family and cls.__name__.endswith("Model"))
    make(base).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(SMALL[family])
    assert type(AutoModel.from_pretrained(tmp_path)) is base


def test_auto_classes_know_the_encoder_in_every_import_order():
    """Each order in a process that has loaded torch, but neither transformers nor toolkit."""
    orders = [
        "import toolkit; from transformers import AutoConfig",
        "from transformers import AutoConfig; import toolkit",
        "import toolkit; from transformers import PreTrainedModel, AutoConfig",
        "import toolkit; from transformers import pipeline, AutoConfig",
        "from transformers import AutoModel, AutoConfig; import toolkit",
    ]
    script = f"""
import os, sys, torch
for order in {orders}:
    if not os.fork():
        assert not {{"transformers", "toolkit"}} & set(sys.modules)
        exec(order)
        from transformers import AutoModel
        config = AutoConfig.for_model("toolkit-word2vec", vocab_size=9)
        print(type(AutoModel.from_config(config)).__name__, flush=True)
        os._exit(0)
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["Word2VecModel"] * len(orders), done.stderr


# ELMo


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


def test_pieces_have_the_state_of_their_word_and_logits_are_one_row_a_piece():
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
    """The stacks against `nn.LSTM` applied word by word to one sentence."""
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


def test_windows_read_on_equal_one_long_window():
    """Forwards from the first, backwards from the last; what follows a window with padding begins anew."""
    model = make(elmo.ElmoModel)
    ids = torch.tensor([[2, 70, 330, 71, 72, 73], [2, 80, 331, 81, 82, 83], [2, 90, 332, 92, 93, 0]])
    parts = ids[:, :3], ids[:, 3:]
    with torch.no_grad():
        whole = model(ids[:2]).last_hidden_state
        first = model(parts[0], reads_on="forwards")
        second = model(parts[1], reads_on="forwards", state=first.state)
        read = torch.cat([first.last_hidden_state, second.last_hidden_state], dim=1)
        size = model.config.hidden_size
        torch.testing.assert_close(read[:2, :, :size], whole[..., :size])
        last = model(parts[1], reads_on="backwards")
        before = model(parts[0], reads_on="backwards", state=last.state)
        read = torch.cat([before.last_hidden_state, last.last_hidden_state], dim=1)
        torch.testing.assert_close(read[:2, :, size:], whole[..., size:])
        anew = model(parts[0]).last_hidden_state
        torch.testing.assert_close(before.last_hidden_state[2], anew[2])
        assert not torch.allclose(before.last_hidden_state[1], anew[1], atol=1e-3)
    assert not last.state.requires_grad


def test_a_word_read_before_is_not_spelled_again_until_weights_or_precision_change(monkeypatch):
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


def test_scalar_mix_starts_as_the_mean_of_the_layers():
    mix = heads.ScalarMix(3)
    layers = tuple(torch.full((1, 2, 3), value) for value in (1.0, 2.0, 6.0))
    assert torch.allclose(mix(layers), torch.full((1, 2, 3), 3.0))


# A mix of layers


@pytest.mark.parametrize("head", ["TokenClassification", "SequenceClassification"])
def test_a_mix_of_layers_by_hand(head):
    import transformers

    model = make(getattr(layer_mix, f"LayerMixFor{head}"))
    encoder = transformers.BertModel(SMALL["bert"], add_pooling_layer=False).eval()
    encoder.load_state_dict(model.encoder.state_dict())
    model.scalar_mix.weights.data = torch.tensor([0.0, 1.0, -1.0])
    model.scalar_mix.scale.data = torch.tensor([3.0])
    with torch.no_grad():
        layers = encoder(INPUT_IDS, ATTENTION_MASK, output_hidden_states=True).hidden_states
        found = model(INPUT_IDS, attention_mask=ATTENTION_MASK).logits
    shares = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    states = 3 * sum(float(share) * layer for share, layer in zip(shares, layers, strict=True))
    if head == "SequenceClassification":  # the second sentence has four tokens
        rows = [states[0], states[1, :4]]
        states = torch.stack([torch.cat([row.mean(dim=0), row.max(dim=0).values]) for row in rows])
    assert torch.allclose(found, model.classifier(states), atol=1e-5)


# BERT


def test_loss_and_gradients_at_masked_positions_are_those_of_transformers():
    """Rows of different lengths with three targets, one and, as in a share of a batch, none."""
    import transformers

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
def test_a_packed_sequence_is_read_as_if_it_stood_alone(attention):
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


def test_dropout_is_of_the_modules_and_not_of_the_configuration():
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


def test_output_bias_guesses_tokens_as_often_as_they_occur():
    model = make(bert.BertForMaskedLM)
    counts = torch.arange(600) % 7
    model.set_output_bias(counts)
    with torch.no_grad():
        model.cls.predictions.decoder.weight.zero_()
        guesses = model(INPUT_IDS, labels=INPUT_IDS).logits.softmax(dim=-1)
    expected = (counts + 1) / (counts.sum() + 600)
    assert torch.allclose(guesses, expected.expand_as(guesses), atol=1e-7)


def attentions_of_stacks(model, ids: torch.Tensor) -> list[list[torch.Tensor]]:
    """Of each stack of layers its attentions, (texts, heads, from, to) a layer."""
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
def test_heads_begin_by_looking_at_neighbours(model_class, preset):
    torch.manual_seed(0)
    config = presets()[preset].config(600)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    ids = torch.randint(5, 600, (4, 40))
    before = attentions_of_stacks(model, ids)
    model.look_at_neighbours()
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


def test_given_embeddings_have_the_spread_of_random_ones_and_are_the_output_layer_too():
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


def test_transformers_opens_the_checkpoint_as_its_own(tmp_path):
    import json

    make(bert.BertForMaskedLM).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]


# ELECTRA


def test_loss_of_an_electra_is_that_of_transformers_generator_and_discriminator():
    """What the generator keys is found by numpy, of the probabilities of a transformers' generator."""
    import transformers

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


def test_a_generator_draws_with_its_probabilities():
    logits = torch.tensor([2.0, -1.0, 0.5, -float("inf"), 1.0])
    uniforms = (torch.arange(10_000) + 0.5) / 10_000
    drawn = electra.draw(logits.expand(10_000, -1), uniforms)
    assert torch.allclose(drawn.bincount(minlength=5) / 10_000, logits.softmax(dim=0), atol=2e-4)
    assert electra.draw(logits.unsqueeze(0), torch.ones(1)).item() == 4


def test_an_electra_without_its_generator_is_one_of_transformers(tmp_path):
    import transformers

    model = make(electra.ElectraForPreTraining)
    expected = model(INPUT_IDS, attention_mask=ATTENTION_MASK).logits
    model.without_generator().save_pretrained(tmp_path)
    opened, loading = transformers.ElectraForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(opened.eval()(INPUT_IDS, attention_mask=ATTENTION_MASK).logits, expected)


# word2vec


def test_tagger_sees_its_window_and_no_further():
    model = make(word2vec.Word2VecForTokenClassification)
    ids = torch.tensor([[10, 11, 12, 13, 14, 15, 16]])
    changed = ids.clone()
    changed[0, 0] = 99
    with torch.no_grad():
        difference = (model(ids).logits - model(changed).logits).abs().sum(dim=-1)[0]
    assert (difference[:3] > 0).all()
    assert (difference[3:] == 0).all()
