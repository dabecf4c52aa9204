"""The conditional random field of a tagger, compared with explicit sums over all paths."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from conftest import run_toolkit
from encoder_cases import ATTENTION_MASK, CONFIGS, INPUT_IDS
from in_process import run_here
from transformers import AutoModelForTokenClassification

from tasks import finetune, predict
from toolkit.errors import InputError
from toolkit.modalities import MODALITIES
from toolkit.models import elmo
from toolkit.models.crf import with_crf
from toolkit.transfer.encoders import load_encoder

LABELS = torch.tensor([[-100, 2, -100, -100, 1, -100, 0, -100], [-100, 1, -100, -100, -100, -100, -100, -100]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = elmo.ElmoConfig(**{**CONFIGS["toolkit-elmo"].to_dict(), "num_labels": 3, "tagging_head": "crf"})
    model = with_crf(elmo.ElmoForTokenClassification)(config).eval()
    for parameter in model.crf.parameters():
        torch.nn.init.normal_(parameter)
    return model


def path_score(crf, emissions: np.ndarray, path) -> float:
    start, transitions, end = (
        p.detach().numpy() for p in (crf.start_transitions, crf.transitions, crf.end_transitions)
    )
    score = start[path[0]] + end[path[-1]] + sum(emissions[i, tag] for i, tag in enumerate(path))
    return float(score + sum(transitions[a, b] for a, b in itertools.pairwise(path)))


def test_loss_is_the_negative_log_likelihood_over_all_paths(model):
    with torch.no_grad():
        output = model(INPUT_IDS, attention_mask=ATTENTION_MASK, labels=LABELS)
    total = 0.0
    for logits, labels in zip(output.logits.numpy(), LABELS.numpy(), strict=True):
        emissions, path = logits[labels != -100], labels[labels != -100]
        scores = [path_score(model.crf, emissions, p) for p in itertools.product(range(3), repeat=len(path))]
        total += math.log(sum(map(math.exp, scores))) - path_score(model.crf, emissions, path)
    assert output.loss.item() == pytest.approx(total / 4, rel=1e-5)


def test_decoding_finds_the_best_path_and_the_probability_of_each_tag(model):
    torch.manual_seed(1)
    emissions = torch.randn(2, 4, 3)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.inference_mode():
        tags, probabilities = model.decode(emissions.clone(), mask)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        paths = list(itertools.product(range(3), repeat=length))
        weights = [math.exp(path_score(model.crf, emissions[row, :length].numpy(), path)) for path in paths]
        best = paths[int(np.argmax(weights))]
        assert tags[row] == list(best)
        for place in range(length):
            agreeing = sum(w for w, path in zip(weights, paths, strict=True) if path[place] == best[place])
            assert probabilities[row, place].item() == pytest.approx(agreeing / sum(weights), rel=1e-4)


def test_the_crf_is_saved_with_the_weights_and_the_rest_loads_without_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.crf.parameters(), loaded.crf.parameters(), strict=True))
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["ElmoForTokenClassification"]
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    assert type(plain) is elmo.ElmoForTokenClassification
    assert not hasattr(plain, "crf")
    field = {"crf.start_transitions", "crf.end_transitions", "crf.transitions"}
    assert model.state_dict().keys() - plain.state_dict().keys() == field
    with torch.no_grad():
        assert torch.equal(plain(INPUT_IDS).logits, model(INPUT_IDS).logits)


def test_a_crf_tagger_is_an_ordinary_encoder_and_trains_in_bfloat16(encoders, tmp_path):
    flags = {"data": "sample", "max_steps": 4, "batch_size": 8, "train_size": 20}
    finetune("pos", encoder=str(encoders["elmo"]), output_dir=str(tmp_path / "crf"), head="crf", bf16=True, **flags)
    finetune("text", encoder=str(tmp_path / "crf"), output_dir=str(tmp_path / "text"), **flags)
    model, _ = load_encoder(str(tmp_path / "text"), "AutoModelForSequenceClassification", MODALITIES["text"])
    assert not any(name.startswith("crf.") for name, _ in model.named_parameters())
    # Labels that the weights do not fit are a fault where no new ones were asked for.
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (tmp_path / "text" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="text: "):
        load_encoder(str(tmp_path / "text"), "AutoModelForSequenceClassification", MODALITIES["text"])


def test_a_crf_on_a_mix_of_layers_is_trained_and_saved(encoders, tmp_path):
    flags = {"data": "sample", "max_steps": 4, "batch_size": 8, "train_size": 20, "output_dir": str(tmp_path)}
    finetune("pos", encoder=str(encoders["bert"]), head="crf", layers="mix", **flags)
    model, _ = load_encoder(str(tmp_path), "AutoModelForTokenClassification", MODALITIES["text"])
    assert model.config.model_type == "toolkit-layer-mix"
    assert model.crf.transitions.abs().max() > 0


@pytest.mark.parametrize(
    "family", ["elmo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fasttext", "bert"))]
)
def test_a_crf_folder_predicts_the_same_in_a_fresh_process(encoders, family, tmp_path):
    flags = {"encoder": str(encoders[family]), "data": "sample", "output_dir": str(tmp_path / "crf"), "head": "crf"}
    record = finetune("pos", **flags, max_steps=40, batch_size=8, train_size=60, learning_rate=3e-3)
    text = "The zorblifiers frobnicated in Ghent. Who did?"
    expected = predict(str(tmp_path / "crf"), [text])
    done = run_toolkit("predict", tmp_path / "crf", text)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.split("\n") if line]
    assert [row[1] for row in rows] == [tag for sentence in expected for tag in sentence["predicted"]]
    probabilities = [p for sentence in expected for p in sentence["probabilities"]]
    assert [float(row[2]) for row in rows] == pytest.approx(probabilities, abs=1e-3)
    done = run_here("score", tmp_path / "crf", "--data", "sample", "--output_file", tmp_path / "score.json")
    assert f"{record['metrics']['accuracy']['value']:.4f}" in done.stdout
    model, _ = load_encoder(str(tmp_path / "crf"), "AutoModelForTokenClassification", MODALITIES["text"])
    assert model.crf.transitions.abs().max() > 1e-3, "the transitions were trained"
