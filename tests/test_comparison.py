"""`toolkit compare` as users run it: texts with a budget per class, taggers, and their baselines."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from forks import ForkedRun, run_forked
from in_process import run_here
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tasks.baselines import _shape
from tasks.comparison import _read_lines
from toolkit.data.labelled_text import load_labelled_text
from toolkit.data.rows import take_subset
from toolkit.runs.results import read_results
from toolkit.training.checkpoints import list_checkpoints

FLAGS = ["--max_steps", "6", "--batch_size", "8", "--seeds", "1", "--learning_rates", "1e-3"]


@pytest.fixture(scope="module")
def of_text(encoders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "text"
    flags = ["--encoders", encoders["word2vec"], "--data", "sample", "--output_dir", folder, "--baseline"]
    done = run_here("compare", "--task", "text", *flags, "--train_sizes", "3", "all", "--per_class", *FLAGS)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text()), done.stdout, folder


def test_budgets_per_class_are_named_and_used(of_text):
    record, printed, folder = of_text
    small, whole = record["encoders"][0]["budgets"]
    labels = Counter(load_labelled_text("sample", "train")["label"])
    assert small["train_size"] == 3 * len(labels)
    assert whole["train_size"] == sum(labels.values())
    assert "3 labels a class" in printed
    assert "all labels" in printed
    assert (folder / "report.html").read_text().count('class="sentence"') == 6


def test_the_baseline_is_logistic_regression_on_the_same_examples(of_text):
    record, printed, _ = of_text
    train, test = load_labelled_text("sample", "train"), load_labelled_text("sample", "test")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    classifier = LogisticRegression(C=10, max_iter=1000).fit(vectorizer.fit_transform(train["text"]), train["label"])
    accuracy = classifier.score(vectorizer.transform(test["text"]), test["label"])
    assert record["baseline"]["budgets"][1]["accuracy"]["value"] == pytest.approx(accuracy)
    assert record["baseline"]["budgets"][0]["train_size"] == 3 * len(set(train["label"]))
    assert "TF-IDF + logistic regression" in printed


def test_each_seed_may_have_its_own_examples(encoders, tmp_path):
    flags = ["--task", "text", "--encoders", encoders["word2vec"], "--data", "sample", "--baseline"]
    flags += ["--train_sizes", "3", "--per_class", *FLAGS, "--seeds", "2", "--max_steps", "2"]
    records = {}
    own = ["--subset_each_seed"]
    for name, more in (("shared", []), ("own", [*own, "--seeds", "1"]), ("own", [*own, "--resume"])):
        done = run_here("compare", *flags, "--output_dir", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
        records[name] = json.loads((tmp_path / name / "results.json").read_text())
    subset_seeds = {}
    for name, record in records.items():
        (budget,) = record["encoders"][0]["budgets"]
        folders = budget["pretrained"]["folders"] + budget["scratch"]["folders"]
        subset_seeds[name] = [read_results(Path(folder))["arguments"]["subset_seed"] for folder in folders]
    assert subset_seeds == {"shared": [0, 0, 0, 0], "own": [0, 1, 0, 1]}
    test = load_labelled_text("sample", "test")
    right = []
    for seed in (0, 1):
        train = load_labelled_text("sample", "train")
        train = take_subset(train, 3, seed, train["label"])
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        classifier = LogisticRegression(C=10, max_iter=1000).fit(
            vectorizer.fit_transform(train["text"]), train["label"]
        )
        right.append(classifier.score(vectorizer.transform(test["text"]), test["label"]))
    assert right[0] != right[1]
    baselines = {name: record["baseline"]["budgets"][0]["accuracy"]["value"] for name, record in records.items()}
    assert baselines == pytest.approx({"shared": right[0], "own": sum(right) / 2})


def test_a_tagger_is_compared_with_a_crf_on_hand_made_features(encoders, tmp_path):
    flags = ["--encoders", encoders["word2vec"], "--data", "sample", "--output_dir", tmp_path / "out", "--baseline"]
    done = run_here("compare", *flags, "--train_sizes", "50", "all", "--head", "crf", *FLAGS)
    assert done.returncode == 0, done.stderr
    baseline = json.loads((tmp_path / "out" / "results.json").read_text())["baseline"]
    few, whole = (budget["accuracy"]["value"] for budget in baseline["budgets"])
    assert 0.6 < few < whole < 0.95
    run = next((tmp_path / "out").glob("word2vec/pretrained-50/*/config.json"))
    assert json.loads(run.read_text())["tagging_head"] == "crf"


def test_a_stopped_comparison_resumes(encoders, tmp_path):
    folder = tmp_path / "out"
    flags = ["compare", "--encoders", encoders["word2vec"], "--data", "sample", "--output_dir", folder, *FLAGS]
    flags += ["--train_sizes", "20", "40", "--baseline"]
    assert run_here(*flags).returncode == 0
    whole = json.loads((folder / "results.json").read_text())
    # As if stopped in the last run.
    runs = sorted(folder.glob("word2vec/*/*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    assert len(runs) == 4
    runs = [*sorted(folder.glob("baseline-*.json")), *runs]
    times = [path.stat().st_mtime_ns for path in runs]
    for path in (folder / "results.json", runs[-1]):
        path.unlink()
    refused = run_here(*flags)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    refused = run_here(*flags, "--resume", "--word_dropout", "0.5")
    assert refused.returncode == 2
    assert "made with --word_dropout 0.0, not 0.5" in refused.stderr
    assert not (folder / "results.json").exists()
    done = run_here(*flags, "--resume")
    assert done.returncode == 0, done.stderr
    assert [path.stat().st_mtime_ns for path in runs[:-1]] == times[:-1]
    budgets, resumed = (
        [(b["pretrained"]["accuracy"], b["scratch"]["accuracy"], b["gain"]) for b in record["encoders"][0]["budgets"]]
        for record in (whole, json.loads((folder / "results.json").read_text()))
    )
    assert resumed == budgets
    assert json.loads((folder / "results.json").read_text())["baseline"] == whole["baseline"]


def test_runs_in_several_processes_give_the_same_figures(of_text, encoders, tmp_path):
    flags = ["--encoders", encoders["word2vec"], "--data", "sample", "--output_dir", tmp_path / "out"]
    flags += ["--train_sizes", "3", "all", "--per_class", *FLAGS, "--num_proc", "2"]
    done = run_here("compare", "--task", "text", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("text: train: ") <= 1  # not once for each process
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    for budget, expected in zip(*(each["encoders"][0]["budgets"] for each in (record, of_text[0])), strict=True):
        assert budget["gain"] == expected["gain"]
        for variant in ("pretrained", "scratch"):
            assert budget[variant]["by_seed"] == expected[variant]["by_seed"]
            run = read_results(Path(budget[variant]["folders"][0]))
            assert run["train_size"] == expected["train_size"]


def test_a_signal_stops_and_saves_the_runs_in_all_processes(encoders, tmp_path):
    flags = [
        "--task",
        "text",
        "--encoders",
        encoders["word2vec"],
        "--data",
        "sample",
        "--output_dir",
        tmp_path / "out",
    ]
    flags += [
        "--train_sizes",
        "3",
        "--per_class",
        "--seeds",
        "1",
        "--learning_rates",
        "1e-3",
        "1e-2",
        "--num_proc",
        "2",
    ]
    flags += ["--max_steps", "100000", "--logging_steps", "1"]
    run = ForkedRun(["compare", *map(str, flags)], REPOSITORY, environment={"OMP_NUM_THREADS": "1"})
    folders = [tmp_path / "out" / "word2vec" / "pretrained-3" / f"seed0-lr{rate}" for rate in ("0.001", "0.01")]
    deadline = time.monotonic() + 100
    while not all((folder / "train_log.jsonl").is_file() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes = psutil.Process(run.pids[0]).children()
    os.kill(run.pids[0], signal.SIGTERM)
    done = run.wait(100)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "go on with the same command and --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert [len(list_checkpoints(folder)) for folder in folders] == [1, 1]
    assert len(list((tmp_path / "out").glob("word2vec/*/*"))) == 2  # no process began another run
    assert len(processes) == 2
    assert not psutil.wait_procs(processes, timeout=10)[1]


def test_processes_are_refused_where_they_would_share_more_than_the_cpu(encoders, tmp_path):
    flags = ["--encoders", encoders["word2vec"], "--data", "sample", "--output_dir", tmp_path / "out"]
    done = run_forked(["compare", *map(str, flags), "--num_proc", "2"], REPOSITORY, num_processes=2)
    assert done.returncode == 2
    assert "--num_proc 2: expected 1" in done.stderr


def test_a_line_of_json_may_contain_other_line_separators(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False) + "\n{}\n", "utf-8")
    assert _read_lines(tmp_path / "a.jsonl") == [{"text": "a\u2028b\x85c"}, {}]


@pytest.mark.parametrize(("word", "shape"), [("McCoy-7", "XxXx-d"), ("2.5", "d.d"), ("the", "x"), ("", "")])
def test_word_shapes(word, shape):
    assert _shape(word) == shape


def test_check_numbers_finds_a_figure_in_no_record(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs" / "results").mkdir(parents=True)
    script = (REPOSITORY / "scripts" / "check_numbers.py").read_text(encoding="utf-8")
    (tmp_path / "scripts" / "check_numbers.py").write_text(script, encoding="utf-8")
    gain = {"value": 0.0404, "low": 0.0374, "high": 0.0434}
    (tmp_path / "docs" / "results" / "a.json").write_text(json.dumps({"gain": gain, "parameters": 12345}))
    (tmp_path / "docs" / "results" / "b.json").write_text(json.dumps({"parameters": 777}))

    def check(readme: str) -> subprocess.CompletedProcess:
        (tmp_path / "README.md").write_text(f"# Title <!-- figures of a.json -->\n{readme}")
        command = [sys.executable, tmp_path / "scripts" / "check_numbers.py"]
        return subprocess.run(command, capture_output=True, text=True)

    assert check("a gain of **+4.0** [+3.7, +4.3]\n\n| parameters | 12,345 |\n").returncode == 0
    for wrong in ("a gain of +4.1 [+3.7, +4.3]", "a gain of +4.0 [+3.7, +4.4]", "| parameters | 12,346 |"):
        done = check(f"fine\n{wrong}\n")
        assert done.returncode == 1, wrong
        assert "README.md:3:" in done.stdout
    assert check("| parameters | 777 |\n").returncode == 1, "it is in another record"
    assert check("| parameters | 12,345 |\n## Next\n| parameters | 12,345 |\n").returncode == 1, "a new section"


def test_all_figures_of_the_docs_are_in_the_records():
    done = subprocess.run([sys.executable, "scripts/check_numbers.py"], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout
