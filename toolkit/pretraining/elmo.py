"""ELMo: predict the next word from those before it, and the previous word from those after it.

Peters et al. (2018), "Deep contextualized word representations", https://arxiv.org/abs/1802.05365. While training, a
word competes with a sample of the vocabulary instead of all of it: Jean, Cho, Memisevic & Bengio (2015),
https://arxiv.org/abs/1412.2007.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.corpora.corpus import Corpus
from toolkit.corpora.windows import WordWindows
from toolkit.errors import InputError, check_flags, check_positive
from toolkit.models.families import OUTPUT_WORDS
from toolkit.pretraining.method import Method, PresetArguments
from toolkit.pretraining.run import Run, train_and_record
from toolkit.pretraining.text_corpus import TextPretrainingArguments, byte_tokenizer, load_windows, new_tokenizer
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
class WordWindowArguments(Arguments):
    """windows"""

    max_length: int = 32
    """Words per window."""

    def check(self) -> None:
        check_flags(self, "max_length", lambda value: value >= 3, "at least 3")


@dataclass(kw_only=True)
class ElmoArguments(TextPretrainingArguments):
    encoder: PresetArguments = defaults(PresetArguments, preset="elmo-mini")
    training: TrainingArguments = defaults(TrainingArguments, learning_rate=3e-3)
    objective: LanguageModelArguments = defaults(LanguageModelArguments)
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


def word_recipe(run: Run, text: Corpus) -> tuple[list[Any], WordWindows]:
    """The tokenizers of input and output words, and the recipe that makes windows."""
    tokenizer = byte_tokenizer(run)
    words = new_tokenizer("word", tokenizer.backend_tokenizer.normalizer, text, run)
    return [tokenizer, words], WordWindows(tokenizer, words, run.arguments.windows.max_length)


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

    With `consecutive` above 1, that many windows of a text follow each other in as many steps. One direction starts
    with the state that it ended with in the window before; the other one cannot, since it reads the text backwards.
    They alternate.
    """

    pad_token_id: int
    boundary_id: int  # the output word that ends a line
    output_vocab_size: int
    seed: int  # of the run
    num_negatives: int | None = None  # output words that are sampled for all processes of a step; None: all of them
    consecutive: int = 1

    def __call__(self, rows: list[dict], keys: list[SampleKey]) -> dict[str, Any]:
        import torch

        input_ids = padded([row["input_ids"] for row in rows], self.pad_token_id)
        labels = padded([row["labels"] for row in rows], -100)
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
            batch |= negatives_of_batch(self.output_vocab_size, self.num_negatives, (self.seed, keys[0].step))
        return batch


def negatives_of_batch(vocab_size: int, num_negatives: int, seed: tuple[int, ...]) -> dict[str, Any]:
    """The sampled words as inputs of a language model; see `sample_negatives`."""
    import torch

    sample, log_counts = sample_negatives(vocab_size, num_negatives, seed)
    return {"negatives": torch.from_numpy(sample), "negative_log_counts": torch.from_numpy(log_counts)}


def sample_negatives(vocab_size: int, num_negatives: int, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Sample distinct words by Zipf's law from a vocabulary that is sorted by frequency.

    Returns the words, (num_negatives,) int64, and for every word of the vocabulary the logarithm of the number of
    times that it is expected in such a sample, (vocab_size,) float32.
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


def padded(sequences: list[list[int]], value: int) -> np.ndarray:
    """Sequences as rows of one array, padded on the right."""
    padded = np.full((len(sequences), max(map(len, sequences))), value)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


METHOD = Method(ElmoArguments, pretrain_elmo, word_recipe)
