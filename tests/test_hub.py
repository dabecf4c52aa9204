"""Push and pull: files come back unchanged, with and without toolkit, all or none, and nothing harmful travels."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from loopback import run_in_process
from safetensors.torch import load_file

from toolkit.modalities import MODALITIES

TEXT = "The old man the boats, and unheard-of wugs frobnicate."
STAYS = (".toolkit-run", "predictions.jsonl", "confusion_matrix.png")
WITH_EXTRACTOR = ("sounds", "ast")  # a feature extractor of ours, under a model of ours and one of transformers
OURS = (
    "sounds",
    "word2vec",
    "fasttext",
    "elmo",
    "gru",
    "resnet",
    "lenet",
    "googlenet",
    "tagger",
    "few-shot",
    "seq2seq",
)

LOAD = """
import json, sys, torch, transformers
from safetensors.torch import save_file
{first}
found = {{}}
for key, name, trust in json.loads(sys.argv[1]):
    config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=trust)
    ends = config.architectures[0].partition("For")[2]
    name_of_class = "AutoModelFor" + ends if ends.endswith("Classification") else "AutoModel"
    name_of_class = "AutoModelForSeq2SeqLM" if ends == "ConditionalGeneration" else name_of_class
    cls = getattr(transformers, name_of_class)
    model = cls.from_pretrained(name, trust_remote_code=trust).eval()
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", 8)
        inputs = {{"pixel_values": torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)}}
    elif model.main_input_name == "input_values":
        extractor = transformers.AutoFeatureExtractor.from_pretrained(name, trust_remote_code=trust)
        inputs = dict(extractor(torch.linspace(-1, 1, 4000).sin(), return_tensors="pt"))
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        inputs = dict(tokenizer({text!r}, return_tensors="pt"))
    with torch.no_grad():
        found[key] = model(**inputs)[0].contiguous()
save_file(found, sys.argv[2])
"""


@pytest.fixture(scope="module")
def made(encoders, taggers, tmp_path_factory, hub) -> dict[str, Path]:
    """A folder for each kind of model, tokenizer and classifier that is pushed to a Hub."""
    from toolkit.training.checkpoints import save_model
    from toolkit.transfer.encoders import load_encoder

    root = tmp_path_factory.mktemp("made")
    commands = {
        "tokenizer": ["tokenizer", "--corpus", "sample", "--vocab_size", "500"],
        "few-shot": ["fewshot", "fit", "--encoder", encoders["word2vec"], "--data", "sample", "--shots", "4"],
        "seq2seq": ["finetune", "seq2seq", "--encoder", encoders["elmo"], "--data", "sample", "--train_size", "50"]
        + ["--max_steps", "2", "--target_units", "words"],
        "sounds": ["finetune", "audio", "--encoder", "scratch:resnet-tiny", "--data", "sample", "--max_steps", "2"],
        "ast": ["finetune", "audio", "--encoder", "scratch:ast-tiny", "--data", "sample", "--max_steps", "2"],
    }
    for name, command in commands.items():
        done = run_in_process(*command, "--output_dir", root / name)
        assert done.returncode == 0, done.stderr
    text, image = MODALITIES["text"], MODALITIES["image"]
    images = image.open_unlabelled("sample", image.columns()).load(None)
    for preset in ("electra-tiny", "gru-tiny", "resnet-tiny", "vit-tiny", "lenet-5", "googlenet-mini"):
        folder = root / preset.partition("-")[0]
        folder.mkdir()
        if folder.name in ("electra", "gru"):
            options = text.encoder_arguments(tokenizer=str(root / "tokenizer"))
            save_model(folder, *load_encoder(f"scratch:{preset}", "AutoModel", text, options))
        else:
            save_model(folder, *load_encoder(f"scratch:{preset}", "AutoModel", image, train_rows=images))
    folders = {folder.name: folder for folder in root.iterdir()}
    return {**encoders, "tagger": taggers["elmo"], **folders}


@pytest.fixture(scope="module")
def pushed(made, hub) -> dict[str, str]:
    """Push each folder to the repository of its name; the commits."""
    commits = {}
    for name, folder in made.items():
        done = hub.run("push", folder, f"me/{name}", "--with_code")
        assert done.returncode == 0, done.stderr
        commits[name] = re.search(r"commit (\w{40})", done.stdout)[1]
    return commits


def in_fresh_interpreter(hub, python, script: str, *arguments: str, cwd: Path, **environment: str) -> str:
    variables = {**os.environ, **hub.environment, "PYTHONPATH": str(REPOSITORY), **environment}
    done = subprocess.run(
        [python, "-c", script, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.token not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def without_toolkit(tmp_path_factory) -> Path:
    """The interpreter of a new virtual environment that has all libraries but not toolkit."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-c", "import toolkit"], cwd=folder, capture_output=True, text=True, env={})
    assert "No module named 'toolkit'" in done.stderr
    return python


def test_everything_comes_back_as_it_went(made, pushed, hub, tmp_path):
    for name, folder in made.items():
        done = hub.run("pull", f"me/{name}", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert pushed[name] in done.stdout
        sent = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        sent = [path for path in sent if path.name not in STAYS]
        assert len(sent) >= 2
        for path in sent:
            has_code = {"config.json": OURS, "preprocessor_config.json": WITH_EXTRACTOR}
            if name in has_code.get(str(path), ()):
                configs = [json.loads((root / path).read_text()) for root in (folder, tmp_path / name)]
                assert configs[1].pop("auto_map")
                assert configs[0] == configs[1]
            else:
                assert filecmp.cmp(folder / path, tmp_path / name / path, shallow=False), path
        leftover = {path.name for path in (tmp_path / name).iterdir()} - {path.parts[0] for path in sent}
        assert all(path in (".gitattributes", "README.md") or path.endswith(".py") for path in leftover)
    assert set(os.listdir(tmp_path)) == set(made)


def test_it_says_the_same_elsewhere_with_and_without_toolkit(made, pushed, hub, without_toolkit, tmp_path):
    models = [name for name in made if name != "tokenizer"]
    both = [(f"here {name}", str(made[name]), False) for name in models]
    both += [(name, f"me/{name}", False) for name in models]
    load = LOAD.format(first="import toolkit", text=TEXT)
    in_fresh_interpreter(hub, sys.executable, load, json.dumps(both), "with", cwd=tmp_path)
    expected = {name: load_file(tmp_path / "with")[f"here {name}"] for name in models}
    trusted = json.dumps([(name, f"me/{name}", name in OURS + WITH_EXTRACTOR) for name in models])
    load = LOAD.format(first="assert 'toolkit' not in sys.modules", text=TEXT)
    in_fresh_interpreter(hub, without_toolkit, load, trusted, "without", cwd=tmp_path, PYTHONPATH="")
    for file in ("with", "without"):
        found = load_file(tmp_path / file)
        for name in models:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_code_runs_only_when_asked_and_at_the_revision_that_was_read(made, hub, without_toolkit, tmp_path):
    done = hub.run("push", made["elmo"], "me/read", "--with_code")
    commit = re.search(r"commit (\w{40})", done.stdout)[1]
    script = """
from transformers import AutoModel
try:
    AutoModel.from_pretrained("me/read", trust_remote_code=False)
except ValueError as error:
    print("refused:", error)
model = AutoModel.from_pretrained("me/read", revision=REVISION, code_revision=REVISION, trust_remote_code=True)
print(type(model).__module__)
""".replace("REVISION", repr(commit))
    hub.plant("models/me/read", "elmo.py", b"raise SystemExit('code that nobody has read')")
    said = in_fresh_interpreter(hub, without_toolkit, script, cwd=tmp_path, PYTHONPATH="")
    assert "trust_remote_code=True" in said.partition("refused:")[2]
    assert said.splitlines()[-1].startswith("transformers_modules.")


# Cards


def card_of(hub, repository: str, tmp_path: Path, kind: str = "model") -> str:
    return Path(hub.api().hf_hub_download(repository, "README.md", repo_type=kind, local_dir=tmp_path)).read_text()


def test_the_card_has_the_figures_and_the_hub_takes_it(made, pushed, hub, tmp_path):
    card = ModelCard(card_of(hub, "me/tagger", tmp_path))
    card.validate()
    record = json.loads((made["tagger"] / "results.json").read_text())
    _, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    found = {result.metric_name: result for result in results}
    accuracy = record["metrics"]["accuracy"]
    assert found["accuracy"].metric_value == accuracy["value"]
    assert found["accuracy"].metric_args["confidence_interval_95"] == [accuracy["low"], accuracy["high"]]
    assert found["accuracy"].dataset_split == "test"
    assert found["accuracy"].task_type == card.data.pipeline_tag == "token-classification"
    text = card.text
    for said in (f"{record['parameters']:,} parameters", "60 training examples", "`NOUN`", "Apache-2.0", "1802.05365"):
        assert said in text
    assert f"| accuracy | {accuracy['value']:.4f} | {accuracy['low']:.4f} | {accuracy['high']:.4f} |" in text
    assert f"{record['training_seconds']:,.0f} seconds of training" in text
    assert str(made["tagger"].parent.parent) not in text.partition("## Training")[0]


def test_the_lines_of_each_card_load_it(made, pushed, hub, without_toolkit, tmp_path, monkeypatch):
    snippets = {}
    for name in made:
        found = re.search(r"```python\n(.*?)\n```", card_of(hub, f"me/{name}", tmp_path / name), re.DOTALL)
        snippets[name] = found[1]
        assert len(snippets[name].splitlines()) == (8 if name == "seq2seq" else 3)
    assert hub.run("push", made["lenet"], "me/bare").returncode == 0
    bare = re.search(r"```python\n(.*?)\n```", card_of(hub, "me/bare", tmp_path), re.DOTALL)[1]
    assert bare.startswith("import toolkit\n")
    code = "\n".join(snippets.values()) + "\nassert 'toolkit' not in sys.modules"
    in_fresh_interpreter(hub, without_toolkit, "import sys\n" + code, cwd=tmp_path, PYTHONPATH="")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    exec(bare, found := {})
    assert type(found["model"]).__module__ == "toolkit.models.lenet"


def test_what_people_write_stays(made, hub, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(made["lenet"], folder)
    (folder / "results.json").write_text(
        json.dumps({"task": "image", "dataset": "x", "split": "test", "n": 5, "metrics": {}})
    )
    assert hub.run("push", folder, "me/edited").returncode == 0

    def edit(text: str, old: str, new: str) -> str:
        assert old in text
        return text.replace(old, new)

    # On the Hub, by hand
    text = edit(card_of(hub, "me/edited", tmp_path / "1"), "# edited", "# My network\n\nDo not use it for x-rays.")
    text = edit(text, "library_name: transformers", "library_name: transformers\nlicense: mit")
    text = edit(text, "tags:\n", "tags:\n- digits\n") + "\nAsk Jo.\n"
    hub.api().upload_file(repo_id="me/edited", path_in_repo="README.md", path_or_fileobj=text.encode())
    record = {"task": "image", "dataset": "x", "split": "test", "n": 77, "encoder": "scratch:lenet-5"}
    record["metrics"] = {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.875}}
    (folder / "results.json").write_text(json.dumps(record))
    assert hub.run("push", folder, "me/edited", "--with_code").returncode == 0
    text = card_of(hub, "me/edited", tmp_path / "2")
    card = ModelCard(text)
    assert card.data.license == "mit"
    assert {"digits", "lenet"} <= set(card.data.tags)
    assert card.data.eval_results[0].metric_value == 0.75
    assert "Do not use it for x-rays." in text.partition("<!--")[0]
    assert text.rstrip().endswith("Ask Jo.")
    assert text.count("n = 77") == 1
    assert "trust_remote_code" in text

    # Here, in a copy that was pulled
    (folder / "README.md").write_text(edit(edit(text, "Ask Jo.", "Ask Kim."), "license: mit", "license: bsd"))
    assert hub.run("push", folder, "me/edited").returncode == 0
    text = card_of(hub, "me/edited", tmp_path / "3")
    assert "Ask Kim." in text
    assert "Ask Jo." not in text
    assert ModelCard(text).data.license == "bsd"

    # On the Hub once more, the copy being as it was pushed
    (folder / "README.md").write_text(text)
    theirs = edit(text, "license: bsd", "license: apache-2.0")
    hub.api().upload_file(repo_id="me/edited", path_in_repo="README.md", path_or_fileobj=theirs.encode())
    assert hub.run("push", folder, "me/edited").returncode == 0
    text = card_of(hub, "me/edited", tmp_path / "5")
    assert ModelCard(text).data.license == "apache-2.0"

    # On the Hub, carried on by a push from elsewhere; the copy is as it once was pushed
    (folder / "README.md").write_text(text)
    theirs = edit(text, "Ask Kim.", "Ask Lou.")
    hub.api().upload_file(repo_id="me/edited", path_in_repo="README.md", path_or_fileobj=theirs.encode())
    (folder / "README.md").unlink()
    assert hub.run("push", folder, "me/edited").returncode == 0
    (folder / "README.md").write_text(text)
    assert hub.run("push", folder, "me/edited").returncode == 0
    text = card_of(hub, "me/edited", tmp_path / "6")
    assert "Ask Lou." in text

    # In both places
    theirs = edit(text, "Ask Lou.", "Ask Lee.")
    hub.api().upload_file(repo_id="me/edited", path_in_repo="README.md", path_or_fileobj=theirs.encode())
    (folder / "README.md").write_text(edit(text, "Ask Lou.", "Ask Max."))
    done = hub.run("push", folder, "me/edited")
    assert done.returncode == 2
    assert "edited here and on the Hub" in done.stderr
    assert "Ask Lee." in card_of(hub, "me/edited", tmp_path / "4")


def test_what_was_generated_makes_way_and_what_was_added_stays(made, hub, tmp_path):
    assert hub.run("push", made["tagger"], "me/changed").returncode == 0
    text = card_of(hub, "me/changed", tmp_path / "1").replace("tags:\n", "tags:\n- mine\n")
    hub.api().upload_file(repo_id="me/changed", path_in_repo="README.md", path_or_fileobj=text.encode())
    before = ModelCard(text).data.to_dict()
    assert hub.run("push", made["lenet"], "me/changed").returncode == 0
    after = ModelCard(card_of(hub, "me/changed", tmp_path / "2")).data.to_dict()
    assert before["pipeline_tag"] == "token-classification"
    assert after["pipeline_tag"] == "image-feature-extraction"
    assert "model-index" in before
    assert "model-index" not in after
    assert {"mine", "lenet"} <= set(after["tags"])
    assert "elmo" not in after["tags"]


def test_metadata_that_are_broken_are_refused_before_anything_is_sent(made, hub, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(made["lenet"], folder)
    (folder / "README.md").write_text("---\ntags: [a\n---\ntext\n")
    done = hub.run("push", folder, "me/broken")
    assert done.returncode == 2
    assert "README.md: the metadata between the lines --- are no YAML" in done.stderr
    assert not hub.api().repo_exists("me/broken")


# Pushing


def test_a_dry_run_lists_what_would_go_and_asks_nobody(made, hub):
    before = len(hub.seen())
    done = hub.run("push", made["tagger"], "me/dry", "--with_code", "--dry_run")
    assert done.returncode == 0
    assert len(hub.seen()) == before
    listed = dict(reversed(line.split()) for line in done.stdout.splitlines()[:-2])
    assert int(listed["model.safetensors"].replace(",", "")) == (made["tagger"] / "model.safetensors").stat().st_size
    assert {"README.md", "elmo.py", "config.json", "results.json"} <= set(listed)
    assert "predictions.jsonl" in done.stdout.splitlines()[-1]


def test_a_second_push_sends_only_what_is_new(made, pushed, hub):
    before = len(hub.seen())
    done = hub.run("push", made["bert"], "me/bert", "--with_code")
    assert pushed["bert"] in done.stdout
    assert not [request for request in hub.seen()[before:] if request["method"] == "PUT"]
    assert max(request["size"] for request in hub.seen()[before:]) < 20_000


def test_branches_tags_and_messages(made, hub, tmp_path):
    flags = ["--revision", "dev/x", "--tag", "v1", "--message", "A network of 1998"]
    assert hub.run("push", made["lenet"], "me/named", *flags).returncode == 0
    api = hub.api()
    assert api.list_repo_commits("me/named", revision="v1")[0].title == "A network of 1998"
    assert not api.file_exists("me/named", "config.json")
    assert 'revision="v1"' in Path(api.hf_hub_download("me/named", "README.md", revision="v1")).read_text()
    assert hub.run("pull", "me/named", tmp_path / "v1", "--revision", "v1").returncode == 0
    assert (tmp_path / "v1" / "config.json").is_file()
    again = hub.run("push", made["vit"], "me/named", "--revision", "dev/x", "--tag", "v1")
    assert again.returncode == 2
    assert "the tag v1 stands at" in again.stderr


def test_private_is_verified(made, hub, tmp_path):
    assert hub.run("push", made["lenet"], "me/secret", "--private").returncode == 0
    assert hub.api().repo_info("me/secret").private
    other = hub.run("pull", "me/secret", tmp_path / "x", HF_TOKEN=hub.other_token)
    nobody = hub.run("pull", "me/secret", tmp_path / "x", HF_TOKEN="")
    for done, said in ((other, "cannot be seen with this token"), (nobody, "set HF_TOKEN")):
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    hub.api().create_repo("me/open")
    done = hub.run("push", made["lenet"], "me/open", "--private")
    assert done.returncode == 2
    assert "everyone can see the repository" in done.stderr
    assert not hub.api().file_exists("me/open", "config.json")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.pkl", b"x", "model.pkl: not sent, .pkl may be a pickle"),
        ("pytorch_model.bin", b"x", "pytorch_model.bin: not sent, .bin may be a pickle"),
        ("all.tar.gz", b"x", "all.tar.gz: not sent, it is an archive"),
        ("notes.txt", b"HF_TOKEN=TOKEN", "notes.txt: holds a token"),
        ("others.txt", b"hf_" + 34 * b"a", "others.txt: holds a token"),
        ("README.md", b"\xff\xfe", "README.md: cannot be read"),
        ("README.md", b"---\ndate: 2026-02-31\n---\n", "README.md: the metadata between the lines --- are no YAML"),
        ("config.json", b"{", "config.json: no JSON"),
        ("config.json", b"[1]", "config.json: expected a mapping"),
        ("config.json", b'{"model_type": "toolkit-nothing"}', "the toolkit has no encoder toolkit-nothing"),
        ("results.json", b"[", "results.json: no JSON"),
    ],
)
def test_what_may_not_be_sent_is_refused_in_one_line_before_anything_is(made, hub, tmp_path, file, content, said):
    shutil.copytree(made["lenet"], tmp_path / "folder")
    (tmp_path / "folder" / file).write_bytes(content.replace(b"TOKEN", hub.token.encode()))
    done = hub.run("push", tmp_path / "folder", "me/refused", "--with_code")
    (tmp_path / "folder" / file).unlink()
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not hub.api().repo_exists("me/refused")


def test_what_other_tools_leave_is_no_hindrance(made, hub, tmp_path):
    shutil.copytree(made["lenet"], tmp_path / "folder")
    (tmp_path / "folder" / "results.json").write_text('{"metrics": {"accuracy": 0.5}}')
    (tmp_path / "folder" / "tensorboard").mkdir()
    (tmp_path / "folder" / "tensorboard" / "events.out.tfevents.1").write_bytes(b"x")
    done = hub.run("push", tmp_path / "folder", "me/others")
    assert done.returncode == 0, done.stderr
    assert "not sent: " in done.stdout
    assert "results.json" in hub.api().list_repo_files("me/others")


def test_links_that_lead_nowhere_are_named(made, hub, tmp_path):
    shutil.copytree(made["lenet"], tmp_path / "folder")
    (tmp_path / "folder" / "gone.txt").symlink_to(tmp_path / "folder" / "nothing.txt")
    done = hub.run("push", tmp_path / "folder", "me/refused")
    assert done.returncode == 2
    assert "gone.txt: cannot be read" in done.stderr


def test_a_link_out_of_the_folder_is_not_followed(made, hub, tmp_path):
    shutil.copytree(made["lenet"], tmp_path / "folder")
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "folder" / "link.txt").symlink_to(tmp_path / "secret.txt")
    done = hub.run("push", tmp_path / "folder", "me/refused")
    assert done.returncode == 2
    assert "leads out of the folder" in done.stderr


@pytest.mark.parametrize("name", ["me/a--b", "tagger", "a/b/c", "me/..", "me/a b", "me/modèle", "me/x.git"])
def test_a_name_that_no_hub_takes_is_refused(made, hub, name):
    before = len(hub.seen())
    done = hub.run("push", made["lenet"], name)
    assert done.returncode == 2
    assert f"REPO_ID {name}: expected a name like org/name" in done.stderr
    assert len(hub.seen()) == before


def test_weights_that_are_no_longer_there_go(made, hub, tmp_path):
    shutil.copytree(made["lenet"], tmp_path / "folder")
    shutil.copy(tmp_path / "folder" / "model.safetensors", tmp_path / "folder" / "model-00001-of-00002.safetensors")
    assert hub.run("push", tmp_path / "folder", "me/sharded").returncode == 0
    hub.plant("models/me/sharded", "notes.txt")
    (tmp_path / "folder" / "model-00001-of-00002.safetensors").unlink()
    assert hub.run("push", tmp_path / "folder", "me/sharded").returncode == 0
    files = hub.api().list_repo_files("me/sharded")
    assert {"model.safetensors", "notes.txt"} <= set(files)
    assert "model-00001-of-00002.safetensors" not in files


# Pulling


@pytest.mark.parametrize(
    ("path", "content", "claims", "said"),
    [
        ("../../evil", b"x", {}, "'../../evil' is refused, its name leads out of the folder"),
        ("/tmp/toolkit-evil", b"x", {}, "'/tmp/toolkit-evil' is refused, its name leads out of the folder"),
        ("..\\evil.txt", b"x", {}, "is refused, its name leads out of the folder"),
        ("C:/evil.txt", b"x", {}, "'C:/evil.txt' is refused, its name leads out of the folder"),
        ("new\nline.txt", b"x", {}, "is refused, its name leads out of the folder"),
        (".git/config", b"x", {}, "'.git/config' is refused, its name is one of git's own"),
        ("link.txt", b"/etc/passwd", {"type": "symlink"}, "'link.txt' is refused, it is no plain file"),
        ("pytorch_model.bin", b"x", {}, "'pytorch_model.bin' is refused, .bin may be a pickle"),
        ("data.pkl", b"x", {}, "'data.pkl' is refused, .pkl may be a pickle"),
        ("all.zip", b"x", {}, "'all.zip' is refused, it is an archive"),
        (f"{'x' * 300}.txt", b"x", {}, "is refused, its name is too long"),
        ("run.sh", b"x", {}, "'run.sh' is refused, it is neither weights in safetensors nor text"),
        ("big.safetensors", b"x", {"size": 10_100_000_000}, "10.1 GB, more than 10"),
        ("bigger.safetensors", b"x", {"size": 10**15}, "1000000.0 GB, and there are"),
        (
            "config.json",
            b'{"auto_map": {"AutoModel": "them/other--code.M"}}',
            {},
            "names code of another repository, them",
        ),
        ("a.json", b'{"encoder": {"auto_map": {"AutoModel": "them/x--code.M"}}}', {}, "code of another repository"),
        ("b.json", b'{"custom_pipelines": {"p": {"impl": "them/x--code.P"}}}', {}, "code of another repository"),
    ],
)
def test_evil_repositories_are_refused(hub, tmp_path, path, content, claims, said):
    name = f"me/evil-{abs(hash((path, tuple(claims))))}"
    hub.api().create_repo(name)
    hub.plant(f"models/{name}", path, content, **claims)
    (tmp_path / "a" / "b").mkdir(parents=True)
    done = hub.run("pull", name, tmp_path / "a" / "b" / "folder")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert [str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*")] == ["a", "a/b"]
    assert not Path("/tmp/toolkit-evil").exists()


def test_by_name_too_evil_is_refused(made, hub, tmp_path):
    from safetensors.torch import save_file

    def predict(name: str) -> str:
        done = hub.run("predict", name, "a text")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        return done.stderr

    hub.api().create_repo("me/pickled")
    hub.plant("models/me/pickled", "config.json", (made["tagger"] / "config.json").read_bytes())
    hub.plant("models/me/pickled", "pytorch_model.bin", b"x")
    assert "weights are in pytorch_model.bin, which is refused, .bin may be a pickle" in predict("me/pickled")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    for name, code in (("foreign", "them/other--code.M"), ("own", "code.M")):
        config = {"model_type": "new", "architectures": ["MForTokenClassification"], "auto_map": {"AutoConfig": code}}
        hub.api().create_repo(f"me/{name}")
        hub.plant(f"models/me/{name}", "config.json", json.dumps(config).encode())
        hub.plant(f"models/me/{name}", "code.py", b"raise SystemExit('this ran')")
        hub.plant(f"models/me/{name}", "model.safetensors", (tmp_path / "x.safetensors").read_bytes())
    assert "names code of another repository, them/other" in predict("me/foreign")
    assert "code that comes with a checkpoint is not run" in predict("me/own")
    assert "no such repository" in predict("me/nowhere")


def test_a_folder_that_holds_something_is_not_pulled_into(pushed, hub, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    done = hub.run("pull", "me/lenet", tmp_path)
    assert done.returncode == 2
    assert "holds something already" in done.stderr
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_where_no_folder_can_be_made_is_said_before_anything_is_fetched(pushed, hub, tmp_path):
    (tmp_path / "file.txt").write_text("x")
    for folder in (tmp_path / "file.txt" / "x", tmp_path / "file.txt", "."):
        before = len(hub.seen())
        done = hub.run("pull", "me/lenet", folder)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert len(hub.seen()) == before


def test_a_repository_with_nothing_in_it_is_said_to_be_empty(hub, tmp_path):
    hub.api().create_repo("me/empty")
    done = hub.run("pull", "me/empty", tmp_path / "x")
    assert done.returncode == 2
    assert "me/empty: there is nothing in it" in done.stderr


def test_refused_files_can_be_left_out(hub, made, tmp_path):
    assert hub.run("push", made["lenet"], "me/mixed").returncode == 0
    hub.plant("models/me/mixed", "pytorch_model.bin")
    hub.plant("models/me/mixed", "../evil.txt")
    assert hub.run("pull", "me/mixed", tmp_path / "folder", "--skip_refused").returncode == 0
    assert os.listdir(tmp_path) == ["folder"]
    assert "model.safetensors" in os.listdir(tmp_path / "folder")
    assert "pytorch_model.bin" not in os.listdir(tmp_path / "folder")
