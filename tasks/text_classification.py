"""Text classification: one label per text.

An example: text "How far is it from Denver to Aspen ?", label "NUM".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.classification import Classification, LabelPrediction
from tasks.task import NO_LABEL, check_label
from tasks.text_task import TextTask, TextTaskArguments, words_of_tokens
from toolkit.data.columns import LabelColumn, TextColumn
from toolkit.runs.arguments import defaults


@dataclass(kw_only=True)
class LabelledTextColumns(LabelColumn, TextColumn):
    """Columns of labelled texts."""


@dataclass(kw_only=True)
class TextArguments(TextTaskArguments):
    columns: LabelledTextColumns = defaults(LabelledTextColumns)


class TextClassification(Classification, TextTask):
    name = "text"
    arguments = TextArguments
    auto_class = "AutoModelForSequenceClassification"
    item = "text"
    baseline_name = "TF-IDF + logistic regression"

    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Texts that are too long for the encoder are truncated; labels that training lacks are ignored."""
        rows = list(rows)
        texts = [row["text"] for row in rows]
        encoding = tokenizer(texts, truncation=max_length is not None, max_length=max_length, verbose=False)
        return [
            {
                "input_ids": ids,
                "words": words_of_tokens(encoding, index),
                "label": label2id.get(row.get("label"), NO_LABEL),
                "index": index,
                "part": 0,
            }
            for index, (ids, row) in enumerate(zip(encoding["input_ids"], rows, strict=True))
        ]

    def words_of(self, row: dict[str, Any], processor) -> list[str]:
        encoding = processor(row["text"], verbose=False)
        last = max((word for word in encoding.word_ids() if word is not None), default=-1)
        spans = [encoding.word_to_chars(word) for word in range(last + 1)]
        return [row["text"][span.start : span.end] for span in spans]

    def predicted(
        self, prediction: LabelPrediction, words: list[str], label: str | None, folder: str, model
    ) -> list[Any]:
        from toolkit.explain.texts import Predicted

        explained = check_label(label or prediction.label, folder, list(model.config.label2id))
        return [Predicted(explained, model.config.label2id[explained])]

    def collate_labels(self, encoded: list[dict], num_tokens: int) -> tuple[np.ndarray, int]:
        return np.array([row["label"] for row in encoded]), len(encoded)

    def decode(self, encoded: list[dict], outputs: Any, model, processor) -> list[LabelPrediction]:
        probabilities, ids = outputs.softmax(dim=-1).max(dim=-1)
        pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return [LabelPrediction(model.config.id2label[label], probability) for label, probability in pairs]

    def baseline(self, train_rows, rows) -> list[LabelPrediction]:
        from tasks.baselines import tfidf_labels

        labels = tfidf_labels(train_rows["text"][:], train_rows["label"][:], rows["text"][:])
        return [LabelPrediction(label, 1.0) for label in labels]
