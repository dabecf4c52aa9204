"""The number of files that an example passes through, and of returns to a file that it had left."""

import json

import pytest
from conftest import REPOSITORY
from forks import run_forked


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("text", "toolkit/corpora/corpus.py", "toolkit/models/masked_lm.py"),
        ("pos", "toolkit/data/treebank.py", "toolkit/runs/confusion.py"),
        ("image", "toolkit/modalities/pixels.py", "tasks/image_classification.py"),
    ],
)
def test_an_example_passes_through_few_files_with_few_returns(kind, first, last, tmp_path):
    cache = {"HF_DATASETS_CACHE": str(tmp_path)}  # with a tokenizer and windows in it the journey would be shorter
    done = run_forked([kind], REPOSITORY, script=REPOSITORY / "tests" / "journeys.py", environment=cache)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert (found["journey"][0], found["journey"][-1]) == (first, last)
    assert 8 <= found["files"] <= 10
    assert found["returns"] <= 3
