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
from benchmarking import BertOnSample, alternate, write_record
from torch.utils.data import DataLoader

from toolkit.training.arguments import TrainingArguments
from toolkit.training.inputs import TrainingData, TrainingOutput
from toolkit.training.loop import train
from toolkit.training.sampler import BatchSampler

STEPS, BATCH_SIZE = 180, 8

bert = BertOnSample("bert-mini", 128)


def toolkit_loop() -> float:
    model = bert.new_model().train()
    arguments = TrainingArguments(max_steps=STEPS, batch_size=BATCH_SIZE, save_steps=STEPS // 3)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(model, TrainingData(bert.rows, bert.collate), arguments, TrainingOutput(Path(folder), bert.tokenizer))
        return STEPS / (time.perf_counter() - start)


def bare_loop() -> float:
    model = bert.new_model().train()
    sampler = BatchSampler(len(bert.rows), BATCH_SIZE, seed=0)
    batches = [sampler.batch(step) for step in range(STEPS)]
    keys = {key.index: key for batch in batches for key in batch}
    start = time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    loader = DataLoader(
        list(zip(bert.rows[list(keys)]["input_ids"], keys.values(), strict=True)),
        batch_size=BATCH_SIZE,
        collate_fn=lambda pairs: bert.collate([{"input_ids": ids} for ids, _ in pairs], [key for _, key in pairs]),
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
    toolkit_loop(), bare_loop()  # warm-up
    figures = alternate({"toolkit": toolkit_loop, "bare loop": bare_loop}, rounds)
    write_record("bench_loop", {"unit": "steps/s", "steps": STEPS} | figures)
