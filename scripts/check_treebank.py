#!/usr/bin/env python
"""Compare the sample treebank with a tagger trained on other data, and print every word where they disagree.

    python scripts/check_treebank.py TAGGER > disagreements.tsv

TAGGER is a folder of `toolkit finetune pos`. Each line has the tag of the treebank, the tag of the tagger, its
probability, and the word in its context. The fraction of words on which both agree goes to standard error.
"""

import sys

from tasks import TASKS
from tasks.inference import Predictor
from toolkit.data.treebank import load_treebank

(folder,) = sys.argv[1:]
predictor = Predictor(TASKS["pos"], folder)
lines, num_words = [], 0
for split in ("train", "validation", "test"):
    rows = load_treebank("sample", split)
    for row, prediction in zip(rows, predictor(rows), strict=True):
        tokens = row["tokens"]
        num_words += len(tokens)
        answers = zip(row["tags"], prediction.tags, prediction.probabilities, strict=True)
        for i, (tag, tag_of_tagger, probability) in enumerate(answers):
            if tag != tag_of_tagger:
                context = [*tokens[max(0, i - 4) : i], f"[{tokens[i]}]", *tokens[i + 1 : i + 5]]
                lines.append(f"{tag}\t{tag_of_tagger}\t{probability:.2f}\t{' '.join(context)}")
print(*sorted(lines), sep="\n")
print(f"{1 - len(lines) / num_words:.4f} of {num_words} words agree, {len(lines)} do not", file=sys.stderr)
