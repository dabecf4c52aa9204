"""ELMo: predict the next word from those before it, and the previous word from those after it.

Peters et al. (2018), "Deep contextualized word representations", https://arxiv.org/abs/1802.05365. While training, a
word competes with a sample of the vocabulary instead of all of it: Jean, Cho, Memisevic & Bengio (2015),
https://arxiv.org/abs/1412.2007.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.corpora.windows import WordWindows
from toolkit.errors import InputError, check_positive
from toolkit.models.families import OUTPUT_WORDS
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import VALIDATION_BATCH_SIZE, Run, train_and_record
from toolkit.pretraining.text_corpus import (
    TOKENIZER,
    PrepareArguments,
    TextPretrainingArguments,
    TextSplit,
    WordWindowArguments,
    byte_tokenizer,
    load_windows,
    new_tokenizer,
    open_split_corpus,
)
from toolkit.runs.arguments import Arguments, defaults
from toolkit.training.arguments import TrainingArguments
from toolkit.training.sampler import SampleKey


@dataclass(kw_only=True)
class LanguageModelArguments(Arguments):
    """objective"""

    num_negatives: int = 2048
    """Sampled words that each predicted word competes with while training (sampled softmax)."""
    consecutive_windows: int = 1
    """Windows that are read one after the other with the state of the LSTM carried from each to the next, in
    alternating directions; 1 carries no state."""

    def check(self) -> None:
        check_positive(self, "num_negatives consecutive_windows")


@dataclass(kw_only=True)
class ElmoArguments(TextPretrainingArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="elmo-mini")
    training: TrainingArguments = defaults(TrainingArguments, learning_rate=3e-3)
    objective: LanguageModelArguments = defaults(LanguageModelArguments)
    windows: WordWindowArguments = defaults(WordWindowArguments)


@dataclass(kw_only=True)
class PrepareElmoArguments(PrepareArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="elmo-mini")
    windows: WordWindowArguments = defaults(WordWindowArguments)


def pretrain_elmo(arguments: ElmoArguments) -> dict[str, Any]:
    """Train an ELMo on windows of words spelled in bytes, to predict the most frequent words; returns the record."""
    run = Run("elmo", arguments)
    [tokenizer, words], rows = load_windows(run, word_recipe)

    import torch

    from toolkit.models.elmo import ElmoForPreTraining

    seed, consecutive = arguments.training.seed, arguments.objective.consecutive_windows
    exact = PredictBothDirections(tokenizer.pad_token_id, words.sep_token_id, len(words), seed)
    sampled = dataclasses.replace(exact, num_negatives=arguments.objective.num_negatives, consecutive=consecutive)
    check_recurrent_state_fits(consecutive, len(rows[0]), run)
    torch.manual_seed(seed)
    model = ElmoForPreTraining(run.preset.config(len(words)))
    output_dir = run.create_output_dir()
    if run.is_main:
        words.save_pretrained(output_dir / OUTPUT_WORDS)
    return train_and_record(run, model, tokenizer, rows, sampled, exact, item="word", consecutive=consecutive)


def word_recipe(run: Run) -> tuple[dict[str, Any], WordWindows, TextSplit]:
    """The tokenizers of input and output words, the recipe that makes windows of text, and the text."""
    corpus = open_split_corpus(run)
    tokenizer = byte_tokenizer(run)
    words = new_tokenizer("word", tokenizer.backend_tokenizer.normalizer, corpus[0], run)
    recipe = WordWindows(tokenizer, words, run.arguments.windows.max_length)
    return {TOKENIZER: tokenizer, OUTPUT_WORDS: words}, recipe, corpus


def check_recurrent_state_fits(consecutive: int, num_windows: int, run: Run) -> None:
    """Raises `InputError` if the states after one step's windows cannot start those of the next step."""
    training = run.arguments.training
    if num_windows < consecutive:
        raise InputError(f"--consecutive_windows {consecutive}: the text to train on fills only {num_windows:,}")
    num_parts = run.accelerator.num_processes * training.gradient_accumulation_steps
    if consecutive > 1 and training.batch_size % num_parts:
        raise InputError(
            f"--batch_size {training.batch_size}: expected a multiple of {num_parts}, processes times accumulation "
            "steps, where --consecutive_windows carry a state"
        )


@dataclass
class PredictBothDirections:
    """Collates windows of words for a bidirectional language model.

    Args:
        pad_token_id: Id of the padding piece.
        boundary_id: The output word that ends a line.
        output_vocab_size: Number of output words.
        seed: Seed of the run.
        num_negatives: Size of the sample of output words, the same for all processes of a step; None compares with
            all of them.
        consecutive: Number of windows of a text that follow each other in as many steps. One direction starts with
            the state that it ended with in the window before; the other one cannot, since it reads the text
            backwards. They alternate.
    """

    pad_token_id: int
    boundary_id: int
    output_vocab_size: int
    seed: int
    num_negatives: int | None = None
    consecutive: int = 1

    def __call__(self, rows: list[dict], keys: list[SampleKey]) -> dict[str, Any]:
        import torch

        input_ids = _padded([row["input_ids"] for row in rows], self.pad_token_id)
        labels = _padded([row["labels"] for row in rows], -100)
        batch = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy((input_ids != self.pad_token_id).astype(np.int64)),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels[:, 1:] != -100).sum() + (labels[:, :-1] != -100).sum()),
            "num_items": int(((labels != -100) & (labels != self.boundary_id)).sum()),
        }
        if self.consecutive > 1:
            batch["recurrent_direction"] = "backwards" if keys[0].backwards else "forwards"
            batch["continues"] = keys[0].continues
        if self.num_negatives:
            sample, log_counts = sample_negatives(
                self.output_vocab_size, self.num_negatives, (self.seed, keys[0].step)
            )
            batch |= {"negatives": torch.from_numpy(sample), "negative_log_counts": torch.from_numpy(log_counts)}
        return batch


def sample_negatives(vocab_size: int, num_negatives: int, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Sample distinct words by Zipf's law from a vocabulary that is sorted by frequency.

    Returns:
        The words, (num_negatives,) int64, and for every word of the vocabulary the logarithm of the number of times
        that it is expected in such a sample, (vocab_size,) float32.
    """
    num_negatives = min(num_negatives, vocab_size)
    rng = np.random.default_rng(seed)
    sampled = np.empty(0, dtype=np.int64)
    while True:
        # Word k has probability log((k + 2) / (k + 1)) / log(vocab_size + 1).
        more = (vocab_size + 1) ** rng.random(4 * num_negatives) - 1
        sampled = np.concatenate([sampled, more.astype(np.int64).clip(0, vocab_size - 1)])
        distinct, first = np.unique(sampled, return_index=True)
        if len(distinct) >= num_negatives:
            break
    order = np.argsort(first)[:num_negatives]
    num_samples = first[order[-1]] + 1
    words = np.arange(vocab_size)
    probabilities = np.log((words + 2) / (words + 1)) / np.log(vocab_size + 1)
    counts = -np.expm1(num_samples * np.log1p(-probabilities))
    return distinct[order], np.log(counts).astype(np.float32)


def _padded(sequences: list[list[int]], value: int) -> np.ndarray:
    padded = np.full((len(sequences), max(map(len, sequences))), value)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


def perplexity(folder: str, corpus, max_examples: int | None, accelerator) -> dict[str, Any]:
    """The perplexity of a text: the exact softmax over the output words, on the windows that pretraining would make.

    Returns fields of the record. `loss` is in nats per predicted word, in both directions; words that are no output
    words count as [UNK]. Raises `InputError` if the folder lacks the output words.
    """
    import torch

    from toolkit.corpora.prepared import rows_made_of
    from toolkit.corpora.tokenization import load_tokenizer
    from toolkit.data.rows import spread
    from toolkit.hub.download import local_copy
    from toolkit.metrics.intervals import exp_interval, ratio_interval
    from toolkit.modalities import MODALITIES
    from toolkit.pretraining.perplexity import measure_rows
    from toolkit.runs.results import read_results
    from toolkit.transfer.encoders import load_encoder

    if not (local_copy(folder) / OUTPUT_WORDS).is_dir():
        raise InputError(f"{folder}: no {OUTPUT_WORDS} in this folder, expected one from toolkit pretrain elmo")
    words = load_tokenizer(local_copy(folder) / OUTPUT_WORDS)
    max_words = read_results(local_copy(folder))["arguments"]["max_length"]
    model, tokenizer = load_encoder(folder, "AutoModelForPreTraining", MODALITIES["text"])
    model.to(accelerator.device).eval()
    with accelerator.main_process_first():
        windows = spread(rows_made_of(corpus, WordWindows(tokenizer, words, max_words)), max_examples)
    collate = PredictBothDirections(tokenizer.pad_token_id, words.sep_token_id, len(words), seed=0)

    def measure(batch: dict[str, Any]) -> list[Any]:
        labels = batch["labels"]  # (batch, time)
        outputs = model(batch["input_ids"], batch["attention_mask"])
        forward = _losses(outputs.forward_logits, labels[:, 1:])
        backward = _losses(outputs.backward_logits, labels[:, :-1])
        is_word = (labels != -100) & (labels != words.sep_token_id)
        counts = (labels[:, 1:] != -100, labels[:, :-1] != -100, labels == words.unk_token_id, is_word)
        return torch.stack([forward, backward, *(count.sum(dim=1) for count in counts)], dim=1).tolist()

    measured = measure_rows(windows, collate, VALIDATION_BATCH_SIZE, accelerator, measure)
    forward, backward, num_forward, num_backward, unknown, num_words = measured
    loss = ratio_interval(forward + backward, num_forward + num_backward)
    metrics = {
        "perplexity": exp_interval(loss),
        "forward_perplexity": exp_interval(ratio_interval(forward, num_forward)),
        "backward_perplexity": exp_interval(ratio_interval(backward, num_backward)),
        "loss": loss,
        "unknown_words": ratio_interval(unknown, num_words),
    }
    return {"task": "perplexity", "metrics": metrics, "n": len(windows), "parameters": model.num_parameters()}


def _losses(logits, labels):
    """`logits` (batch, time, words), `labels` (batch, time) -> (batch,): cross-entropy summed over time, in nats."""
    from torch.nn import functional as F

    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape).sum(dim=1)


METHOD = Method(ElmoArguments, pretrain_elmo, PrepareElmoArguments, word_recipe)
