"""The command line as users see it: help texts, errors of one line, no half-written folders."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import FAMILIES, REPOSITORY
from in_process import error_of, run_here

from tasks import TASKS
from toolkit.cli.dispatch import COMMANDS

HELP = [["--help"], *([name, "--help"] for name in COMMANDS)]
HELP += [["pretrain", family, "--help"] for family in FAMILIES] + [["finetune", task, "--help"] for task in TASKS]


EACH_IN_A_FORK = """
import json, os, sys
from toolkit.cli.dispatch import main

for number, words in enumerate(json.loads(sys.argv[1])):
    if not os.fork():
        with open(f"{sys.argv[2]}/{number}", "w") as sys.stdout:
            try:
                code = main(words)
            except SystemExit as end:
                code = end.code
            print("\\nloaded modules:", *sys.modules)
        os._exit(code or 0)
    assert os.wait()[1] == 0, words
"""


@pytest.fixture(scope="module")
def help_texts(tmp_path_factory) -> list[str]:
    """What each of `HELP` prints, followed by the modules that are loaded, in forks of a process without them."""
    folder = tmp_path_factory.mktemp("help")
    command = [sys.executable, "-c", EACH_IN_A_FORK, json.dumps(HELP), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return [(folder / str(number)).read_text() for number in range(len(HELP))]


@pytest.mark.parametrize("number", range(len(HELP)), ids=lambda number: " ".join(HELP[number]))
def test_help_has_an_example_and_loads_nothing_slow(number, help_texts):
    words, (text, _, loaded) = HELP[number], help_texts[number].partition("\nloaded modules:")
    assert "toolkit.cli.dispatch" in loaded.split()
    assert not set(loaded.split()) & {"torch", "transformers", "datasets", "gensim", "matplotlib", "evaluate"}
    assert "examples:" in text
    assert f"  toolkit {words[0] if words[0] != '--help' else 'pretrain'}" in text


def test_help_explains_every_flag():
    done = run_here("pretrain", "elmo", "--help")
    lines = done.stdout.split("examples:")[0].splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert len(starts) > 40
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        assert len(" ".join(lines[start:stop]).split()) > 5, lines[start]


def test_the_examples_of_the_help_parse(tmp_path):
    """The parser of each command accepts its examples."""
    import importlib
    import shlex

    for name in COMMANDS:
        command = importlib.import_module(f"toolkit.cli.{name}")
        for line in command.__doc__.splitlines()[1:]:
            if line.startswith("toolkit "):
                words = shlex.split(line.split(" < ")[0])
                assert command.parse(words[2:]) is not None


@pytest.fixture(scope="module")
def files(tmp_path_factory, encoders, taggers):
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty.txt").write_text("")
    (folder / "binary.txt").write_bytes(b"\x00\x01\x02" * 100)
    (folder / "latin1.txt").write_bytes("ok\nseñor\n".encode("latin-1"))
    (folder / "short.conllu").write_text("1\tdog\t_\tNOUN\n\n")
    (folder / "greek.txt").write_text("Ελληνικά\nκείμενα\n" * 200, encoding="utf-8")
    shutil.copytree(encoders["bert"], folder / "torn")
    with open(folder / "torn" / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    (folder / "other").mkdir()
    (folder / "other" / "thesis.doc").write_text("precious")
    (folder / "a_file").write_text("")
    return folder, encoders, taggers


PRETRAIN = ["pretrain", "bert", "--max_steps", "1", "--output_dir", "{out}", "--corpus"]
FASTTEXT = ["pretrain", "fasttext", "--corpus", "sample", "--output_dir", "{out}"]
FINETUNE = ["finetune", "pos", "--max_steps", "1", "--output_dir", "{out}", "--encoder"]
COMPARE = ["compare", "--encoders", "{bert}", "--data", "sample", "--output_dir", "{out}"]
FAULTS = {
    "missing file": ([*PRETRAIN, "{files}/nope.txt"], "nope.txt: no such file"),
    "empty file": ([*PRETRAIN, "{files}/empty.txt"], "empty.txt: the file is empty"),
    "binary file": ([*PRETRAIN, "{files}/binary.txt"], "binary.txt: line 1 has NUL bytes: this is binary"),
    "wrong encoding": ([*PRETRAIN, "{files}/latin1.txt"], "latin1.txt: line 2 is not UTF-8"),
    "unknown format": ([*PRETRAIN, "{files}/a_file"], "cannot tell the format"),
    "hub id offline": ([*PRETRAIN, "some/dataset"], "HF_HUB_OFFLINE"),
    "unknown preset": ([*PRETRAIN, "sample", "--preset", "bert-huge"], "unknown preset 'bert-huge'"),
    "preset of another family": ([*PRETRAIN, "sample", "--preset", "elmo-tiny"], "unknown preset 'elmo-tiny'"),
    "negative budget": ([*PRETRAIN, "sample", "--max_minutes", "-3"], "--max_minutes -3.0: expected a number greater"),
    "budget that is no number": ([*PRETRAIN, "sample", "--max_minutes", "soon"], "--max_minutes"),
    "no generator": (
        ["pretrain", "electra", "--corpus", "sample", "--output_dir", "{out}", "--generator_size", "0"],
        "--generator_size 0.0: expected a number greater than zero",
    ),
    "tokenizer of another kind": ([*PRETRAIN, "sample", "--tokenizer", "{elmo}"], "does not fit a BERT"),
    "no tokenizer": ([*PRETRAIN, "sample", "--tokenizer", "{files}/other"], "no tokenizer in this folder"),
    "too long windows": ([*PRETRAIN, "sample", "--max_length", "4000"], "--max_length 4000"),
    "folder holds something else": (
        ["pretrain", "bert", "--max_steps", "1", "--corpus", "sample", "--output_dir", "{files}/other"],
        "the folder holds something else",
    ),
    "folder is a file": (
        ["pretrain", "bert", "--max_steps", "1", "--corpus", "sample", "--output_dir", "{files}/a_file"],
        "this is a file",
    ),
    "folder holds a run": (
        ["pretrain", "bert", "--max_steps", "1", "--corpus", "sample", "--output_dir", "{bert}"],
        "--overwrite_output_dir",
    ),
    "unknown command": (["pretain"], "unknown command 'pretain', expected one of quickstart"),
    "unknown method": (
        ["pretrain", "gpt"],
        "unknown method 'gpt', expected one of word2vec, fasttext, elmo, rnn, bert, electra",
    ),
    "unknown task": (["finetune", "parsing"], "unknown task 'parsing'"),
    "unknown flag": ([*PRETRAIN, "sample", "--learning_rat", "1"], "--learning_rat"),
    "missing flag": (["pretrain", "bert", "--corpus", "sample"], "output_dir"),
    "unknown kind": (["tokenizer", "--corpus", "sample", "--output_dir", "{out}", "--kind", "morpheme"], "--kind"),
    "tiny vocabulary": (
        ["tokenizer", "--corpus", "sample", "--output_dir", "{out}", "--vocab_size", "3"],
        "--vocab_size",
    ),
    "short line": ([*FINETUNE, "{bert}", "--data", "{files}/short.conllu"], "short.conllu: line 1 has 4 columns"),
    "unknown tag column": ([*FINETUNE, "{bert}", "--data", "sample", "--tag_column", "Mood"], "--tag_column Mood"),
    "too large a subset": ([*FINETUNE, "{bert}", "--data", "sample", "--train_size", "9999"], "--train_size 9999"),
    "zero examples": ([*FINETUNE, "{bert}", "--data", "sample", "--train_size", "0"], "--train_size 0"),
    "no such encoder": ([*FINETUNE, "{files}/nope", "--data", "sample"], "no such folder"),
    "encoder without config": ([*FINETUNE, "{files}/other", "--data", "sample"], "no config.json"),
    "encoder of the hub offline": ([*FINETUNE, "some/model", "--data", "sample"], "some/model"),
    "unknown scratch preset": ([*FINETUNE, "scratch:bert-huge", "--data", "sample"], "no such folder or preset"),
    "tokenizer too large": ([*FINETUNE, "{bert}", "--data", "sample", "--tokenizer", "{word2vec}"], "does not fit"),
    "tokenizer without bytes of a preset": (
        [*FINETUNE, "scratch:fasttext-tiny", "--data", "sample", "--tokenizer", "{bert}"],
        "does not fit fasttext-tiny, which reads bytes",
    ),
    "scoring an encoder": (["score", "{bert}", "--data", "sample"], "expected a fine-tuned checkpoint"),
    "no such split": (["score", "{tagger}", "--data", "sample", "--split", "dev2"], "no split 'dev2'"),
    "score to nowhere": (["score", "{tagger}", "--data", "sample", "--output_file", "{out}/s.json"], "--output_file"),
    "torn weights": ([*FINETUNE, "{files}/torn", "--data", "sample"], "torn: "),
    "no negatives": (
        ["pretrain", "elmo", "--corpus", "sample", "--output_dir", "{out}", "--num_negatives", "0"],
        "--num_negatives 0",
    ),
    "n-grams of no length": ([*FASTTEXT, "--min_n", "4", "--max_n", "3"], "--max_n 3: expected at least --min_n 4"),
    "no buckets": ([*FASTTEXT, "--num_buckets", "0"], "--num_buckets 0"),
    "tokenizer without bytes": (
        [*FASTTEXT, "--tokenizer", "{bert}"],
        "does not fit a fastText model, which reads bytes",
    ),
    "tokenizer of a fastText": ([*PRETRAIN, "sample", "--tokenizer", "{fasttext}"], "does not fit a BERT"),
    "quickstart of nothing": (["quickstart", "--output_dir", "{out}", "--budget", "-1"], "--budget -1"),
    "only unknown letters": (
        [*PRETRAIN, "{files}/greek.txt", "--tokenizer", "{bert}"],
        "no word that the tokenizer knows",
    ),
    "too large a subset to compare": ([*COMPARE, "--train_sizes", "9999"], "--train_size 9999"),
    "nothing to test on": (
        [
            "compare",
            "--subset_each_seed",
            "--output_dir",
            "{out}",
            "--encoders",
            "{bert}",
            "--data",
            "{files}/short.conllu",
        ],
        "short.conllu has no split to test on",
    ),
    "columns of another task": ([*COMPARE, "--task", "text", "--head", "crf"], "--head crf: does not go with"),
    "rates of a comparison": ([*COMPARE, "--learning_rate", "1e-3"], "--learning_rate"),
    "nothing to predict": (["predict", "{tagger}"], "there is no word to tag"),
    "missing yaml": ([*PRETRAIN, "sample", "--config", "{files}/nope.yaml"], "nope.yaml"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_ends_with_one_clear_line(fault, files, tmp_path):
    folder, encoders, taggers = files
    names = {"files": folder, "out": tmp_path / "out", "tagger": taggers["bert"], **encoders}
    words, message = FAULTS[fault]
    done = run_here(*(word.format(**names) for word in words))
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("toolkit: error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert (folder / "other" / "thesis.doc").read_text() == "precious"


def test_flags_override_the_yaml_file(tmp_path, corpus):
    config = tmp_path / "run.yaml"
    config.write_text(f"corpus: {corpus}\nvocab_size: 300\nkind: bpe\ndo_lower_case: true\n")
    done = run_here("tokenizer", "--config", config, "--output_dir", tmp_path / "t", "--vocab_size", "400")
    assert done.returncode == 0, done.stderr
    assert "400 entries" in done.stdout
    tokenizer = json.loads((tmp_path / "t" / "tokenizer.json").read_text())
    assert tokenizer["model"]["type"] == "BPE"
    assert tokenizer["normalizer"]["lowercase"] is True


def test_overwriting_replaces_the_run(tmp_path, corpus):
    flags = ["tokenizer", "--corpus", corpus, "--output_dir", tmp_path / "t", "--kind", "bytes"]
    assert run_here(*flags).returncode == 0
    (tmp_path / "t" / "stray.txt").write_text("of the earlier run")
    assert run_here(*flags).returncode == 2
    assert run_here(*flags, "--overwrite_output_dir").returncode == 0
    assert not (tmp_path / "t" / "stray.txt").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "--encoders", "{bert}", "--data", "{files}/short.conllu"],
        [
            "finetune",
            "pos",
            "--encoder",
            "{bert}",
            "--data",
            "{files}/short.conllu",
            "--learning_rates",
            "1e-3",
            "1e-2",
        ],
    ],
    ids=lambda words: words[0],
)
def test_bad_data_does_not_delete_an_earlier_run(command, files, tmp_path):
    folder, encoders, _ = files
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".toolkit-run").touch()
    (tmp_path / "out" / "results.json").write_text("{}")
    words = [word.format(files=folder, **encoders) for word in command]
    done = run_here(*words, "--output_dir", tmp_path / "out", "--overwrite_output_dir")
    assert done.returncode == 2
    assert "short.conllu" in done.stderr
    assert (tmp_path / "out" / "results.json").read_text() == "{}"


def test_a_folder_of_runs_is_not_overwritten_as_a_run(tmp_path, corpus):
    flags = ["tokenizer", "--corpus", corpus, "--kind", "bytes", "--output_dir"]
    assert run_here(*flags, tmp_path / "runs" / "one").returncode == 0
    assert run_here(*flags, tmp_path / "runs", "--overwrite_output_dir").returncode == 2
    assert run_here("quickstart", "--output_dir", tmp_path / "runs").returncode == 2
    assert (tmp_path / "runs" / "one" / "tokenizer.json").exists()


def test_a_closed_pipe_is_no_error(taggers):
    command = f"{sys.executable} -m toolkit predict {taggers['word2vec']} 'A b c.' 'D e f.' | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_version():
    from toolkit import __version__

    assert run_here("--version").stdout.strip() == f"toolkit {__version__}"


@pytest.mark.parametrize(
    "command",
    [
        "tokenizer",
        *(
            pytest.param(slow, marks=pytest.mark.slow)
            for slow in ("pretrain word2vec --preset word2vec-tiny", "finetune pos")
        ),
    ],
)
def test_a_second_run_in_the_same_folder_is_told(command, corpus, encoders, tmp_path, monkeypatch):
    """Two processes at once; the first one holds the folder until it ends, also if it is killed."""
    monkeypatch.setattr("toolkit.runs.output.SECONDS_TO_CLAIM", 0)
    out = tmp_path / "out"
    holder = "import sys; from toolkit.runs.output import *; o = OutputArguments(output_dir=sys.argv[1])\n"
    holder += "with claimed(o): print('claimed', flush=True); sys.stdin.read()"
    data = ["--encoder", encoders["bert"], "--data", "sample", "--max_steps", "1"]
    words = [*command.split(), *(data if "pos" in command else ["--corpus", corpus]), "--output_dir", out]
    process = [sys.executable, "-c", holder, out]
    with subprocess.Popen(process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as first:
        assert first.stdout.readline() == b"claimed\n"
        assert f"--output_dir {out}: another run is writing there" in error_of(run_here(*words))
        assert not out.exists()
        first.kill()
    done = run_here(*words)
    assert done.returncode == 0, done.stderr
