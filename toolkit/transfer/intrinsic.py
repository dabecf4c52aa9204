"""What an encoder knows before any task: how well it foretells text, how well its word vectors agree with people.

Pseudo-perplexity is of Salazar, Liang, Nguyen & Kirchhoff (2020), "Masked language model scoring",
https://aclanthology.org/2020.acl-main.240. gensim installs the sets of words and computes their figures: WordSim-353
of Finkelstein et al. (2002), https://doi.org/10.1145/503104.503110, SimLex-999 of Hill, Reichart & Korhonen (2015),
https://aclanthology.org/J15-4004, and the analogies of Mikolov, Chen, Corrado & Dean (2013),
https://arxiv.org/abs/1301.3781.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from toolkit.corpora.corpus import Corpus, open_corpus
from toolkit.corpora.prepared import AsItIs, rows_made_of
from toolkit.corpora.tokenization import is_byte_level, load_tokenizer
from toolkit.corpora.windows import WordWindows
from toolkit.data.rows import spread
from toolkit.errors import InputError
from toolkit.hub.download import local_copy
from toolkit.metrics.intervals import NUM_RESAMPLES, Interval, ratio_interval
from toolkit.pretraining import two_way_lm
from toolkit.pretraining.text import OUTPUT_WORDS
from toolkit.reports.progress import Progress
from toolkit.reports.results import Stopwatch, read_results, write_results
from toolkit.training.distributed import gather_objects, make_accelerator
from toolkit.training.evaluation import evaluation_batches
from toolkit.transfer.encoders import load_config, load_encoder

TEXT = "text:"
WORD_SETS = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt", "analogies": "questions-words.txt"}
MASKED_LMS = ("ForMaskedLM", "BertForPreTraining")  # how the names of classes that guess masked tokens end
WINDOWS_OF_A_BATCH = 16
TOKENS_OF_A_BATCH = 2048
WORDS_OF_A_BATCH = 256
FEWEST_PAIRS = 10  # of fewer a correlation says nothing
TOP_LAYER = -1


def score_text(
    folder: str,
    source: str,
    output_file: Path,
    split: str | None = None,
    text_column: str | None = None,
    max_examples: int | None = None,
) -> dict[str, Any]:
    """The perplexity of a text for an ELMo, its pseudo-perplexity for a masked language model.

    The record is also written to `output_file`. Perplexities of different vocabularies do not compare. Raises
    `InputError` where the text cannot be read, or the folder holds neither of the two.
    """
    accelerator, stopwatch = make_accelerator(), Stopwatch()
    architectures = load_config(folder).architectures or []
    if "ElmoForPreTraining" in architectures:
        task, measure = "perplexity", perplexity
    elif any(name.endswith(MASKED_LMS) for name in architectures):
        task, measure = "pseudo-perplexity", pseudo_perplexity
    else:
        raise InputError(
            f"{folder}: holds {' and '.join(architectures) or 'no known model'}, which is no language model; "
            "only a pretrained ELMo or masked language model, before fine-tuning, has a perplexity"
        )
    split = split or ("all" if Path(source).is_file() or has_magic(source) else "validation")
    with accelerator.main_process_first():
        corpus = open_corpus(source, split, text_column)
    fields = measure(folder, corpus, max_examples, accelerator)
    return _write(
        output_file, stopwatch, accelerator, task=task, dataset=TEXT + source, split=split, encoder=folder, **fields
    )


@torch.no_grad()
def perplexity(folder: str, corpus: Corpus, max_examples: int | None, accelerator) -> dict[str, Any]:
    """Of an ELMo: the exact softmax over its output words, on the windows that pretraining would make of the corpus.

    `loss` is in nats a predicted word, of both directions, and of [UNK] where the word is none of the output words. At
    most `max_examples` windows, evenly spread. Raises `InputError` where pretraining has not left the output words.
    """
    if not (local_copy(folder) / OUTPUT_WORDS).is_dir():
        raise InputError(f"{folder}: no {OUTPUT_WORDS} in this folder, expected one from toolkit pretrain elmo")
    words = load_tokenizer(local_copy(folder) / OUTPUT_WORDS)
    max_words = read_results(local_copy(folder))["arguments"]["max_length"]
    model, tokenizer = load_encoder(folder, "AutoModelForPreTraining")
    model.to(accelerator.device).eval()
    with accelerator.main_process_first():
        windows = spread(rows_made_of(corpus, WordWindows(tokenizer, words, max_words)), max_examples)
    collate = two_way_lm.PredictNeighbours(tokenizer.pad_token_id, words.sep_token_id, len(words), seed=0)

    def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`logits` (batch, time, words), `labels` (batch, time) -> (batch,), sums over time."""
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).sum(dim=1)

    mine = []
    batches = evaluation_batches(windows, collate, WINDOWS_OF_A_BATCH, accelerator)
    for batch in _with_progress(batches, len(windows) / WINDOWS_OF_A_BATCH, accelerator):
        labels = batch["labels"]  # (batch, time)
        logits = model(batch["input_ids"], batch["attention_mask"])
        is_word = (labels != -100) & (labels != words.sep_token_id)
        counts = (labels[:, 1:] != -100, labels[:, :-1] != -100, labels == words.unk_token_id, is_word)
        forward = losses(logits.forward_logits, labels[:, 1:])
        backward = losses(logits.backward_logits, labels[:, :-1])
        mine += torch.stack([forward, backward, *(count.sum(dim=1) for count in counts)], dim=1).tolist()
    forward, backward, num_forward, num_backward, unknown, num_words = np.array(gather_objects(accelerator, mine)).T
    loss = ratio_interval(forward + backward, num_forward + num_backward)
    metrics = {
        "perplexity": _exp(loss),
        "forward_perplexity": _exp(ratio_interval(forward, num_forward)),
        "backward_perplexity": _exp(ratio_interval(backward, num_backward)),
        "loss": loss,
        "unknown_words": ratio_interval(unknown, num_words),
    }
    return {"metrics": metrics, "n": len(windows), "parameters": model.num_parameters()}


@torch.no_grad()
def pseudo_perplexity(folder: str, corpus: Corpus, max_examples: int | None, accelerator) -> dict[str, Any]:
    """Of a masked language model: each token of each line is masked alone and guessed from the rest of the line.

    Lines are cut at the length that the model takes; at most `max_examples` of them, evenly spread. Special tokens are
    not guessed, [UNK] among them, as in pretraining. Raises `InputError` where no token is left.
    """
    model, tokenizer = load_encoder(folder, "AutoModelForMaskedLM")
    model.to(accelerator.device).eval()
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    )
    special = torch.tensor(tokenizer.all_special_ids, device=accelerator.device)
    with accelerator.main_process_first():
        rows = rows_made_of(corpus, AsItIs())
        lines = spread(rows.filter(lambda row: row["text"] and row["text"].strip()), max_examples)
        lines = lines.map(
            lambda batch: {"input_ids": tokenizer(batch["text"], truncation=True)["input_ids"]},
            batched=True,
            remove_columns=lines.column_names,
            desc="tokenizing",
        )

    mine = []
    batches = evaluation_batches(
        lines, lambda rows, draws: {"ids": torch.tensor(rows[0]["input_ids"])}, 1, accelerator
    )
    for batch in _with_progress(batches, len(lines), accelerator):
        ids = batch["ids"]  # (time,)
        guessed = torch.isin(ids, special, invert=True).nonzero().squeeze(1)  # (tokens,)
        loss_sum = 0.0
        for masked in guessed.split(max(1, TOKENS_OF_A_BATCH // len(ids))):
            copies = ids.repeat(len(masked), 1)  # (copies, time)
            here = torch.arange(len(masked)), masked
            copies[here] = tokenizer.mask_token_id
            logits = model(copies).logits[here].float()  # (copies, vocab_size)
            loss_sum += float(F.cross_entropy(logits, ids[masked], reduction="sum"))
        mine.append((loss_sum, len(guessed), ids.tolist().count(tokenizer.unk_token_id)))
    losses, counts, unknown = np.array(gather_objects(accelerator, mine)).T
    if not counts.any():
        raise InputError(f"{folder}: its vocabulary has no token of this text")
    loss = ratio_interval(losses, counts)
    metrics = {
        "pseudo_perplexity": _exp(loss),
        "loss": loss,
        "unknown_tokens": ratio_interval(unknown, counts + unknown),
    }
    return {"metrics": metrics, "n": len(lines), "parameters": model.num_parameters()}


def score_words(folder: str, name: str, output_file: Path, layer: int | None = None) -> dict[str, Any]:
    """What gensim says of an encoder's word vectors on the set `name`, one of `WORD_SETS`.

    The record is also written to `output_file`. As in gensim upper and lower case are the same: of the spellings of a
    word the vocabulary's first one counts. Raises `InputError` where the encoder knows too few of the words, or has no
    such `layer`.
    """
    from gensim.test.utils import datapath

    layer = TOP_LAYER if layer is None else layer
    accelerator, stopwatch = make_accelerator(), Stopwatch()
    path, is_analogies = datapath(WORD_SETS[name]), name == "analogies"
    model, tokenizer = load_encoder(folder, "AutoModel")
    model.to(accelerator.device).eval()
    items = [fields for _, fields in _read_set(path)]
    asked = {word.upper(): word for fields in items for word in fields[: 4 if is_analogies else 2]}
    vocabulary = whole_words(folder, tokenizer)
    if not is_analogies:
        vocabulary = [word for word in vocabulary if word.upper() in asked]
    elif not vocabulary:
        raise InputError(f"{folder}: no {OUTPUT_WORDS} in this folder, the words that answers are chosen from")
    spelled = {word.upper() for word in vocabulary}
    words = [*vocabulary, *(word for key, word in asked.items() if key not in spelled)]
    vectors = word_vectors(model, tokenizer, words, layer)
    return _write(
        output_file,
        stopwatch,
        accelerator,
        task="analogies" if is_analogies else "similarity",
        dataset=name,
        split="all",
        n=len(items),
        metrics=(analogies if is_analogies else similarity)(vectors, path),
        encoder=folder,
        parameters=model.num_parameters(),
        layer=layer,
    )


def whole_words(folder: str, tokenizer) -> list[str]:
    """The words that the encoder's vocabulary has whole, in its order, usually the most frequent first.

    Of an ELMo those that it predicts, none where its folder lacks them; of others the entries that the tokenizer takes
    for just that entry when it is given one alone. A fastText has the letters of one byte before its words.
    """
    if is_byte_level(tokenizer):
        if not (local_copy(folder) / OUTPUT_WORDS).is_dir():
            return []
        tokenizer = load_tokenizer(local_copy(folder) / OUTPUT_WORDS)
    ids = sorted(set(tokenizer.get_vocab().values()).difference(tokenizer.all_special_ids))
    entries = [entry.strip() for entry in tokenizer.batch_decode([[i] for i in ids])]
    alone = tokenizer(entries, add_special_tokens=False)["input_ids"]
    return [entry for entry, i, read in zip(entries, ids, alone, strict=True) if read == [i]]


@torch.no_grad()
def word_vectors(model, tokenizer, words: list[str], layer: int = TOP_LAYER):
    """gensim `KeyedVectors` of `words`: the mean of a layer's states over the pieces of a word encoded alone.

    `layer` counts from the embeddings, 0, or an ELMo's characters; negative ones from the top. Special tokens do not
    count as pieces, and a word of which nothing else is left, such as one that word2vec lacks, is left out. The top
    layer is the default, since no other is clearly better: those of all-MiniLM-L6-v2 reach 0.72 to 0.75 on WordSim-353
    (top 0.75) and 0.47 to 0.50 on SimLex-999 (top 0.50). Raises `InputError` where there is no such layer.
    """
    from gensim.models import KeyedVectors

    special = torch.tensor(tokenizer.all_special_ids, device=model.device)
    known, vectors = [], []
    for start in range(0, len(words), WORDS_OF_A_BATCH):
        part = words[start : start + WORDS_OF_A_BATCH]
        inputs = tokenizer(part, padding=True, return_tensors="pt").to(model.device)
        layers = model(**inputs, output_hidden_states=True).hidden_states
        if not -len(layers) <= layer < len(layers):
            raise InputError(f"--layer {layer}: the encoder has the layers 0 to {len(layers) - 1}")
        pieces = torch.isin(inputs["input_ids"], special, invert=True)  # (words, pieces)
        sums = (layers[layer].float() * pieces.unsqueeze(-1)).sum(dim=1)  # (words, hidden_size)
        counts = pieces.sum(dim=1)
        known += [word for word, count in zip(part, counts.tolist(), strict=True) if count]
        vectors.append((sums[counts > 0] / counts[counts > 0].unsqueeze(1)).cpu().numpy())
    keyed = KeyedVectors(vectors[0].shape[1])
    keyed.add_vectors(known, np.concatenate(vectors))
    return keyed


def similarity(vectors, path: str) -> dict[str, Interval]:
    """Spearman's rank correlation of cosines with what people said, and the share of pairs with both words known."""
    from scipy.stats import spearmanr

    keys = {key.upper(): key for key in reversed(vectors.index_to_key)}
    pairs = [(keys.get(a.upper()), keys.get(b.upper()), float(score)) for _, (a, b, score) in _read_set(path)]
    known = [(vectors.similarity(a, b), score) for a, b, score in pairs if a and b]
    if len(known) < FEWEST_PAIRS:
        raise InputError(f"{Path(path).name}: the encoder knows {len(known)} of {len(pairs)} pairs of words, too few")
    cosines, scores = np.array(known).T
    draws = np.random.default_rng(0).integers(len(known), size=(NUM_RESAMPLES, len(known)))
    low, high = np.percentile([spearmanr(scores[draw], cosines[draw])[0] for draw in draws], [2.5, 97.5])
    value = vectors.evaluate_word_pairs(path)[1][0]
    return {
        "spearman": {"value": float(value), "low": float(low), "high": float(high)},
        "coverage": ratio_interval([bool(a and b) for a, b, _ in pairs], np.ones(len(pairs))),
    }


def analogies(vectors, path: str) -> dict[str, Interval]:
    """Share of right answers to "a is to b as c is to …", and the share of questions that have all words known.

    Only those are answered. Questions of one `a` and `b` depend on one another: the bootstrap draws them together. A
    kind of analogies without any answer has no figure.
    """
    questions = Counter((section, a.upper(), b.upper()) for section, (a, b, _, _) in _read_set(path))
    sections = vectors.evaluate_word_analogies(path)[1][:-1]  # the last one is their sum
    right, wrong = (
        Counter((section["section"], a, b) for section in sections for a, b, _, _ in section[outcome])
        for outcome in ("correct", "incorrect")
    )
    known = right + wrong
    if not known:
        raise InputError(f"{Path(path).name}: the encoder knows all words of none of its questions")
    kinds = {
        "accuracy": list(questions),
        "semantic_accuracy": [pair for pair in questions if not pair[0].startswith("gram")],
        "syntactic_accuracy": [pair for pair in questions if pair[0].startswith("gram")],
    }
    metrics = {
        name: ratio_interval([right[pair] for pair in pairs], [known[pair] for pair in pairs])
        for name, pairs in kinds.items()
        if any(known[pair] for pair in pairs)
    }
    return metrics | {"coverage": ratio_interval([known[pair] for pair in questions], list(questions.values()))}


def _read_set(path: str) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line of a set of words, and the name of the section that it stands in."""
    section = ""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(":"):
            section = line.lstrip(": ")
        elif not line.startswith("#"):
            yield section, line.split()


def _exp(interval: Interval) -> Interval:
    return {name: math.exp(value) for name, value in interval.items()}


def _with_progress(batches: Iterable[dict], num_batches: float, accelerator) -> Iterator[dict]:
    start = time.monotonic()
    with Progress(math.ceil(num_batches / accelerator.num_processes), None, accelerator.is_main_process) as progress:
        for step, batch in enumerate(batches, start=1):
            yield batch
            seconds = time.monotonic() - start
            progress.advance(step, seconds)
            progress.show(step, {"steps_per_second": step / seconds})


def _write(output_file: Path, stopwatch: Stopwatch, accelerator, **fields: Any) -> dict[str, Any]:
    record = {
        **fields,
        "seed": None,
        "num_steps": 0,
        "throughput": fields["n"] / stopwatch.seconds,
        "throughput_unit": "examples/s",
        "deterministic": True,
    }
    return write_results(output_file, stopwatch, **record) if accelerator.is_main_process else record
