"""The contract of every encoder. A new row of `FAMILIES` is tested without a change here."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from conftest import REPOSITORY
from encoder_cases import (
    ATTENTION_MASK,
    CASES,
    CONFIGS,
    CONFIGS_OF_WRAPPERS,
    IMAGES,
    INPUT_IDS,
    NUM_LABELS,
    case_of,
    floats,
)
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedModel

import toolkit.models
from toolkit.models import heads, layer_mix, word2vec
from toolkit.models.families import FAMILIES, WRAPPERS, presets
from toolkit.models.heads import pool_image_features
from toolkit.models.prototypical import PrototypicalForPreTraining
from toolkit.models.simclr import SimCLRForPreTraining
from toolkit.transfer.encoders import layer_depths

all_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.model_class.__name__)
heads_only = pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.has_loss and case.auto_class not in (None, "AutoModelForPreTraining", "AutoModelForSeq2SeqLM")
    ],
    ids=lambda case: case.model_class.__name__,
)
encoders_only = pytest.mark.parametrize(
    "case", [case for case in CASES if case.auto_class == "AutoModel"], ids=lambda case: case.model_class.__name__
)


def make(model_class: type[PreTrainedModel]) -> PreTrainedModel:
    return case_of(model_class).make()


def test_every_family_has_a_preset_and_every_class_is_tested():
    """Abstract base classes are excluded by their names."""
    in_table = {model_type for row in FAMILIES.values() for model_type in row.model_types}
    in_table |= {each.model_type for row in FAMILIES.values() for each in row.architectures}
    assert in_table == set(CONFIGS)
    assert {each.model_type for each in WRAPPERS} == set(CONFIGS_OF_WRAPPERS)
    found = set()
    for info in pkgutil.iter_modules(toolkit.models.__path__):
        module = importlib.import_module(f"toolkit.models.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, PreTrainedModel) and member.__module__ == module.__name__:
                found.add(member)
    elsewhere = {SimCLRForPreTraining, PrototypicalForPreTraining}  # in test_unlabelled.py and test_prototypical.py
    concrete = {cls for cls in found if not cls.__name__.endswith("PreTrainedModel")}
    assert concrete - elsewhere <= {case.model_class for case in CASES}
    assert elsewhere <= concrete


@all_cases
def test_one_step_of_training_then_save_and_load(case, tmp_path):
    model = case.make().train()
    if case.has_loss:
        before = floats(case.make()(**case.inputs))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(**case.inputs, labels=case.labels).loss.backward()
        optimizer.step()
        after = floats(model.eval()(**case.inputs))
        assert not all(torch.equal(before[name], after[name]) for name in before), "a step changes the outputs"
    model.eval().save_pretrained(tmp_path)
    loader = case.model_class if case.auto_class is None else getattr(transformers, case.auto_class)
    loaded = loader.from_pretrained(tmp_path).eval()
    assert type(loaded) is case.model_class
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(case.config)
    with torch.no_grad():
        before, after = floats(model(**case.inputs)), floats(loaded(**case.inputs))
    assert before
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=case.rounding)
    weights = loaded.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors"}, "no pickle"


@all_cases
def test_one_item_alone_equals_the_item_in_a_batch(case):
    """Padding and the other items of a batch do not change the outputs."""
    model = case.make()
    if case.modality == "text":
        length = int(ATTENTION_MASK[1].sum())
        alone = {name: value[1:, :length] for name, value in case.inputs.items()}
    else:
        alone = {name: value[1:2] for name, value in case.inputs.items()}
    with torch.no_grad():
        batch, single = floats(model(**case.inputs)), floats(model(**alone))
    for name, value in single.items():
        found = batch[name][1:2]
        if value.dim() > 1 and case.modality == "text":
            found = found[:, : value.shape[1]]
        torch.testing.assert_close(found, value, rtol=1e-5, atol=max(1e-5, case.rounding))


@encoders_only
def test_shapes_of_features_and_layers(case):
    with torch.no_grad():
        output = case.make()(**case.inputs, output_hidden_states=True)
    layers = output.hidden_states
    if case.modality == "text":
        assert output.last_hidden_state.shape[:2] == INPUT_IDS.shape
        assert {layer.shape for layer in layers} == {output.last_hidden_state.shape}
        assert torch.equal(layers[-1], output.last_hidden_state)
    else:
        assert all(len(layer) == len(IMAGES) for layer in (output.last_hidden_state, *layers))
        assert layers[-1].shape == output.last_hidden_state.shape
        features = pool_image_features(output)
        assert features.dim() == 2
        assert len(features) == len(IMAGES)
        assert not torch.allclose(features[0], features[1])


@heads_only
def test_logits_have_a_row_per_label_and_the_loss_is_their_cross_entropy(case):
    model = case.make()
    with torch.no_grad():
        output = model(**case.inputs, labels=case.labels)
    assert output.logits.shape == (*case.labels.shape, NUM_LABELS)
    expected = F.cross_entropy(output.logits.flatten(0, -2), case.labels.flatten())
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert model.num_labels == NUM_LABELS


@heads_only
def test_every_parameter_has_a_depth_below_the_output(case):
    model = case.make()
    depths = layer_depths(model)
    assert list(depths) == [name for name, _ in model.named_parameters()]
    assert sorted(set(depths.values())) == list(range(max(depths.values()) + 1))
    assert max(depths.values()) >= 1
    assert all(depths[name] == 0 for name in depths if not name.startswith(f"{model.base_model_prefix}."))


@pytest.mark.parametrize("model_type", [name for name in CONFIGS if name in {c.config.model_type for c in CASES}])
def test_every_parameter_gets_a_gradient_in_at_least_one_use(model_type):
    """The frozen stem of the fast ResNet is excepted."""
    with_gradient, without = set(), set()
    for case in CASES:
        if case.config.model_type == model_type and case.has_loss:
            model = case.make().train()
            model(**case.inputs, labels=case.labels).loss.backward()
            for name, parameter in model.named_parameters():
                moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
                if parameter.requires_grad:
                    (with_gradient if moved else without).add(name)
    assert not without - with_gradient
    assert with_gradient


@encoders_only
def test_inputs_of_unusual_sizes(case):
    """Texts of one token. Images of another size, if the configuration does not fix the size."""
    model = case.make()
    with torch.no_grad():
        if case.modality == "text":
            assert model(INPUT_IDS[:, :1]).last_hidden_state.shape[:2] == (2, 1)
        elif case.modality == "image" and not hasattr(case.config, "image_size"):
            output = model(torch.randn(2, 3, 40, 48))
            height, width = output.last_hidden_state.shape[2:]
            smaller = model(IMAGES).last_hidden_state.shape[2:]
            assert height >= smaller[0]
            assert width >= smaller[1]
            assert pool_image_features(output).shape == (2, pool_image_features(model(IMAGES)).shape[1])


@pytest.mark.parametrize("preset", presets("text"))
def test_every_preset_keeps_the_contract(preset, tmp_path):
    """A training step lowers the loss, saving and loading keep every bit, and padding has no effect."""
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
    length = int(ATTENTION_MASK[1].sum())
    with torch.no_grad():
        logits = loaded(INPUT_IDS, attention_mask=ATTENTION_MASK).logits
        assert torch.equal(logits, model(INPUT_IDS, attention_mask=ATTENTION_MASK).logits)
        alone = loaded(INPUT_IDS[1:, :length], attention_mask=ATTENTION_MASK[1:, :length]).logits
    assert torch.allclose(logits[1:, :length], alone, atol=1e-5)


def test_auto_classes_know_the_encoder_in_every_import_order():
    """Each import order in a process that has loaded what transformers needs, but neither transformers nor toolkit."""
    orders = [
        "import toolkit; from transformers import AutoConfig",
        "from transformers import AutoConfig; import toolkit",
        "import toolkit; from transformers import PreTrainedModel, AutoConfig",
        "import toolkit; from transformers import pipeline, AutoConfig",
        "from transformers import AutoModel, AutoConfig; import toolkit",
    ]
    script = f"""
import os, sys, torch
import huggingface_hub, pandas, safetensors.torch, scipy.stats, sklearn.metrics, timm, tokenizers
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


# Heads


def test_scalar_mix_starts_as_the_mean_of_the_layers():
    mix = heads.ScalarMix(3)
    layers = tuple(torch.full((1, 2, 3), value) for value in (1.0, 2.0, 6.0))
    assert torch.allclose(mix(layers), torch.full((1, 2, 3), 3.0))


@pytest.mark.parametrize("head", ["TokenClassification", "SequenceClassification"])
def test_a_mix_of_layers_equals_a_calculation_by_hand(head):
    model = make(getattr(layer_mix, f"LayerMixFor{head}"))
    encoder = transformers.BertModel(CONFIGS["bert"], add_pooling_layer=False).eval()
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


def test_the_tagger_reads_its_window_only():
    model = make(word2vec.Word2VecForTokenClassification)
    ids = torch.tensor([[10, 11, 12, 13, 14, 15, 16]])
    changed = ids.clone()
    changed[0, 0] = 99
    with torch.no_grad():
        difference = (model(ids).logits - model(changed).logits).abs().sum(dim=-1)[0]
    assert (difference[:3] > 0).all()
    assert (difference[3:] == 0).all()
