"""A run that is resumed looks whether its data, its encoder and the toolkit are those that it began with."""

import json
import re
import shutil

import pytest
from in_process import error_of, run_here

STEPS = ["--max_steps", "4", "--save_steps", "2", "--batch_size", "4"]


@pytest.fixture
def unfinished(encoders, tmp_path):
    """The flags of a run of fine-tuning whose record is not yet written."""
    shutil.copytree(encoders["word2vec"], tmp_path / "encoder")
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20)))
    flags = ["--encoder", tmp_path / "encoder", "--data", tmp_path / "data.csv", "--output_dir", tmp_path / "run"]
    done = run_here("finetune", "text", *flags, *STEPS)
    assert done.returncode == 0, done.stderr
    (tmp_path / "run" / "results.json").unlink()
    return [*flags, *STEPS]


def test_the_same_run_goes_on(unfinished, tmp_path):
    done = run_here("finetune", "text", *unfinished, "--resume")
    assert done.returncode == 0, done.stderr
    assert "toolkit and goes on" not in done.stderr
    again = run_here("finetune", "text", *unfinished, "--resume")
    assert "was finished before, this is its record; nothing is trained" in again.stderr


def test_changed_data_is_noticed(unfinished, tmp_path):
    lines = (tmp_path / "data.csv").read_text().splitlines()
    (tmp_path / "data.csv").write_text("\n".join([*lines[:-1], "text 19,0"]) + "\n")
    message = error_of(run_here("finetune", "text", *unfinished, "--resume"))
    assert re.search("--resume: (train|validation) of the run in .* changed since it began", message)


def test_a_changed_encoder_is_noticed(unfinished, tmp_path):
    file = tmp_path / "encoder" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "--resume: encoder of the run in" in error_of(run_here("finetune", "text", *unfinished, "--resume"))


def test_another_version_is_said(unfinished, tmp_path):
    mark = tmp_path / "run" / ".toolkit-run"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "toolkit": "0.0.1"}))
    done = run_here("finetune", "text", *unfinished, "--resume")
    assert done.returncode == 0, done.stderr
    assert "began with version 0.0.1 of the toolkit" in done.stderr


@pytest.mark.parametrize("method", ["bert", "resnet"])
def test_a_changed_corpus_is_noticed(method, tmp_path):
    corpus = tmp_path / "corpus"
    if method == "bert":
        corpus.mkdir()
        (corpus / "a.txt").write_text("The dog barks at the cat.\n" * 200)
        flags = ["--preset", "bert-tiny", "--vocab_size", "200", "--embeddings", "random"]
    else:
        from PIL import Image

        for number in range(40):
            folder = corpus / str(number % 2)
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number, 0, 200 * (number % 2))).save(folder / f"{number}.bmp")
        flags = ["--preset", "resnet-tiny", "--image_size", "16"]
    run = ["pretrain", method, "--corpus", corpus, *flags, *STEPS, "--output_dir", tmp_path / "run"]
    done = run_here(*run)
    assert done.returncode == 0, done.stderr
    (tmp_path / "run" / "results.json").unlink()
    if method == "bert":
        (corpus / "a.txt").write_text("The dog barks at a cat.\n" * 200)
    else:
        (corpus / "0" / "0.bmp").unlink()
    done = run_here(*run, "--resume")
    assert done.returncode == 2
    assert "changed since it began" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("prefix", ["", "scratch:"])
def test_overwriting_does_not_delete_what_is_read(prefix, encoders, tmp_path):
    shutil.copytree(encoders["word2vec"], tmp_path / "encoder")
    flags = ["--encoder", f"{prefix}{tmp_path / 'encoder'}", "--data", "sample", *STEPS, "--overwrite_output_dir"]
    message = error_of(run_here("finetune", "pos", *flags, "--output_dir", tmp_path / "encoder"))
    assert f"would delete {prefix}{tmp_path / 'encoder'}, which this command reads" in message
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes()


def test_a_finished_run_of_another_command_is_not_resumed(taggers):
    folder = taggers["word2vec"]
    message = error_of(run_here("pretrain", "bert", "--corpus", "sample", "--output_dir", folder, "--resume"))
    assert f"{folder} holds the run of another command" in message
