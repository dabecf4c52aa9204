"""Preparing a corpus: the same files for any number of processes, machines and interruptions."""

import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from in_process import run_here

from toolkit.corpora import blocks
from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import AsItIs, Shard, check_shards, merge, open_prepared, prepare
from toolkit.corpora.tokenization import load_tokenizer
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import PieceWindows
from toolkit.errors import InputError


def some_text(path: Path, num_lines: int, seed: int = 0) -> Path:
    rng = random.Random(seed)
    words = [f"{a}{b}{c}" for a in "bdkmt" for b in "aeiou" for c in ("", "n", "st")]
    lines = (" ".join(rng.choices(words, k=rng.randrange(25))) for _ in range(num_lines))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def same(one: Path, other: Path) -> bool:
    """Whether both folders have the same files with the same content."""
    files = [sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file()) for root in (one, other)]
    return files[0] == files[1] and all(filecmp.cmp(one / file, other / file, shallow=False) for file in files[0])


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BYTES_A_BLOCK", 20_000)
    return open_corpus(str(some_text(tmp_path / "text.txt", 12_000)))


def test_files_do_not_depend_on_the_number_of_processes_and_shards(corpus, tmp_path):
    recipe = PieceWindows(train_tokenizer(corpus.texts(), "wordpiece", 200), 32)
    assert len(corpus.blocks) > 5
    for num_proc in (1, 3):
        prepare(corpus, recipe, tmp_path / f"by {num_proc}", num_proc=num_proc)
    assert same(tmp_path / "by 1", tmp_path / "by 3")
    shards = [prepare(corpus, recipe, tmp_path / f"shard {i}", shard=Shard(i, 3)) for i in (2, 0, 1)]
    check_shards(shards)
    merge(shards, tmp_path / "merged")
    assert same(tmp_path / "by 1", tmp_path / "merged")
    rows = open_prepared(tmp_path / "merged")
    assert rows["input_ids"][:] == [ids for texts in corpus for ids in recipe(texts)["input_ids"].to_pylist()]


def test_prepared_data_is_cached_and_a_changed_file_noticed(corpus, tmp_path):
    first = prepare(corpus, AsItIs())
    times = {file: file.stat().st_mtime_ns for file in first.iterdir()}
    assert prepare(corpus, AsItIs(), num_proc=3) == first
    assert {file: file.stat().st_mtime_ns for file in first.iterdir()} == times
    path = Path(corpus.source)
    path.write_bytes(path.read_bytes().replace(b"ba", b"BA", 1))
    second = prepare(open_corpus(str(path)), AsItIs())
    assert second != first
    assert "BA" in " ".join(open_prepared(second)["text"])
    with pytest.raises(InputError, match="was prepared of other text"):
        prepare(open_corpus(str(path)), AsItIs(), first)


def test_damage_is_noticed(corpus, tmp_path):
    folder = prepare(corpus, AsItIs(), tmp_path / "made")
    file = sorted(folder.glob("*.arrow"))[3]
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"00003.arrow: damaged or gone"):
        open_prepared(folder)
    file.write_bytes(b"X" + whole[1:])
    with pytest.raises(InputError, match=r"00003.arrow: damaged or gone"):
        check_shards([folder])


def test_every_shard_must_be_there_once(corpus, tmp_path):
    shards = [prepare(corpus, AsItIs(), tmp_path / f"{i}", shard=Shard(i, 3)) for i in range(3)]
    other = prepare(corpus.rows(0, 5000), AsItIs(), tmp_path / "other", shard=Shard(1, 3))
    of_two = prepare(corpus, AsItIs(), tmp_path / "of two", shard=Shard(1, 2))
    shutil.copytree(shards[1], tmp_path / "again")
    for folders, said in {
        (shards[0], shards[2]): "of 3 shards 1 are missing",
        (*shards, tmp_path / "again"): "again: is shard 1 of 3, and so is",
        (shards[0], other, shards[2]): "other: was not prepared of the same corpus",
        (shards[0], of_two, shards[2]): "of two: was not prepared of the same corpus in the same way",
    }.items():
        with pytest.raises(InputError, match=said):
            check_shards(folders)
    with pytest.raises(InputError, match="holds shard 0 of 3 alone"):
        open_prepared(shards[0])


def test_shards_are_prepared_merged_and_trained_on_by_the_command(tmp_path):
    text = some_text(tmp_path / "text.txt", 3_000)
    flags = ["--corpus", text, "--vocab_size", "90", "--max_length", "32", "--output_dir"]
    for name, more in (("whole", []), ("0", ["--shard", "0/2"]), ("1", ["--shard", "1/2"])):
        done = run_here("prepare", "bert", *flags, tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
    done = run_here("prepare", "merge", tmp_path / "1", tmp_path / "0", "--output_dir", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "whole", tmp_path / "merged")
    done = run_here("prepare", "merge", tmp_path / "1", "--output_dir", tmp_path / "part")
    assert done.returncode == 2
    assert "of 2 shards 0 are missing" in done.stderr
    assert not (tmp_path / "part").exists()
    folders = [tmp_path / "0", tmp_path / "1", "--output_dir", tmp_path / "0", "--overwrite_output_dir"]
    done = run_here("prepare", "merge", *folders)
    assert done.returncode == 2
    assert f"would delete {tmp_path / '0'}, which this command reads" in done.stderr
    assert (tmp_path / "0" / "prepared.json").is_file()
    train = ["pretrain", "bert", "--preset", "bert-tiny", "--max_steps", "3", "--max_length", "32"]
    records = {}
    for name, source in (("text", [text, "--vocab_size", "90"]), ("prepared", [tmp_path / "merged"])):
        done = run_here(*train, "--corpus", *source, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
        records[name] = json.loads((tmp_path / name / "results.json").read_text())
    assert records["text"]["metrics"] == records["prepared"]["metrics"]
    assert filecmp.cmp(*(tmp_path / name / "model.safetensors" for name in records), shallow=False)
    for words, said in (
        (["pretrain", "elmo"], "was prepared for rnn, bert and electra; elmo reads words"),
        (["pretrain", "word2vec"], "was prepared for rnn, bert and electra; word2vec reads text"),
        (["pretrain", "bert", "--max_length", "16"], "was prepared with --max_length 32"),
        (["pretrain", "bert", "--max_length", "32", "--min_words", "3"], "--min_words: goes with text"),
        (["pretrain", "bert", "--max_length", "32", "--tokenizer", tmp_path / "text"], "holds what was made of it"),
    ):
        done = run_here(*words, "--corpus", tmp_path / "merged", "--output_dir", tmp_path / "no")
        assert done.returncode == 2
        assert said in done.stderr
        assert not (tmp_path / "no").exists()


def test_output_words_are_those_of_the_given_tokenizer(tmp_path):
    """One text with tokenizers that differ only in their normalizers."""
    text = tmp_path / "text.txt"
    text.write_text("The Old man the Boats of THE old town\n" * 200)
    for name, lower in (("lower", True), ("cased", False)):
        train_tokenizer((), "bytes", do_lower_case=lower).save_pretrained(tmp_path / f"{name} tokenizer")
        flags = ["--tokenizer", tmp_path / f"{name} tokenizer", "--output_dir", tmp_path / name]
        done = run_here("prepare", "elmo", "--corpus", text, *flags)
        assert done.returncode == 0, done.stderr
    words = [set(load_tokenizer(tmp_path / name / "output_words").get_vocab()) for name in ("lower", "cased")]
    assert [{"the", "The", "THE"} & of for of in words] == [{"the"}, {"the", "The", "THE"}]


@pytest.mark.parametrize("shard", ["2/2", "1", "-1/2", "a/b"])
def test_an_impossible_shard_is_refused(tmp_path, shard):
    done = run_here("prepare", "bert", "--corpus", "sample", f"--shard={shard}", "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert f"--shard {shard}: expected a number and how many there are, 0/8 to 7/8" in done.stderr


def killed_and_repeated(command: list, delays: list[float], environment: dict[str, str]) -> int:
    """Run a command, kill all of it after each delay, then let it finish. Returns how often it was killed."""
    num_killed = 0
    for delay in delays:
        process = subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            num_killed += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    subprocess.run(command, check=True, env=environment)
    return num_killed


@pytest.mark.slow
def test_preparation_killed_at_ten_moments_gives_the_same_files(tmp_path):
    """A corpus of several blocks on two processes. The test prints how often and when it killed the command."""
    text = some_text(tmp_path / "text.txt", 2_500_000)
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(REPOSITORY)}
    train_tokenizer(open_corpus(str(text)).rows(0, 10_000).texts(), "wordpiece", 90).save_pretrained(tmp_path / "t")

    def command(name: str) -> list:
        flags = ["--tokenizer", tmp_path / "t", "--output_dir", tmp_path / name, "--num_proc", "2"]
        return [sys.executable, "-m", "toolkit", "prepare", "bert", "--corpus", text, *flags]

    start = time.monotonic()
    subprocess.run(command("undisturbed"), check=True, env=environment)
    seconds = time.monotonic() - start
    rng = random.Random(0)
    delays = [rng.uniform(0.5, 0.4 * seconds) for _ in range(10)]
    num_killed = killed_and_repeated(command("killed"), delays, environment)
    print(f"killed {num_killed} times at {delays}, undisturbed it takes {seconds:.1f} s")
    assert num_killed == 10
    assert same(tmp_path / "undisturbed", tmp_path / "killed")
