"""Which files of the toolkit one example of the data passes through, in order.

    python tests/journeys.py text    # a line of a corpus, from `pretrain bert` to the loss
    python tests/journeys.py pos     # a sentence, from `finetune pos` to results.json
    python tests/journeys.py image   # an image, from `finetune image` to results.json

A function is on the journey if its arguments or its return value hold the example: its text, the ids of its tokens,
its pixels, or its prediction. Functions stand in the order in which their first such call begins. A return is a visit
to a file that the journey had left before.
"""

import contextlib
import io
import json
import re
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

MARK = re.compile(r"zyxword of line|^zyx(word|verb)?$", re.IGNORECASE)
MOST_ATTEMPTS = 200  # calls of a function that are looked at before it is given up
MOST_ITEMS = 400  # of a collection that are looked at


class Journey:
    """Records the functions of ours that carry the example, in the order in which they are entered.

    Args:
        root: The repository.
        until_loss: Whether the journey ends where a model returns the first loss.
    """

    def __init__(self, root: Path, until_loss: bool):
        self.folders = tuple(str(root / name) for name in ("toolkit", "tasks"))
        self.root, self.until_loss = root, until_loss
        self.found: dict[CodeType, int] = {}  # with the number of the call
        self.entered: dict[Any, int] = {}  # of each frame that is running
        self.attempts: Counter[CodeType] = Counter()
        self.token_ids: set[int] = set()
        self.num_calls = 0

    def __enter__(self) -> "Journey":
        threading.setprofile(self.trace)
        sys.setprofile(self.trace)
        return self

    def __exit__(self, *exception) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def trace(self, frame, event: str, value: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(self.folders):
            return
        if event == "call":
            self.num_calls += 1
            self.entered[frame] = self.num_calls
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)]
            held = [frame.f_locals.get(name) for name in names]
        else:
            held = value
        number = self.entered[frame] if event == "call" else self.entered.pop(frame, self.num_calls)
        if code not in self.found and not code.co_name.startswith("<") and self.attempts[code] < MOST_ATTEMPTS:
            self.attempts[code] += 1
            if self.carries(held):
                self.found[code] = number
        if self.until_loss and event == "return" and getattr(value, "loss", None) is not None:
            self.__exit__()

    def carries(self, value: Any, depth: int = 0) -> bool:
        if isinstance(value, str):
            return MARK.search(value) is not None
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            if depth == 0 or len(value) < 8 or not isinstance(value[0], int | float):
                return depth < 4 and any(self.carries(each, depth + 1) for each in value[:MOST_ITEMS])
            value = np.array(value)
        if type(value).__name__ in ("Tensor", "Parameter"):
            value = value.detach().cpu().numpy() if type(value).__name__ == "Tensor" else None
        if isinstance(value, np.ndarray) and value.size and value.ndim:
            return self.array_carries(value)
        if hasattr(value, "getpixel"):
            return True
        if hasattr(value, "tags"):
            return self.carries(value.tags, depth + 1)
        return False

    def array_carries(self, value: np.ndarray) -> bool:
        if value.dtype.kind in "iu" and self.token_ids and value.ndim <= 2:
            return bool(np.isin(value, list(self.token_ids)).any())
        if value.ndim >= 3 and value[0].size >= 64:  # images of one colour
            rows = value.reshape(-1, value.shape[-2] * value.shape[-1])
            return bool(((rows.max(axis=1) == rows.min(axis=1)) & (rows[:, 0] != 0)).any())
        return False

    def files(self) -> list[str]:
        """The files in the order of the journey, each as often as it is entered."""
        codes: list[CodeType] = sorted(self.found, key=self.found.__getitem__)
        files = [str(Path(code.co_filename).relative_to(self.root)) for code in codes]
        return [file for i, file in enumerate(files) if i == 0 or file != files[i - 1]]

    def functions(self) -> list[str]:
        codes = sorted(self.found, key=self.found.__getitem__)
        return [f"{Path(code.co_filename).relative_to(self.root)}:{code.co_name}" for code in codes]


def words_of(kind: str, folder: Path) -> list[str]:
    """A tiny run on data that holds the example."""
    out = ["--output_dir", str(folder / "out"), "--max_steps", "2", "--batch_size", "8"]
    if kind == "text":
        lines = [f"a zyxword of line {i} stands here with the word {i % 7}" for i in range(60)]
        (folder / "corpus.txt").write_text("\n".join(lines))
        flags = ["--vocab_size", "300", "--num_proc", "1", "--embeddings", "random", "--max_length", "32"]
        return ["pretrain", "bert", "--preset", "bert-tiny", "--corpus", str(folder / "corpus.txt"), *flags, *out]
    if kind == "pos":
        (folder / "data").mkdir()
        for split in ("train", "dev", "test"):
            sentence = "1\tzyxword\t_\tZYX\t_\t_\t_\t_\t_\t_\n2\tsleeps\t_\tZYXVERB\t_\t_\t_\t_\t_\t_\n\n"
            (folder / "data" / f"{split}.conllu").write_text(sentence * 10)
            return ["finetune", "pos", "--encoder", str(pretrained_bert(folder)), "--data", str(folder / "data"), *out]
    from PIL import Image

    for split in ("train", "validation", "test"):
        for grey in (60, 200):
            place = folder / "data" / split / str(grey)
            place.mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (16, 16), (grey + i,) * 3).save(place / f"{i}.png")
    flags = ["--encoder", "scratch:resnet-tiny", "--image_size", "16"]
    return ["finetune", "image", *flags, "--data", str(folder / "data"), *out]


def pretrained_bert(folder: Path) -> Path:
    """A tiny BERT with a tokenizer that knows the example."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"[unused{i}]" for i in range(95)),
        "zyxword",
        "sleeps",
    ]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder / "bert")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder / "bert")
    return folder / "bert"


def follow(kind: str, root: Path) -> Journey:
    import torch  # loaded before anything is traced
    import transformers
    from tokenizers import Tokenizer

    try:
        from toolkit.cli.dispatch import main
    except ImportError:  # a version of before there was toolkit/cli
        from toolkit.cli import main

    torch.set_num_threads(1)
    start_pool: Any = ThreadPoolExecutor.__init__
    one_thread: Any = lambda pool, *arguments, **keywords: start_pool(pool, 1)  # noqa: E731
    ThreadPoolExecutor.__init__ = one_thread  # so that images are opened in the same order each time
    journey = Journey(root, until_loss=kind == "text")
    tokenizer_class: Any = transformers.PreTrainedTokenizerFast
    original = tokenizer_class.__init__

    def remember(self, *arguments, **keywords):  # which ids the tokens of the example have
        original(self, *arguments, **keywords)
        backend: Tokenizer = self.backend_tokenizer
        journey.token_ids |= {i for token, i in backend.get_vocab().items() if MARK.search(token)}

    tokenizer_class.__init__ = remember
    with tempfile.TemporaryDirectory() as folder:
        words = words_of(kind, Path(folder))
        with journey, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            code = main(words)
    tokenizer_class.__init__ = original
    assert code == 0, errors.getvalue()
    return journey


if __name__ == "__main__":
    where = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(where))
    trip = follow(sys.argv[1], where)
    visited = trip.files()
    record = {"files": len(set(visited)), "returns": len(visited) - len(set(visited)), "journey": visited}
    print(json.dumps({**record, "functions": trip.functions()}, indent=1))
