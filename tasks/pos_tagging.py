"""Part-of-speech tagging: one tag a word.

An example: tokens ["The", "dog", "barks", "."], tags ["DET", "NOUN", "VERB", "PUNCT"]. The first piece of a word
carries its tag. The figures are accuracy, accuracy on words that training lacks, F1 of each tag and their mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.base import IGNORED
from tasks.words import NO_WORD, WordsArguments, WordsTask, first_pieces, padded_pieces, words_of
from toolkit.data.sources import read_text, splits_of, suffix_of
from toolkit.errors import InputError


@dataclass(kw_only=True)
class PosArguments(WordsArguments):
    head: Literal["linear", "crf"] = "linear"
    """linear: each tag by itself; crf: the best sequence of tags (Lafferty, McCallum & Pereira 2001)."""
    tag_column: str | None = None
    """Column of the tags: upos, xpos, or a key of FEATS or MISC such as Number (default: upos)."""
    token_column: str | None = None
    """Column of a table that holds the words (default: tokens or words)."""


class PosTagging(WordsTask):
    name = "pos"
    arguments_class = PosArguments
    data_flags = ("tag_column", "token_column")
    model_class = "AutoModelForTokenClassification"
    item = "word"
    baseline_name = "CRF"

    def load(self, source: str, split: str | None, flags: dict[str, Any]):
        from toolkit.data.treebank import load_treebank

        return load_treebank(source, split, flags.get("tag_column"), flags.get("token_column"))

    def splits(self, source: str) -> list[str]:
        from toolkit.data.treebank import SUFFIXES

        return splits_of(source, SUFFIXES)

    def texts(self, rows) -> Iterable[str]:
        return [" ".join(tokens) for tokens in rows["tokens"]]

    def labels(self, rows) -> list[str]:
        return sorted({tag for tags in rows["tags"] for tag in tags})

    def seen(self, rows) -> set[str]:
        return {token for tokens in rows["tokens"] for token in tokens}

    def config_fields(self, arguments: Any) -> dict[str, Any]:
        return {"tagging_head": arguments.head}

    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Sentences too long for the encoder are cut into parts; a tag that training lacks is not trained on."""
        import datasets

        features = []
        all_tags = rows["tags"] if "tags" in rows.column_names else [None] * len(rows)
        for index, (tokens, tags) in enumerate(zip(rows["tokens"], all_tags, strict=True)):
            start = 0
            for part, (ids, words) in enumerate(_pieces(tokens, tokenizer, max_length)):
                num_words = len(first_pieces(words))
                labels = tags[start : start + num_words] if tags else []
                start += num_words
                features.append(
                    {
                        "input_ids": ids,
                        "words": words,
                        "labels": [label2id.get(tag, IGNORED) for tag in labels],
                        "index": index,
                        "part": part,
                    }
                )
        return datasets.Dataset.from_list(features)

    def collate_words(self, rows: list[dict], pad_token_id: int) -> dict[str, Any]:
        import torch

        input_ids, attention_mask = padded_pieces(rows, pad_token_id)
        labels = np.full(input_ids.shape, IGNORED)
        starts = [first_pieces(row["words"]) for row in rows]
        for i, row in enumerate(rows):
            if row["labels"]:
                labels[i, starts[i]] = row["labels"]
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": torch.from_numpy(labels),
            "num_targets": int((labels != IGNORED).sum()),
            "num_items": sum(map(len, starts)),
        }

    def read(self, features: list[dict], logits, model) -> list[list[tuple[str, float]]]:
        """For each word its tag and the probability of it."""
        from torch.nn.utils.rnn import pad_sequence

        starts = [first_pieces(row["words"]) for row in features]
        emissions = [logits_of_row[of_row] for logits_of_row, of_row in zip(logits, starts, strict=True)]
        if hasattr(model, "decode"):
            mask = pad_sequence([e.new_ones(len(e), dtype=bool) for e in emissions], batch_first=True)
            ids, probabilities = model.decode(pad_sequence(emissions, batch_first=True), mask)
        else:
            best = [e.softmax(dim=-1).max(dim=-1) for e in emissions]
            ids, probabilities = [b.indices.tolist() for b in best], [b.values for b in best]
        id2label = model.config.id2label
        return [
            [(id2label[label], probability) for label, probability in zip(row, of_row.tolist(), strict=False)]
            for row, of_row in zip(ids, probabilities, strict=True)
        ]

    def join(self, predictions: list[list[tuple[str, float]]]) -> list[tuple[str, float]]:
        return [word for part in predictions for word in part]

    def score(self, rows, predictions, seen: set[str] | None) -> dict[str, dict[str, float]]:
        from toolkit.metrics.scores import tagging_scores

        unseen = None if seen is None else [[token not in seen for token in tokens] for tokens in rows["tokens"]]
        tags = [[tag for tag, _ in words] for words in predictions]
        return tagging_scores(tags, list(rows["tags"]), unseen)

    def answers(self, rows, predictions) -> tuple[list[str], list[str]]:
        return [tag for tags in rows["tags"] for tag in tags], [tag for words in predictions for tag, _ in words]

    def baseline(self, train_rows, rows) -> list[list[tuple[str, float]]]:
        from tasks.baselines import crf_tags

        predicted = crf_tags(train_rows["tokens"], train_rows["tags"], rows["tokens"])
        return [[(tag, 1.0) for tag in tags] for tags in predicted]

    def unlabelled(self, inputs: Sequence[str | Path]):
        """Text is split into words as treebanks of English split it: *don't* is *do* and *n't*."""
        import datasets

        from toolkit.data.treebank import SUFFIXES, load_sentences, split_sentences

        sentences = []
        for found in inputs:
            if isinstance(found, Path) and suffix_of(found) in SUFFIXES:
                sentences += load_sentences(str(found))
            else:
                sentences += split_sentences(read_text(found) if isinstance(found, Path) else found)
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
        return "".join(f"{token}\t{tag}\t{probability:.4f}\n" for token, (tag, probability) in words)


def _pieces(tokens: list[str], tokenizer, max_length: int | None) -> Iterator[tuple[list[int], list[int]]]:
    """The ids of a sentence and the word of each; halves of it where it is too long."""
    encoding = tokenizer(tokens, is_split_into_words=True, verbose=False)
    words = words_of(encoding)
    if len(found := set(words) - {NO_WORD}) < len(tokens):
        # A word of invisible characters alone leaves no piece.
        tokens = [token if i in found else tokenizer.unk_token for i, token in enumerate(tokens)]
        yield from _pieces(tokens, tokenizer, max_length)
    elif max_length is not None and len(words) > max_length and len(tokens) > 1:
        half = len(tokens) // 2
        yield from _pieces(tokens[:half], tokenizer, max_length)
        yield from _pieces(tokens[half:], tokenizer, max_length)
    else:
        yield encoding["input_ids"][:max_length], words[:max_length]
