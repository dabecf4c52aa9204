"""Encoders and tokenizers that other tools made: read as they were made, or refused in one line."""

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import torch
import transformers
from conftest import REPOSITORY
from in_process import error_of, run_here
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from tasks import TASKS
from toolkit.corpora.text import load_text
from toolkit.corpora.tokenization import load_tokenizer, space_before_words
from toolkit.modalities.text import max_length

POSITIONS = 66  # of which RoBERTa never uses the first two

pytestmark = pytest.mark.slow  # half a minute


def save_roberta(folder, texts, **settings):
    """A small RoBERTa with random weights, as RoBERTa's authors save it: no maximum length, no prefix space."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, 400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False
    )
    bpe.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    named = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    named |= {"mask_token": "<mask>", "pad_token": "<pad>", **settings}
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **named).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=400, max_position_embeddings=POSITIONS, type_vocab_size=1, **sizes)
    torch.manual_seed(0)
    RobertaModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def texts():
    return load_text("sample")["text"][:200]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory, texts):
    return save_roberta(tmp_path_factory.mktemp("roberta"), texts)


def test_words_one_by_one_are_cut_like_the_text(roberta):
    tokenizer = load_tokenizer(roberta)
    assert space_before_words(tokenizer) == " "
    rows = [{"tokens": text.split(), "tags": []} for text in ("The dog barks loudly .", "one")]
    encoded = TASKS["pos"].encode_words(rows, tokenizer, {}, None)
    for row, of_row in zip(rows, encoded, strict=True):
        assert of_row["input_ids"] == tokenizer(" ".join(row["tokens"]))["input_ids"]
    long = [{"tokens": ["dog"] * 100, "tags": []}]
    parts = TASKS["pos"].encode_words(long, tokenizer, {}, 40)
    whole = [i for part in parts for i in part["input_ids"] if i not in tokenizer.all_special_ids]
    assert whole == tokenizer(" ".join(long[0]["tokens"]), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", ["word2vec", "elmo", "bert"])
def test_our_tokenizers_want_no_space(encoders, family, minilm):
    assert space_before_words(load_tokenizer(encoders[family])) == space_before_words(load_tokenizer(minilm)) == ""


def test_positions_that_the_model_never_uses_are_not_counted(roberta, encoders):
    assert max_length(load_tokenizer(roberta), RobertaModel.from_pretrained(roberta)) == POSITIONS - 2
    bert = transformers.AutoModel.from_pretrained(encoders["bert"])
    assert max_length(load_tokenizer(encoders["bert"]), bert) == 128


@pytest.mark.parametrize("task", ["text", "pos"])
def test_a_roberta_without_a_maximum_length_trains(roberta, tmp_path, task, texts):
    flags = ["--encoder", roberta, "--data", "sample", "--train_size", "60", "--max_steps", "2"]
    done = run_here("finetune", task, *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert run_here("predict", tmp_path / "out", " ".join(texts[:5])).returncode == 0


def test_a_tokenizer_without_padding_or_with_padding_on_the_left(tmp_path, texts):
    folder = save_roberta(tmp_path / "encoder", texts, pad_token=None, padding_side="left")
    assert PreTrainedTokenizerFast.from_pretrained(folder).pad_token is None
    tokenizer = load_tokenizer(folder)
    padded = tokenizer.pad({"input_ids": [[5, 6, 7], [5]]})
    assert padded["attention_mask"] == [[1, 1, 1], [1, 0, 0]]
    flags = ["--encoder", folder, "--data", "sample", "--train_size", "40", "--max_steps", "2"]
    assert run_here("finetune", "text", *flags, "--output_dir", tmp_path / "out").returncode == 0
    flags = ["--encoder", folder, "--data", "sample", "--episodes", "5", "--queries", "2", "--shots", "1"]
    assert run_here("fewshot", "evaluate", *flags).returncode == 0


def test_a_timm_repository_predicts(tmp_path):
    """Its config.json names an architecture of timm, and no class."""
    import timm
    from PIL import Image
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    labels = ["ant", "bee", "cat", "dog", "eel"]
    named = {"label_names": labels, "pretrained_cfg": {**model.pretrained_cfg, "num_classes": 5}}
    config = {"architecture": "test_resnet", "num_classes": 5, "num_features": model.num_features, **named}
    (tmp_path / "config.json").write_text(json.dumps(config))
    Image.effect_noise((96, 96), 90).convert("RGB").save(tmp_path / "noise.png")
    done = run_here("predict", tmp_path, tmp_path / "noise.png", "--output_format", "jsonl")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    data = timm.data.resolve_data_config(model.pretrained_cfg, model=model)
    pixels = timm.data.create_transform(**data)(Image.open(tmp_path / "noise.png"))
    with torch.no_grad():
        expected = model.eval()(pixels[None]).softmax(dim=-1)[0]
    assert found["predicted"] == labels[expected.argmax()]
    assert list(found["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-4)
    done = run_here("explain", tmp_path, tmp_path / "noise.png", "--output_dir", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kept", ["all", "no weights"])
def test_a_cache_that_another_tool_filled(roberta, tmp_path, kept):
    commit = 40 * "a"
    repository = tmp_path / "hub" / "models--acme--tiny"
    shutil.copytree(roberta, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    if kept == "no weights":
        (repository / "snapshots" / commit / "model.safetensors").unlink()
    code = "from toolkit.transfer.encoders import load_config; from toolkit.hub.download import local_copy; "
    code += "print(load_config('acme/tiny').model_type, local_copy('acme/tiny'))"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    if kept == "all":
        assert done.stdout.split() == ["roberta", str(repository / "snapshots" / commit)], done.stderr
    else:
        assert "has no weights in .safetensors" in done.stderr


def test_an_encoder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # other tests of this process have a Hub
    flags = ["--data", "sample", "--output_dir", tmp_path / "out"]
    message = error_of(run_here("finetune", "text", "--encoder", "acme/nothing", *flags))
    assert "acme/nothing: no such folder, nor a copy of it, and HF_HUB_OFFLINE is set" in message


KINDS = {
    "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "XLNet": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32},
    "Albert": {"embedding_size": 8, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32},
    "T5": {"d_model": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "d_kv": 8},
}


REFUSED = {  # with one kind of head, or both
    ("T5", "top"): "",
    ("T5", "mix"): "",
    ("XLNet", "top"): "what it computes for a text changes if the text is padded on the right",
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_networks_compute_or_are_refused(kind, encoders, tmp_path):
    """One has no id of padding, one no largest position and padding on the left, one needs the input of a decoder."""
    tokenizer = load_tokenizer(str(encoders["bert"]))
    tokenizer.save_pretrained(tmp_path / "encoder")
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **KINDS[kind])
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")
    flags = ["--encoder", tmp_path / "encoder", "--data", "sample", "--train_size", "8", "--max_steps", "1"]
    for name, more in (("top", []), ("mix", ["--freeze"])):
        done = run_here("finetune", "text", *flags, *more, "--output_dir", tmp_path / name)
        if (kind, name) in REFUSED:
            assert f"of type {kind.lower()} cannot be used on texts: {REFUSED[kind, name]}" in error_of(done)
            continue
        assert done.returncode == 0, done.stderr
        alone = run_here("predict", tmp_path / name, "Rain is expected.", "--output_format", "jsonl")
        long = "A sentence of very many words, because it goes on, and on, and on."
        beside = run_here("predict", tmp_path / name, "Rain is expected.", long, "--output_format", "jsonl")
        first, second = (json.loads(done.stdout.splitlines()[0])["probability"] for done in (alone, beside))
        assert first == pytest.approx(second, abs=2e-4), "padding changes nothing"
