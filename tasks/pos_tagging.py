"""Part-of-speech tagging: one tag a word.

An example: tokens ["The", "dog", "barks", "."], tags ["DET", "NOUN", "VERB", "PUNCT"]. The first piece of a word
carries its tag. The figures are accuracy, accuracy on words that training lacks, F1 of each tag and their mean.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tasks.base import Task
from toolkit.data.source import check_readable_text, suffix_of
from toolkit.errors import InputError

IGNORED = -100


class PosTagging(Task):
    name = "pos"
    model_class = "AutoModelForTokenClassification"
    better = "accuracy"
    item = "word"

    def load(self, source: str, split: str | None, columns: dict[str, str | None]):
        from toolkit.data.treebank import load_treebank

        return load_treebank(source, split, columns.get("tag_column"), columns.get("token_column"))

    def splits(self, source: str) -> list[str]:
        from toolkit.data.treebank import splits_of

        return splits_of(source)

    def texts(self, rows) -> Iterable[str]:
        return [" ".join(tokens) for tokens in rows["tokens"]]

    def labels(self, rows) -> list[str]:
        return sorted({tag for tags in rows["tags"] for tag in tags})

    def seen(self, rows) -> set[str]:
        return {token for tokens in rows["tokens"] for token in tokens}

    def encode(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Sentences too long for the encoder are cut into parts; a tag that training lacks is not trained on."""
        import datasets

        features = []
        all_tags = rows["tags"] if "tags" in rows.column_names else [None] * len(rows)
        for index, (tokens, tags) in enumerate(zip(rows["tokens"], all_tags, strict=True)):
            start = 0
            for part, (ids, first_pieces) in enumerate(_pieces(tokens, tokenizer, max_length)):
                labels = tags[start : start + len(first_pieces)] if tags else []
                start += len(first_pieces)
                features.append(
                    {
                        "input_ids": ids,
                        "first_pieces": first_pieces,
                        "labels": [label2id.get(tag, IGNORED) for tag in labels],
                        "index": index,
                        "part": part,
                    }
                )
        return datasets.Dataset.from_list(features)

    def collate(self, tokenizer) -> Callable:
        import torch

        def collate(rows: list[dict], draws) -> dict:
            width = max(len(row["input_ids"]) for row in rows)
            input_ids = np.full((len(rows), width), tokenizer.pad_token_id)
            attention_mask = np.zeros((len(rows), width), dtype=np.int64)
            labels = np.full((len(rows), width), IGNORED)
            for i, row in enumerate(rows):
                input_ids[i, : len(row["input_ids"])] = row["input_ids"]
                attention_mask[i, : len(row["input_ids"])] = 1
                if row["labels"]:
                    labels[i, row["first_pieces"]] = row["labels"]
            return {
                "input_ids": torch.from_numpy(input_ids),
                "attention_mask": torch.from_numpy(attention_mask),
                "labels": torch.from_numpy(labels),
                "num_targets": int((labels != IGNORED).sum()),
                "num_items": sum(len(row["first_pieces"]) for row in rows),
            }

        return collate

    def read(self, features: list[dict], logits, id2label: dict[int, str]) -> list[list[tuple[str, float]]]:
        """For each word its tag and the probability of it."""
        predictions = []
        for row, row_logits in zip(features, logits.softmax(dim=-1), strict=True):
            probabilities, ids = row_logits[row["first_pieces"]].max(dim=-1)
            pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
            predictions.append([(id2label[label], probability) for label, probability in pairs])
        return predictions

    def join(self, predictions: list[list[tuple[str, float]]]) -> list[tuple[str, float]]:
        return [word for part in predictions for word in part]

    def score(self, rows, predictions, seen: set[str] | None) -> dict[str, dict[str, float]]:
        from toolkit.metrics import Tagging

        unseen = None if seen is None else [[token not in seen for token in tokens] for tokens in rows["tokens"]]
        tags = [[tag for tag, _ in words] for words in predictions]
        return Tagging(keep_in_memory=True).compute(predictions=tags, references=list(rows["tags"]), unseen=unseen)

    def unlabelled(self, inputs: list[str]):
        """Text is split into words as treebanks of English split it: *don't* is *do* and *n't*."""
        import datasets

        from toolkit.data.treebank import SUFFIXES, load_treebank, split_sentences

        sentences = []
        for text in inputs:
            path = Path(text)
            if len(text) < 1000 and path.is_file():
                if suffix_of(path) in SUFFIXES:
                    sentences += load_treebank(text)["tokens"]
                    continue
                check_readable_text(path)
                text = path.read_text(encoding="utf-8")
            sentences += split_sentences(text)
        if not sentences:
            raise InputError("there is no word to tag")
        return datasets.Dataset.from_dict({"tokens": sentences})

    def as_json(self, row: dict, prediction: list[tuple[str, float]]) -> dict:
        tags, probabilities = (list(values) for values in zip(*prediction, strict=True))
        rounded = [round(probability, 4) for probability in probabilities]
        return {**row, "predicted": tags, "probabilities": rounded}

    def hits(self, line: dict) -> tuple[int, int]:
        return sum(p == t for p, t in zip(line["predicted"], line["tags"], strict=True)), len(line["tags"])

    def as_text(self, row: dict, prediction: list[tuple[str, float]]) -> str:
        words = zip(row["tokens"], prediction, strict=True)
        return "\n".join(f"{token}\t{tag}\t{probability:.4f}" for token, (tag, probability) in words)


def _pieces(tokens: list[str], tokenizer, max_length: int | None) -> Iterator[tuple[list[int], list[int]]]:
    """The ids of a sentence and where each word's first piece is; halves of it where it is too long."""
    encoding = tokenizer(tokens, is_split_into_words=True, verbose=False)
    words = encoding.word_ids()
    first_pieces = [i for i, word in enumerate(words) if word is not None and word != words[i - 1]]
    if len(first_pieces) < len(tokens):
        # A word of invisible characters alone leaves no piece.
        found = {words[i] for i in first_pieces}
        tokens = [token if i in found else tokenizer.unk_token for i, token in enumerate(tokens)]
        yield from _pieces(tokens, tokenizer, max_length)
    elif max_length is not None and len(words) > max_length and len(tokens) > 1:
        half = len(tokens) // 2
        yield from _pieces(tokens[:half], tokenizer, max_length)
        yield from _pieces(tokens[half:], tokenizer, max_length)
    else:
        yield encoding["input_ids"][:max_length], first_pieces
