"""Text classification: one label per text.

An example: text "How far is it from Denver to Aspen ?", label "NUM".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.classification import Classification, LabelPrediction
from tasks.task import NO_LABEL
from tasks.words import WordsArguments, WordsTask, words_of_tokens
from toolkit.data.columns import LabelColumn, TextColumn
from toolkit.runs.arguments import defaults


@dataclass(kw_only=True)
class LabelledTextColumns(LabelColumn, TextColumn):
    """Columns of labelled texts."""


@dataclass(kw_only=True)
class TextArguments(WordsArguments):
    columns: LabelledTextColumns = defaults(LabelledTextColumns)


class TextClassification(Classification, WordsTask):
    name = "text"
    arguments = TextArguments
    auto_class = "AutoModelForSequenceClassification"
    item = "text"
    baseline_name = "TF-IDF + logistic regression"

    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Texts that are too long for the encoder are truncated; labels that training lacks are ignored."""
        import datasets

        labels: Any = rows["label"][:] if "label" in rows.column_names else [None] * len(rows)
        encoding = tokenizer(rows["text"][:], truncation=max_length is not None, max_length=max_length, verbose=False)
        return datasets.Dataset.from_dict(
            {
                "input_ids": encoding["input_ids"],
                "words": [words_of_tokens(encoding, index) for index in range(len(rows))],
                "label": [label2id.get(label, NO_LABEL) for label in labels],
                "index": list(range(len(rows))),
                "part": [0] * len(rows),
            }
        )

    def collate_labels(self, encoded: list[dict], num_tokens: int) -> tuple[np.ndarray, int]:
        return np.array([row["label"] for row in encoded]), len(encoded)

    def decode(self, encoded: list[dict], outputs: Any, model) -> list[LabelPrediction]:
        probabilities, ids = outputs.softmax(dim=-1).max(dim=-1)
        pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return [LabelPrediction(model.config.id2label[label], probability) for label, probability in pairs]

    def baseline(self, train_rows, rows) -> list[LabelPrediction]:
        from tasks.baselines import tfidf_labels

        labels = tfidf_labels(train_rows["text"][:], train_rows["label"][:], rows["text"][:])
        return [LabelPrediction(label, 1.0) for label in labels]
