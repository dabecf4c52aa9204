#!/usr/bin/env python
"""How far a tagger trained on other data agrees with the sample treebank, and every word where it does not.

    python scripts/check_treebank.py TAGGER > disagreements.tsv

TAGGER is a folder of `toolkit finetune pos`. A line: tag of the treebank, of the tagger, its probability, the word
between its neighbours. The share of words that agree goes to standard error.
"""

import sys

from tasks import TASKS, load_predictor
from toolkit.data.treebank import load_treebank

(folder,) = sys.argv[1:]
predictor = load_predictor(TASKS["pos"], folder)
lines, num_words = [], 0
for split in ("train", "validation", "test"):
    rows = load_treebank("sample", split)
    for row, prediction in zip(rows, predictor(rows), strict=True):
        tokens = row["tokens"]
        num_words += len(tokens)
        for i, (tag, (predicted, probability)) in enumerate(zip(row["tags"], prediction, strict=True)):
            if tag != predicted:
                context = [*tokens[max(0, i - 4) : i], f"[{tokens[i]}]", *tokens[i + 1 : i + 5]]
                lines.append(f"{tag}\t{predicted}\t{probability:.2f}\t{' '.join(context)}")
print(*sorted(lines), sep="\n")
print(f"{1 - len(lines) / num_words:.4f} of {num_words} words agree, {len(lines)} do not", file=sys.stderr)
