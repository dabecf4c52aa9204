#!/usr/bin/env python
"""Compare pretraining of an ELMo with a plain bidirectional language model in PyTorch of the same sizes.

    python scripts/bench_elmo.py speed [ROUNDS]
    python scripts/bench_elmo.py quality CORPUS VALIDATION_CORPUS [STEPS] [SEEDS]

Both have a character CNN, two LSTM layers of 256 units per direction and 30,000 output words; windows of 32 words,
batch 64. The plain model runs the character CNN on every word, `nn.LSTM` on the text and on the reversed text, and the
full softmax, in float32 with AdamW in a bare loop. The toolkit trains with its defaults and 2,048 negatives, and also
with --bf16 if the processor supports bfloat16.

speed: words per second of processes that take turns and make a few steps each on the sample; and the fraction of the
machine's matrix-multiply peak: the products and convolutions that torch counts during training, with those of LSTMs
(`lstm_flops`), by their time. Record: docs/results/bench_elmo.json.
quality: the perplexity of the full softmax on the same held-out windows after STEPS (300) steps, and the seconds until
then. Both models see the same words in the same order at the same learning rates. Record:
docs/results/bench_elmo_quality.json.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarking import (
    HAS_BFLOAT16,
    alternate_processes,
    fraction_of_peak,
    peaks_in_gflops,
    read_log,
    run_in_process,
    write_record,
)
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import rows_made_of
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import WordWindows
from toolkit.data.rows import spread
from toolkit.models.elmo import ElmoConfig, ElmoForPreTraining
from toolkit.models.families import presets
from toolkit.pretraining.elmo import PredictBothDirections
from toolkit.runs.results import Stopwatch
from toolkit.training.arguments import TrainingArguments
from toolkit.training.distributed import make_accelerator
from toolkit.training.evaluation import held_out_loss
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train
from toolkit.training.sampler import BatchSampler
from toolkit.training.schedule import learning_rate_factor

BATCH_SIZE, WORDS, NUM_NEGATIVES, LEARNING_RATE, STEPS = 64, 32, 2_048, 3e-3, 12


class PlainLanguageModel(nn.Module):
    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.config = config
        self.characters = nn.Embedding(config.vocab_size, config.char_embedding_size)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embedding_size, filters, width) for width, filters in config.char_filters
        )
        num_filters = sum(filters for _, filters in config.char_filters)
        self.highway = nn.Linear(num_filters, 2 * num_filters)
        self.projection = nn.Linear(num_filters, config.hidden_size)
        size = config.hidden_size
        self.forwards, self.backwards = (nn.LSTM(size, size, 2, batch_first=True, dropout=0.1) for _ in range(2))
        self.output = nn.Linear(size, config.output_vocab_size)

    def states(self, spellings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`spellings` (batch, words, bytes) -> forward and backward states, each (batch, words, H)."""
        max_width = max(width for width, _ in self.config.char_filters)
        spelled = F.pad(spellings.flatten(0, 1), (0, max_width - 1))
        characters = self.characters(spelled).transpose(1, 2)
        found = torch.cat([F.relu(layer(characters)).amax(dim=-1) for layer in self.convolutions], dim=-1)
        transform, gate = self.highway(found).chunk(2, dim=-1)
        gate = torch.sigmoid(gate)
        words = self.projection(gate * found + (1 - gate) * F.relu(transform)).view(*spellings.shape[:2], -1)
        return self.forwards(words)[0], self.backwards(words.flip(1))[0].flip(1)

    def forward(self, spellings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        forwards, backwards = self.states(spellings)
        states = torch.cat([forwards[:, :-1].flatten(0, 1), backwards[:, 1:].flatten(0, 1)])
        targets = torch.cat([labels[:, 1:].flatten(), labels[:, :-1].flatten()])
        return F.cross_entropy(self.output(states), targets)  # ignores -100


def spell(batch: dict, config: ElmoConfig) -> torch.Tensor:
    """Turn the pieces of a batch (batch, pieces) into the bytes of its words (batch, words, bytes)."""
    words: list[torch.Tensor] = []
    for row in batch["input_ids"]:
        row = row[row != config.pad_token_id]
        starts = (row < config.first_continuation_id).nonzero().squeeze(1).tolist()
        words += [row[i:j][: config.max_word_length] for i, j in zip(starts, [*starts[1:], len(row)], strict=True)]
    return nn.utils.rnn.pad_sequence(words, batch_first=True).view(len(batch["labels"]), -1, max(map(len, words)))


class Job:
    """Windows of a text, and the training of both models on them."""

    def __init__(self, corpus, held_out_corpus, steps: int):
        self.tokenizer, self.steps, self.seed = train_tokenizer((), "bytes"), steps, 0
        self.words = train_tokenizer(corpus.texts(), "word", presets()["elmo-mini"].default_size)
        self.rows, held_out = (
            rows_made_of(part, WordWindows(self.tokenizer, self.words, WORDS)).filter(
                lambda row: len(row["labels"]) == WORDS
            )
            for part in (corpus, held_out_corpus)
        )
        self.held_out = spread(held_out, 2_048)
        self.config = presets()["elmo-mini"].config(len(self.words))
        self.accelerator = make_accelerator()

    def collate(self, num_negatives: int | None = None) -> PredictBothDirections:
        ids = self.tokenizer.pad_token_id, self.words.sep_token_id
        return PredictBothDirections(*ids, len(self.words), self.seed, num_negatives=num_negatives)

    def train_toolkit(self, bf16: bool) -> tuple[ElmoForPreTraining, list[float]]:
        torch.manual_seed(self.seed)
        model = ElmoForPreTraining(self.config)
        arguments = TrainingArguments(
            max_steps=self.steps,
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            seed=self.seed,
            logging_steps=1,
            bf16=bf16,
        )
        with tempfile.TemporaryDirectory() as folder:
            data = TrainingData(self.rows, self.collate(NUM_NEGATIVES), item="word")
            train(model, data, arguments, TrainingOutput(Path(folder)))
            return model, [line["seconds"] for line in read_log(Path(folder))]

    def train_plain(self) -> tuple[PlainLanguageModel, list[float]]:
        device, collate = self.accelerator.device, self.collate()
        torch.manual_seed(self.seed)
        model = PlainLanguageModel(self.config).to(device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
        sampler, times = BatchSampler(len(self.rows), BATCH_SIZE, self.seed), []
        start = time.perf_counter()
        for step in range(self.steps):
            keys = sampler.batch(step)
            batch = collate([self.rows[key.index] for key in keys], keys)
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * learning_rate_factor(step / self.steps, TrainingArguments().warmup_ratio)
            loss = model(spell(batch, self.config).to(device), batch["labels"].to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            times.append(time.perf_counter() - start)
            if step % 20 == 19:
                print(f"plain: step {step + 1}, loss {loss:.3f}, {times[-1]:.0f} s", file=sys.stderr, flush=True)
        return model, times


@torch.no_grad()
def perplexity_of_plain(model: PlainLanguageModel, job: Job) -> float:
    loss_sum = num_targets = 0.0
    device, collate = job.accelerator.device, job.collate()
    model.eval()
    for start in range(0, len(job.held_out), 32):
        batch = collate(list(job.held_out.select(range(start, min(start + 32, len(job.held_out))))), [])
        spellings, labels = spell(batch, job.config).to(device), batch["labels"].to(device)
        loss_sum += float(model(spellings, labels)) * batch["num_targets"]
        num_targets += batch["num_targets"]
    return math.exp(loss_sum / num_targets)


def lstm_flops(states, input_weights, state_weights, *arguments, **keywords) -> int:
    """Operations of one LSTM layer in one direction, from shapes: one product per step for its input and its state."""
    steps, batch, _ = states
    return 2 * steps * batch * (math.prod(input_weights) + math.prod(state_weights))


def flops_of_a_step(run: Callable[[], Any]) -> float:
    """Floating-point operations of matrix products and convolutions, forward and backward."""
    lstm = torch.ops.aten.mkldnn_rnn_layer, torch.ops.aten.mkldnn_rnn_layer_backward
    formulas = {lstm[0]: lstm_flops, lstm[1]: lambda *arguments, **keywords: 2 * lstm_flops(*arguments)}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    return counter.get_total_flops() / STEPS


def once(alternative: str, quantity: str) -> dict[str, float]:
    """Seconds per step after two warm-up steps, and peak memory; or operations per step. Runs in its own process."""
    job = Job(*open_corpus("sample").hold_out(0.01), steps=STEPS)
    run = job.train_plain if alternative == "plain" else partial(job.train_toolkit, bf16=alternative.endswith("bf16"))
    if quantity == "flops":
        return {"flops": flops_of_a_step(run)}
    _, times = run()
    return {"seconds": (times[-1] - times[1]) / (STEPS - 2), "peak_memory_mb": Stopwatch().peak_memory_mb}


def speed(rounds: int = 3) -> None:
    peaks = peaks_in_gflops()
    names = [*(["toolkit, bf16"] if HAS_BFLOAT16 else []), "toolkit", "plain"]
    words = BATCH_SIZE * (WORDS - 1)  # the first token of a window is [CLS]
    found = alternate_processes(__file__, {name: [name, "seconds"] for name in names}, rounds, words)
    flops = {name: run_in_process(__file__, name, "flops")["flops"] for name in names}
    found["GFLOP a step"] = {name: count / 1e9 for name, count in flops.items()}
    found["share of the peak"] = {
        name: fraction_of_peak(name, flops[name] * found["medians"][name] / words, peaks) for name in names
    }
    head = {"unit": "words/s", "steps": STEPS - 2, "negatives": NUM_NEGATIVES, "peak, GFLOP/s": peaks}
    write_record("bench_elmo", head | found)


def quality(corpus: str, validation_corpus: str, steps: int = 300, seeds: int = 3) -> None:
    name = "toolkit, bf16" if HAS_BFLOAT16 else "toolkit"
    found: dict[str, list[float]] = {name: [], "plain": []}
    seconds: dict[str, list[float]] = {name: [], "plain": []}
    job = Job(open_corpus(corpus), open_corpus(validation_corpus, "validation"), steps)
    for seed in range(seeds):
        job.seed = seed
        model, times = job.train_toolkit(bf16=HAS_BFLOAT16)
        loss = held_out_loss(model.eval(), job.held_out, job.collate(), 16, job.accelerator)
        found[name].append(math.exp(loss))
        seconds[name].append(times[-1])
        plain, times = job.train_plain()
        found["plain"].append(perplexity_of_plain(plain, job))
        seconds["plain"].append(times[-1])
        print(f"seed {seed}: { {name: values[-1] for name, values in found.items()} }", flush=True)
    ratios = [ours / plain for ours, plain in zip(*found.values(), strict=True)]
    head = {"unit": "perplexity", "steps": steps, "words": steps * BATCH_SIZE * (WORDS - 1)}
    write_record("bench_elmo_quality", head | {"figures": found, "toolkit to plain": ratios, "seconds": seconds})


if __name__ == "__main__":
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(*sys.argv[2:4])))
    elif sys.argv[1:2] == ["quality"]:
        quality(*sys.argv[2:4], *map(int, sys.argv[4:6]))
    else:
        speed(*map(int, sys.argv[2:3]))
