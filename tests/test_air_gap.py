"""Behind an air gap: pull once, then work without a network; tokens in files, proxies, a custom CA."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_toolkit

CUT_OFF = {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "", "WITHOUT_SOCKETS": "1"}


def test_a_process_without_network_cannot_connect(hub, tmp_path):
    done = hub.run("pull", "me/x", tmp_path / "x", WITHOUT_SOCKETS="1")
    assert "somebody asked for the network" in done.stderr


def test_after_one_pull_everything_works_without_a_network(encoders, hub, tmp_path):
    assert hub.run("push", encoders["elmo"], "me/gap-elmo", "--with_code").returncode == 0
    assert hub.run("pull", "me/gap-elmo", tmp_path / "elmo").returncode == 0
    tagger = tmp_path / "tagger"
    flags = ["--encoder", tmp_path / "elmo", "--data", "sample", "--train_size", "60", "--max_steps", "5"]
    commands = (
        ["finetune", "pos", *flags, "--output_dir", tagger],
        ["score", tagger, "--data", "sample"],
        ["predict", tagger, "The old man the boats."],
    )
    for command in commands:
        done = hub.run(*command, **CUT_OFF)
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split("\n")[0].split("\t")) == 3
    assert "auto_map" in json.loads((tmp_path / "elmo" / "config.json").read_text())
    assert "auto_map" not in json.loads((tagger / "config.json").read_text())  # it does not have that code


def test_names_fetched_before_load_without_a_network(encoders, hub):
    assert hub.run("push", encoders["word2vec"], "me/gap-word2vec").returncode == 0
    hub.plant("models/me/gap-word2vec", "pytorch_model.bin")  # never fetched, and not missed
    hub.api().create_tag("me/gap-word2vec", tag="v1")
    for name in ("me/gap-word2vec", "me/gap-word2vec@v1"):
        words = ["fewshot", "evaluate", "--encoder", name, "--data", "sample"]
        words += ["--episodes", "5", "--shots", "1", "--queries", "3"]
        online = hub.run(*words)
        assert online.returncode == 0, online.stderr
    offline = hub.run(*words, **CUT_OFF)
    assert offline.stdout == online.stdout
    done = hub.run("predict", "me/gap-that-nobody-fetched", "x", **CUT_OFF)
    assert done.returncode == 2
    assert "nor a copy of it, and HF_HUB_OFFLINE is set" in done.stderr


@pytest.mark.parametrize("command", ["push", "pull"])
def test_offline_errors_are_one_line(encoders, hub, tmp_path, command):
    words = {"push": [encoders["bert"], "me/offline"], "pull": ["me/offline", tmp_path / "x"]}[command]
    done = hub.run(command, *words, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set, unset it to reach the Hub" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_in_a_file_and_a_proxy(encoders, hub, tmp_path, request):
    """The Hub itself is the proxy and receives the requests for a host that does not exist."""
    token_file = tmp_path / "token"
    token_file.write_text(hub.token + "\n")
    request.addfinalizer(token_file.unlink)  # no other file of the tests holds it
    environment = {**hub.environment, "HF_TOKEN_PATH": str(token_file), "HF_ENDPOINT": "http://hub.invalid"}
    environment |= {"HF_TOKEN": "", "HTTP_PROXY": hub.address, "NO_PROXY": ""}
    done = run_toolkit("push", encoders["bert"], "me/by-proxy", "--private", **environment)
    assert done.returncode == 0, done.stderr
    done = run_toolkit("pull", "me/by-proxy", tmp_path / "bert", **environment)
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(encoders["bert"] / "model.safetensors", tmp_path / "bert" / "model.safetensors", shallow=False)
    done = run_toolkit("pull", "me/by-proxy", tmp_path / "x", **{**environment, "HTTP_PROXY": ""})
    assert done.returncode == 1
    assert "hub.invalid: does not answer" in done.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed, which makes the certificate")
def test_a_custom_certificate_authority(hub, encoders, tmp_path):
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "ca.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(make, check=True, capture_output=True)
    server = REPOSITORY / "tests" / "hub_server.py"
    command = [sys.executable, server, "0", f"{hub.token}=me"]
    certificate = {"CERTIFICATE": str(tmp_path / "ca.pem"), "KEY": str(tmp_path / "key.pem")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **certificate})
    try:
        port = process.stdout.readline().strip().rpartition(":")[2]
        environment = {**hub.environment, "HF_ENDPOINT": f"https://localhost:{port}", "NO_PROXY": "localhost"}
        done = run_toolkit("push", encoders["bert"], "me/ca", **environment)
        assert done.returncode == 1
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
        assert "SSL_CERT_FILE" in done.stderr
        done = run_toolkit("push", encoders["bert"], "me/ca", SSL_CERT_FILE=str(tmp_path / "ca.pem"), **environment)
        assert done.returncode == 0, done.stderr
    finally:
        process.terminate()
        process.wait()


def test_the_hubs_own_command_line_agrees(encoders, hub, tmp_path):
    def hf(*words: str) -> None:
        environment = {**os.environ, **hub.environment, "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts")) / "hf", *words], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    hf("upload", "me/by-hf", encoders["bert"], ".")
    assert hub.run("pull", "me/by-hf", tmp_path / "ours").returncode == 0
    assert hub.run("push", encoders["bert"], "me/by-toolkit").returncode == 0
    hf("download", "me/by-toolkit", "--local-dir", tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        for file in ("model.safetensors", "config.json", "tokenizer.json", "results.json"):
            assert filecmp.cmp(encoders["bert"] / file, tmp_path / folder / file, shallow=False)


# Data sets

ROWS = {"train": [("a good film", "pos"), ("a bad film", "neg")] * 6, "test": [("good", "pos"), ("bad", "neg")]}


def test_push_and_pull_of_a_data_set(hub, encoders, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "LICENSE").write_text("Jo's licence\n")
    for split, rows in ROWS.items():
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    pushed = hub.run("push", tmp_path / "data", "me/films", "--repo_type", "dataset", "--private")
    assert pushed.returncode == 0, pushed.stderr
    assert hub.run("pull", "me/films", tmp_path / "pulled", "--repo_type", "dataset").returncode == 0
    for split in ROWS:
        file = f"{split}.jsonl"
        assert filecmp.cmp(tmp_path / "data" / file, tmp_path / "pulled" / file, shallow=False)
    train = ["finetune", "text", "--encoder", encoders["word2vec"], "--max_steps", "4"]
    by_name = hub.run(*train, "--data", "me/films", "--output_dir", tmp_path / "by_name")
    assert by_name.returncode == 0, by_name.stderr
    pulled = hub.run(*train, "--data", tmp_path / "pulled", "--output_dir", tmp_path / "by_folder")
    assert pulled.returncode == 0, pulled.stderr
    records = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("by_name", "by_folder")]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["n"] == 2
    assert hub.run("push", tmp_path / "by_name", "me/film-classifier").returncode == 0
    card = hub.api().hf_hub_download("me/film-classifier", "README.md", local_dir=tmp_path / "card")
    assert "datasets:\n- me/films" in Path(card).read_text()


def test_push_and_pull_of_a_treebank(hub, tmp_path):
    from toolkit.data.sources import SAMPLE_TREEBANK

    done = hub.run("push", SAMPLE_TREEBANK, "me/treebank", "--repo_type", "dataset")
    assert done.returncode == 0, done.stderr
    assert hub.run("pull", "me/treebank", tmp_path / "treebank", "--repo_type", "dataset").returncode == 0
    files = [path for path in SAMPLE_TREEBANK.rglob("*") if path.suffix == ".conllu"]
    assert len(files) >= 3
    for file in files:
        assert filecmp.cmp(file, tmp_path / "treebank" / file.relative_to(SAMPLE_TREEBANK), shallow=False)


def test_pushing_data_as_a_model_is_refused(hub, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "x"}\n')
    done = hub.run("push", tmp_path, "me/mistaken")
    assert done.returncode == 2
    assert "data is sent by --repo_type dataset" in done.stderr
