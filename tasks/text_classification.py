"""Text classification: one label a text.

An example: text "How far is it from Denver to Aspen ?", label "NUM". The figures are accuracy, F1 of each label and
their mean.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base import IGNORED
from tasks.words import WordsArguments, WordsTask, padded_pieces, words_of
from toolkit.data.sources import TABLE_BUILDERS, read_text, suffix_of
from toolkit.errors import InputError


@dataclass(kw_only=True)
class TextArguments(WordsArguments):
    text_column: str | None = None
    """Column of a table that holds the text (default: text, sentence, content or document)."""
    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""


class TextClassification(WordsTask):
    name = "text"
    arguments_class = TextArguments
    data_flags = ("text_column", "label_column")
    model_class = "AutoModelForSequenceClassification"
    item = "text"
    baseline_name = "TF-IDF + logistic regression"

    def load(self, source: str, split: str | None, flags: dict[str, Any]):
        from toolkit.data.labelled_text import load_labelled_text

        return load_labelled_text(source, split, flags.get("text_column"), flags.get("label_column"))

    def splits(self, source: str) -> list[str]:
        from toolkit.data.labelled_text import splits_of_labelled_text

        return splits_of_labelled_text(source)

    def texts(self, rows) -> Iterable[str]:
        return rows["text"]

    def labels(self, rows) -> list[str]:
        return sorted(set(rows["label"]))

    def labels_of_rows(self, rows) -> list[str]:
        return rows["label"][:]

    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Texts too long for the encoder are cut at its end; a label that training lacks is not trained on."""
        import datasets

        labels = rows["label"] if "label" in rows.column_names else [None] * len(rows)
        encoding = tokenizer(rows["text"][:], truncation=max_length is not None, max_length=max_length, verbose=False)
        features = [
            {
                "input_ids": ids,
                "words": words_of(encoding, index),
                "label": label2id.get(label, IGNORED),
                "index": index,
                "part": 0,
            }
            for index, (ids, label) in enumerate(zip(encoding["input_ids"], labels, strict=True))
        ]
        return datasets.Dataset.from_list(features)

    def collate_words(self, rows: list[dict], pad_token_id: int) -> dict[str, Any]:
        import torch

        input_ids, attention_mask = padded_pieces(rows, pad_token_id)
        labels = [row["label"] for row in rows]
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": torch.tensor(labels),
            "num_targets": sum(label != IGNORED for label in labels),
            "num_items": len(rows),
        }

    def read(self, features: list[dict], logits, model) -> list[tuple[str, float]]:
        """For each text its label and the probability of it."""
        probabilities, ids = logits.softmax(dim=-1).max(dim=-1)
        pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return [(model.config.id2label[label], probability) for label, probability in pairs]

    def join(self, predictions: list[tuple[str, float]]) -> tuple[str, float]:
        (prediction,) = predictions
        return prediction

    def score(self, rows, predictions, seen: set[str] | None) -> dict[str, dict[str, float]]:
        from toolkit.metrics.scores import label_scores

        right, predicted = self.answers(rows, predictions)
        return label_scores(predicted, right)

    def answers(self, rows, predictions) -> tuple[list[str], list[str]]:
        return rows["label"][:], [label for label, _ in predictions]

    def baseline(self, train_rows, rows) -> list[tuple[str, float]]:
        from tasks.baselines import tfidf_labels

        return [(label, 1.0) for label in tfidf_labels(train_rows["text"][:], train_rows["label"][:], rows["text"][:])]

    def unlabelled(self, inputs: Sequence[str | Path]):
        """Each text is one to classify; of a file of text each line, of a table each row."""
        import datasets

        from toolkit.corpora.text import load_text

        texts: list[str] = []
        for found in inputs:
            if isinstance(found, str):
                texts.append(found)
            elif suffix_of(found) in TABLE_BUILDERS:
                texts += load_text(str(found))["text"][:]
            else:
                texts += read_text(found).splitlines()
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise InputError("there is no text to classify")
        return datasets.Dataset.from_dict({"text": texts})

    def as_json(self, row: dict, prediction: tuple[str, float]) -> dict:
        label, probability = prediction
        return {**row, "predicted": label, "probability": round(probability, 4)}

    def hits(self, line: dict) -> tuple[int, int]:
        return int(line["predicted"] == line["label"]), 1

    def as_text(self, row: dict, prediction: tuple[str, float]) -> str:
        label, probability = prediction
        return f"{label}\t{probability:.4f}\t{' '.join(row['text'].split())}"
