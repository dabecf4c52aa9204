"""How well a language model predicts a text: perplexity, and pseudo-perplexity of masked language models.

Salazar, Liang, Nguyen & Kirchhoff (2020), "Masked language model scoring", https://aclanthology.org/2020.acl-main.240.
"""

import math
import pkgutil
from collections.abc import Callable
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.nn import functional as F

from toolkit.corpora.corpus import Corpus, open_corpus
from toolkit.corpora.formats import SUFFIXES
from toolkit.corpora.prepared import AsItIs, rows_made_of
from toolkit.corpora.tokenization import load_tokenizer
from toolkit.corpora.windows import PieceWindows, WordWindows
from toolkit.data.rows import spread
from toolkit.data.sources import find_local
from toolkit.errors import InputError
from toolkit.hub.download import local_copy
from toolkit.metrics.intervals import exp_interval, ratio_interval
from toolkit.modalities import MODALITIES
from toolkit.models.families import OUTPUT_WORDS, family_of
from toolkit.pretraining.elmo import PredictBothDirections
from toolkit.pretraining.rnn import PredictNeighbours
from toolkit.pretraining.run import VALIDATION_BATCH_SIZE
from toolkit.runs.progress import with_progress
from toolkit.runs.results import Stopwatch, read_results, write_score
from toolkit.training.distributed import make_accelerator
from toolkit.training.evaluation import evaluation_batches
from toolkit.transfer.encoders import load_config, load_encoder

MASKED_LM_HEADS = ("ForMaskedLM", "BertForPreTraining")  # how the names of masked language models end
TOKENS_PER_BATCH = 2048


def score_text(
    folder: str,
    source: str,
    output_file: Path,
    split: str | None = None,
    text_column: str | None = None,
    max_examples: int | None = None,
) -> dict[str, Any]:
    """Score a language model on at most `max_examples` lines or windows of a text; write the record to `output_file`.

    `folder` is a folder or Hub id of a pretrained model: of a family with a perplexity, or a masked language model.
    Perplexities of models with different vocabularies are not comparable. Raises `InputError` if the text cannot be
    read or the folder holds no language model.
    """
    accelerator, stopwatch = make_accelerator(), Stopwatch()
    config = load_config(folder)
    family, architectures = family_of(config.model_type), config.architectures or []
    if family is not None and family.perplexity and any(name.endswith("ForPreTraining") for name in architectures):
        measure = pkgutil.resolve_name(family.perplexity)
    elif any(name.endswith(MASKED_LM_HEADS) for name in architectures):
        measure = pseudo_perplexity
    else:
        raise InputError(
            f"{folder}: holds {' and '.join(architectures) or 'no known model'}, which is no language model; "
            "only a pretrained ELMo, recurrent network or masked language model, before fine-tuning, has a perplexity"
        )
    is_whole = Path(source).is_file() or (has_magic(source) and not find_local(source, SUFFIXES).splits)
    split = split or ("all" if is_whole else "validation")
    with accelerator.main_process_first():
        corpus = open_corpus(source, split, text_column)
    summary = corpus.summary(split)
    if accelerator.is_main_process:
        summary.say()
    fields = measure(folder, corpus, max_examples, accelerator)
    about = {"dataset": f"text:{source}", "split": split, "encoder": folder, "data": summary.as_json()}
    return write_score(output_file, stopwatch, is_main=accelerator.is_main_process, **about, **fields)


def measure_rows(
    rows, collate, batch_size: int, accelerator, measure: Callable[[dict[str, Any]], list[Any]]
) -> np.ndarray:
    """Measure each row: (measurements, rows), the same on all processes, which share the work.

    `measure` returns the measurements of each row of a batch.
    """
    mine: list[Any] = []
    batches = evaluation_batches(rows, collate, batch_size, accelerator)
    num_batches = math.ceil(len(rows) / batch_size / accelerator.num_processes)
    with torch.no_grad():
        for batch in with_progress(batches, num_batches, accelerator.is_main_process):
            mine += measure(batch)
    return np.array(gather_object(mine)).T


def perplexity(folder: str, corpus: Corpus, max_examples: int | None, accelerator) -> dict[str, Any]:
    """The perplexity of an ELMo: the exact softmax over its output words, on the windows that pretraining would make.

    Returns fields of the record. `loss` is in nats per predicted word, in both directions; words that are no output
    words count as [UNK]. Raises `InputError` if the folder lacks the output words.
    """
    if not (local_copy(folder) / OUTPUT_WORDS).is_dir():
        raise InputError(f"{folder}: no {OUTPUT_WORDS} in this folder, expected one from toolkit pretrain elmo")
    words = load_tokenizer(local_copy(folder) / OUTPUT_WORDS)
    max_words = read_results(local_copy(folder))["arguments"]["max_length"]
    model, tokenizer = load_encoder(folder, "AutoModelForPreTraining", MODALITIES["text"])
    collate = PredictBothDirections(tokenizer.pad_token_id, words.sep_token_id, len(words), seed=0)
    recipe = WordWindows(tokenizer, words, max_words)
    return _perplexity(model, corpus, recipe, collate, words, max_examples, accelerator)


def perplexity_of_tokens(folder: str, corpus: Corpus, max_examples: int | None, accelerator) -> dict[str, Any]:
    """The perplexity of a recurrent language model on the windows that pretraining would make.

    Returns fields of the record. `loss` is in nats per predicted token, in all directions of the model.
    """
    model, tokenizer = load_encoder(folder, "AutoModelForPreTraining", MODALITIES["text"])
    recipe = PieceWindows(tokenizer, read_results(local_copy(folder))["arguments"]["max_length"])
    collate = PredictNeighbours.for_model(model.config, tokenizer, seed=0)
    return _perplexity(model, corpus, recipe, collate, tokenizer, max_examples, accelerator)


def _perplexity(
    model, corpus: Corpus, recipe, collate, outputs, max_examples: int | None, accelerator
) -> dict[str, Any]:
    """Fields of the record, for a model that predicts the vocabulary of the tokenizer `outputs`."""
    model.to(accelerator.device).eval()
    with accelerator.main_process_first():
        windows = spread(rows_made_of(corpus, recipe), max_examples)

    def measure(batch: dict[str, Any]) -> list[Any]:
        labels = batch["labels"]  # (batch, time)
        found = model(batch["input_ids"], batch["attention_mask"])
        columns = []
        for logits, targets in ((found.forward_logits, labels[:, 1:]), (found.backward_logits, labels[:, :-1])):
            counts = (targets != -100).sum(dim=1)
            columns += [counts * 0.0, counts * 0] if logits is None else [_losses(logits, targets), counts]
        is_word = (labels != -100) & (labels != outputs.sep_token_id)
        columns += [(labels == outputs.unk_token_id).sum(dim=1), is_word.sum(dim=1)]
        return torch.stack(columns, dim=1).tolist()

    measured = measure_rows(windows, collate, VALIDATION_BATCH_SIZE, accelerator, measure)
    forward, num_forward, backward, num_backward, unknown, num_words = measured
    loss = ratio_interval(forward + backward, num_forward + num_backward)
    metrics = {
        "perplexity": exp_interval(loss),
        "forward_perplexity": exp_interval(ratio_interval(forward, num_forward)),
    }
    if num_backward.any():
        metrics["backward_perplexity"] = exp_interval(ratio_interval(backward, num_backward))
    metrics |= {"loss": loss, "unknown_words": ratio_interval(unknown, num_words)}
    return {"task": "perplexity", "metrics": metrics, "n": len(windows), "parameters": model.num_parameters()}


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`logits` (batch, time, words), `labels` (batch, time) -> (batch,): cross-entropy summed over time, in nats."""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape).sum(dim=1)


def pseudo_perplexity(folder: str, corpus: Corpus, max_examples: int | None, accelerator) -> dict[str, Any]:
    """Mask each token of each line alone and predict it from the rest of the line.

    Lines are truncated to the length that the model takes. Special tokens, [UNK] among them, are not predicted.
    Returns fields of the record, with `loss` in nats per token. Raises `InputError` if no token of the text is in the
    vocabulary.
    """
    model, tokenizer = load_encoder(folder, "AutoModelForMaskedLM", MODALITIES["text"])
    model.to(accelerator.device).eval()
    lines = _encoded_lines(model, tokenizer, corpus, max_examples, accelerator)
    special = torch.tensor(tokenizer.all_special_ids, device=accelerator.device)

    def measure(batch: dict[str, Any]) -> list[Any]:
        ids = batch["ids"]  # (time,)
        targets = torch.isin(ids, special, invert=True).nonzero().squeeze(1)  # (tokens,)
        loss_sum = 0.0
        for masked in targets.split(max(1, TOKENS_PER_BATCH // len(ids))):
            copies = ids.repeat(len(masked), 1)  # (copies, time)
            here = torch.arange(len(masked)), masked
            copies[here] = tokenizer.mask_token_id
            logits = model(copies).logits[here].float()  # (copies, vocab_size)
            loss_sum += float(F.cross_entropy(logits, ids[masked], reduction="sum"))
        return [(loss_sum, len(targets), ids.tolist().count(tokenizer.unk_token_id))]

    def collate(rows: list[dict], keys) -> dict[str, Any]:
        return {"ids": torch.tensor(rows[0]["input_ids"])}

    losses, counts, unknown = measure_rows(lines, collate, 1, accelerator, measure)
    if not counts.any():
        raise InputError(f"{folder}: its vocabulary has no token of this text")
    loss = ratio_interval(losses, counts)
    metrics = {
        "pseudo_perplexity": exp_interval(loss),
        "loss": loss,
        "unknown_tokens": ratio_interval(unknown, counts + unknown),
    }
    return {"task": "pseudo-perplexity", "metrics": metrics, "n": len(lines), "parameters": model.num_parameters()}


def _encoded_lines(model, tokenizer, corpus: Corpus, max_examples: int | None, accelerator):
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    )
    with accelerator.main_process_first():
        rows = rows_made_of(corpus, AsItIs())
        lines = spread(rows.filter(lambda row: row["text"] and row["text"].strip()), max_examples)
        return lines.map(
            lambda batch: {"input_ids": tokenizer(batch["text"], truncation=True)["input_ids"]},
            batched=True,
            remove_columns=lines.column_names,
            desc="tokenizing",
        )
