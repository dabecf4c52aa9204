#!/usr/bin/env python
"""Steps per second of the toolkit's training loop, compared with a bare PyTorch loop on the same model and batches.

    python scripts/bench_loop.py [ROUNDS]

A bert-mini on the sample text, windows of 128 tokens, batch 8. The toolkit's loop logs every ten steps and saves three
checkpoints per run of half a minute (by default it saves every ten minutes); the bare loop does neither. Both read the
same windows through the same collator and a DataLoader, clip the gradient and use a fused AdamW. Record:
docs/results/bench_loop.json.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from alternation import alternate, write
from torch.utils.data import DataLoader

from toolkit.corpora.corpus import open_corpus
from toolkit.corpora.prepared import rows_made_of
from toolkit.corpora.tokenizer_training import train_tokenizer
from toolkit.corpora.windows import PieceWindows
from toolkit.models.bert import BertForMaskedLM
from toolkit.models.families import presets
from toolkit.pretraining.bert import MaskTokens
from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train
from toolkit.training.sampler import BatchSampler

STEPS, BATCH_SIZE, PRESET = 180, 8, presets()["bert-mini"]

corpus = open_corpus("sample")
tokenizer = train_tokenizer(corpus.texts(), "wordpiece", PRESET.default_size)
rows = rows_made_of(corpus, PieceWindows(tokenizer, 128))
collate = MaskTokens(
    tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.all_special_ids, len(tokenizer), seed=0
)


def new_model():
    torch.manual_seed(0)
    return BertForMaskedLM(PRESET.config(len(tokenizer))).train()


def ours() -> float:
    model = new_model()
    arguments = TrainingArguments(max_steps=STEPS, batch_size=BATCH_SIZE, save_steps=STEPS // 3)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(model, TrainingData(rows, collate), arguments, TrainingOutput(Path(folder), tokenizer))
        return STEPS / (time.perf_counter() - start)


def bare() -> float:
    model = new_model()
    sampler = BatchSampler(len(rows), BATCH_SIZE, seed=0)
    batches = [sampler.batch(step) for step in range(STEPS)]
    key_of_example = {key.index: key for batch in batches for key in batch}
    start = time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    loader = DataLoader(
        list(zip(rows[list(key_of_example)]["input_ids"], key_of_example.values(), strict=True)),
        batch_size=BATCH_SIZE,
        collate_fn=lambda pairs: collate([{"input_ids": ids} for ids, _ in pairs], [key for _, key in pairs]),
    )
    for batch in loader:
        batch.pop("num_targets"), batch.pop("num_items")
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return STEPS / (time.perf_counter() - start)


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ours(), bare()  # both warm
    write("bench_loop", {"unit": "steps/s", "steps": STEPS} | alternate({"toolkit": ours, "bare loop": bare}, rounds))
