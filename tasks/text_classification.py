"""Text classification: one label per text.

An example: text "How far is it from Denver to Aspen ?", label "NUM".
"""

from dataclasses import dataclass
from typing import Any

from tasks.classification import Classification, LabelledTextColumns, LabelPrediction
from tasks.task import NO_LABEL
from tasks.words import WordsArguments, WordsTask, pad_tokens, words_of_tokens
from toolkit.runs.arguments import defaults


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

        labels = rows["label"] if "label" in rows.column_names else [None] * len(rows)
        encoding = tokenizer(rows["text"][:], truncation=max_length is not None, max_length=max_length, verbose=False)
        encoded = [
            {
                "input_ids": ids,
                "words": words_of_tokens(encoding, index),
                "label": label2id.get(label, NO_LABEL),
                "index": index,
                "part": 0,
            }
            for index, (ids, label) in enumerate(zip(encoding["input_ids"], labels, strict=True))
        ]
        return datasets.Dataset.from_list(encoded)

    def collate_words(self, encoded: list[dict], pad_token_id: int) -> dict[str, Any]:
        import torch

        input_ids, attention_mask = pad_tokens(encoded, pad_token_id)
        labels = [row["label"] for row in encoded]
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": torch.tensor(labels),
            "num_targets": sum(label != NO_LABEL for label in labels),
            "num_items": len(encoded),
        }

    def decode(self, encoded: list[dict], outputs: Any, model) -> list[LabelPrediction]:
        probabilities, ids = outputs.softmax(dim=-1).max(dim=-1)
        pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return [LabelPrediction(model.config.id2label[label], probability) for label, probability in pairs]

    def baseline(self, train_rows, rows) -> list[LabelPrediction]:
        from tasks.baselines import tfidf_labels

        labels = tfidf_labels(train_rows["text"][:], train_rows["label"][:], rows["text"][:])
        return [LabelPrediction(label, 1.0) for label in labels]
