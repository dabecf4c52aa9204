"""Muon and AdamW in one optimizer: compared with torch's two optimizers, its state, and its errors."""

import copy

import pytest
import torch
from conftest import TORCHRUN, run_toolkit
from in_process import run_here
from test_processes import FSDP2

from toolkit.errors import InputError
from toolkit.models.bert import BertForMaskedLM
from toolkit.models.families import presets
from toolkit.training.optimizers import Muon, MuonWithAdamW, muon_parameters, parameter_groups

INPUT_IDS = torch.tensor([[2, 70, 330, 331, 71, 332, 40, 3], [2, 71, 332, 3, 0, 0, 0, 0]])
ATTENTION_MASK = (INPUT_IDS != 0).long()


def make_model() -> BertForMaskedLM:
    torch.manual_seed(0)
    model = BertForMaskedLM(presets()["bert-tiny"].config(600))
    model.set_dropout(0.0)
    return model


def optimizer_of(model) -> MuonWithAdamW:
    groups = parameter_groups(model, 0.01, with_muon=muon_parameters(model))
    return MuonWithAdamW(groups, lr=1e-2)


def add_gradients(model) -> None:
    model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=INPUT_IDS).loss.backward()


def test_muon_trains_the_matrices_of_the_layers():
    model = make_model()
    matrices = muon_parameters(model)
    names = {name for name, parameter in model.named_parameters() if parameter in matrices}
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    parts += ("intermediate.dense", "output.dense")
    assert names == {f"bert.encoder.layer.{layer}.{part}.weight" for layer in (0, 1) for part in parts}
    model.bert.requires_grad_(False)
    with pytest.raises(
        InputError, match="--optim muon: BertForMaskedLM has no transformer layers or convolutions to train"
    ):
        muon_parameters(model)


def test_steps_equal_separate_muon_and_adamw():
    model = make_model()
    twin = copy.deepcopy(model)
    optimizer = optimizer_of(model)
    matrices = muon_parameters(twin)
    others = [parameter for parameter in twin.parameters() if parameter not in matrices]
    vectors, embeddings = ([p for p in others if (p.ndim > 1) == is_matrix] for is_matrix in (False, True))
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": embeddings, "weight_decay": 0.01}]
    by_hand = [
        torch.optim.Muon(list(matrices), lr=1e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=1e-2, fused=True),
    ]
    start = copy.deepcopy(model.state_dict())
    for _ in range(3):
        for each, optimizers in ((model, [optimizer]), (twin, by_hand)):
            add_gradients(each)
            for one in optimizers:
                one.step()
                one.zero_grad()
    expected = twin.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-4, msg=name)  # 1e-2 a step, three steps
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, start[name])}
    assert moved == {name for name, _ in model.named_parameters()}


def test_float32_steps_equal_a_calculation_with_singular_values():
    """Newton-Schulz polynomials change only the singular values, so the test applies them to these in float64."""
    torch.manual_seed(0)
    for shape in ((5, 5), (4, 9), (9, 4), (6, 2, 3, 3)):
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for _ in range(2)]
        optimizer = Muon([{"params": parameters, "weight_decay": 0.0}], lr=1.0, dtype=torch.float32)
        for parameter in parameters:
            parameter.grad = torch.randn(shape)
        optimizer.step()
        for parameter in parameters:
            assert parameter.grad is not None
            left, values, right = torch.linalg.svd(parameter.grad.flatten(1).double(), full_matrices=False)
            values /= values.norm()
            for _ in range(5):
                values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
            expected = -0.2 * max(len(left), right.shape[1]) ** 0.5 * left * values @ right
            torch.testing.assert_close(
                parameter.flatten(1).double(), expected, rtol=1e-4, atol=1e-5, check_dtype=False
            )


def test_resuming_from_a_saved_state_equals_not_stopping():
    whole = make_model()
    optimizer = optimizer_of(whole)
    add_gradients(whole)
    optimizer.step()
    optimizer.zero_grad()
    resumed = copy.deepcopy(whole)
    other = optimizer_of(resumed)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, its_optimizer in ((whole, optimizer), (resumed, other)):
        for group in its_optimizer.param_groups:
            group["lr"] = 3e-3  # a schedule sets it in the groups that loading has replaced
        add_gradients(model)
        its_optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_parameters_that_muon_cannot_train_are_named(corpus, tmp_path):
    flags = ["--corpus", corpus, "--output_dir", tmp_path / "out", "--max_steps", "2", "--vocab_size", "500"]
    done = run_here("pretrain", "elmo", *flags, "--preset", "elmo-tiny", "--optim", "muon")
    assert done.returncode == 2
    assert "--optim muon: ElmoForPreTraining has no transformer layers or convolutions to train" in done.stderr


@pytest.mark.slow
def test_muon_refuses_sharded_matrices(corpus, tmp_path):
    flags = ["--corpus", corpus, "--output_dir", tmp_path / "out", "--max_steps", "2", "--vocab_size", "500"]
    words = ["pretrain", "bert", *flags, "--preset", "bert-tiny", "--optim", "muon"]
    done = run_toolkit(*words, launcher=[*TORCHRUN, "-m"], **FSDP2)
    assert done.returncode != 0
    assert "--optim muon: needs whole matrices, which FSDP2 and DeepSpeed shard" in done.stderr
