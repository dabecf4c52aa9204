"""Part-of-speech tagging: one tag per word.

An example: tokens ["The", "dog", "barks", "."], tags ["DET", "NOUN", "VERB", "PUNCT"]. The first token of a word
carries its tag. Figures: accuracy, accuracy on words that are not in the training data, F1 of each tag and their mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.task import NO_LABEL, Prediction, check_label
from tasks.text_task import NO_WORD, TextTask, TextTaskArguments, first_tokens, words_of_tokens
from toolkit.corpora.tokenization import space_before_words
from toolkit.data.columns import TreebankColumns
from toolkit.data.files import read_text
from toolkit.data.sources import Source
from toolkit.data.splits import suffix_of
from toolkit.data.treebank import SUFFIXES, load_sentences, open_treebank, split_sentences
from toolkit.errors import InputError
from toolkit.metrics.intervals import Bootstrap
from toolkit.metrics.scores import tagging_scores
from toolkit.runs.arguments import Arguments, defaults

MAX_TOKENS = 2048  # of a part of a sentence, where the encoder has no limit of its own, to bound the memory


@dataclass(kw_only=True)
class TaggingHeadArguments(Arguments):
    """head"""

    head: Literal["linear", "crf"] = "linear"
    """linear: each tag by itself; crf: the best sequence of tags (Lafferty, McCallum & Pereira 2001)."""


@dataclass(kw_only=True)
class PosArguments(TextTaskArguments):
    columns: TreebankColumns = defaults(TreebankColumns)
    head: TaggingHeadArguments = defaults(TaggingHeadArguments)


@dataclass(frozen=True)
class TagsPrediction(Prediction):
    """The tag of each word and its probability."""

    tags: list[str]
    probabilities: list[float]

    def as_json(self) -> dict[str, Any]:
        rounded = [round(probability, 4) for probability in self.probabilities]
        return {"predicted": self.tags, "probabilities": rounded}

    def as_text(self, title: str) -> str:
        words = zip(title.split("\t"), self.tags, self.probabilities, strict=True)
        return "".join(f"{word}\t{tag}\t{probability:.4f}\n" for word, tag, probability in words)

    def cells(self) -> list[str]:
        return self.tags


class PosTagging(TextTask):
    name = "pos"
    arguments = PosArguments
    auto_class = "AutoModelForTokenClassification"
    reference_column = "tags"
    item = "word"
    baseline_name = "CRF"

    def open(self, source: str, columns: TreebankColumns) -> Source:
        return open_treebank(source, columns.tag_column, columns.token_column)

    def read_inputs(self, inputs: Sequence[str | Path], skip_broken: bool = False, config=None):
        """Text is split into words as English treebanks split it: *don't* is *do* and *n't*."""
        sentences = []
        for given in inputs:
            if isinstance(given, Path) and suffix_of(given) in SUFFIXES:
                sentences += load_sentences(str(given))
            else:
                sentences += split_sentences(read_text(given) if isinstance(given, Path) else given)
        if not sentences:
            raise InputError("there is no word to tag")
        return [{"tokens": tokens} for tokens in sentences]

    def labels(self, rows) -> set[str]:
        return {tag for tags in rows["tags"] for tag in tags if tag is not None}

    def seen(self, rows) -> set[str]:
        return {token for tokens in rows["tokens"] for token in tokens}

    def config_fields(self, arguments: PosArguments) -> dict[str, Any]:
        return {"tagging_head": arguments.head.head}

    def encode_words(self, rows, tokenizer, label2id: dict[str, int], max_length: int | None):
        """Sentences that are too long are cut into parts; tags that training lacks are ignored."""
        max_length = max_length or MAX_TOKENS
        encoded, space = [], space_before_words(tokenizer)
        for index, row in enumerate(rows):
            start, tags = 0, row.get("tags", [])
            spaced = [*row["tokens"][:1], *(space + token for token in row["tokens"][1:])]
            for part, (ids, words) in enumerate(_tokenize(spaced, tokenizer, max_length)):
                num_words = len(first_tokens(words))
                labels = tags[start : start + num_words]
                start += num_words
                encoded.append(
                    {
                        "input_ids": ids,
                        "words": words,
                        "labels": [label2id.get(tag, NO_LABEL) for tag in labels],
                        "index": index,
                        "part": part,
                    }
                )
        return encoded

    def collate_labels(self, encoded: list[dict], num_tokens: int) -> tuple[np.ndarray, int]:
        labels, num_words = np.full((len(encoded), num_tokens), NO_LABEL), 0
        for i, row in enumerate(encoded):
            starts = first_tokens(row["words"])
            num_words += len(starts)
            if row["labels"]:
                labels[i, starts] = row["labels"]
        return labels, num_words

    def decode(self, encoded: list[dict], outputs: Any, model, processor) -> list[TagsPrediction]:
        from torch.nn.utils.rnn import pad_sequence

        starts = [first_tokens(row["words"]) for row in encoded]
        emissions = [logits[of_row] for logits, of_row in zip(outputs, starts, strict=True)]
        if hasattr(model, "decode"):
            mask = pad_sequence([e.new_ones(len(e), dtype=bool) for e in emissions], batch_first=True)
            ids, probabilities = model.decode(pad_sequence(emissions, batch_first=True), mask)
        else:
            best = [e.softmax(dim=-1).max(dim=-1) for e in emissions]
            ids, probabilities = [b.indices.tolist() for b in best], [b.values for b in best]
        id2label = model.config.id2label
        return [
            TagsPrediction([id2label[label] for label in row], of_row.tolist()[: len(row)])
            for row, of_row in zip(ids, probabilities, strict=True)
        ]

    def words_of(self, row: dict[str, Any], processor) -> list[str]:
        return row["tokens"]

    def predicted(
        self, prediction: TagsPrediction, words: list[str], label: str | None, folder: str, model
    ) -> list[Any]:
        from toolkit.explain.texts import Predicted

        label2id = model.config.label2id
        tags = prediction.tags if label is None else [check_label(label, folder, list(label2id))] * len(words)
        return [Predicted(tag, label2id[tag], word) for tag, word in zip(tags, words, strict=True)]

    def join(self, parts: list[TagsPrediction]) -> TagsPrediction:
        probabilities = [probability for part in parts for probability in part.probabilities]
        return TagsPrediction([tag for part in parts for tag in part.tags], probabilities)

    def read_prediction(self, line: dict[str, Any]) -> TagsPrediction:
        return TagsPrediction(line["predicted"], line["probabilities"])

    def figures(self, rows, predictions: list[Any], seen: set[str] | None = None) -> dict[str, Bootstrap]:
        unseen = None
        if seen is not None:
            unseen = _of_words_with_a_tag(rows, [[token not in seen for token in tokens] for tokens in rows["tokens"]])
        predicted = [prediction.tags for prediction in predictions]
        return tagging_scores(_of_words_with_a_tag(rows, predicted), _of_words_with_a_tag(rows, rows["tags"]), unseen)

    def confusion(self, rows, predictions: list[Any]) -> tuple[list[str], list[str]]:
        right = _of_words_with_a_tag(rows, rows["tags"])
        predicted = _of_words_with_a_tag(rows, [prediction.tags for prediction in predictions])
        return list(chain.from_iterable(right)), list(chain.from_iterable(predicted))

    def baseline(self, train_rows, rows) -> list[TagsPrediction]:
        from tasks.baselines import crf_tags

        predicted = crf_tags(train_rows["tokens"], train_rows["tags"], rows["tokens"])
        return [TagsPrediction(tags, [1.0] * len(tags)) for tags in predicted]

    def describe(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": row["tokens"]}

    def title(self, row: dict[str, Any]) -> str:
        return "\t".join(row["tokens"])

    def header(self, line: dict[str, Any]) -> list[str]:
        return line["tokens"]


def _of_words_with_a_tag(rows, values: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Of values for the words of each sentence, those for the words that have a tag."""
    has_tag = ([tag is not None for tag in tags] for tags in rows["tags"])
    return [list(compress(of_row, mask)) for of_row, mask in zip(values, has_tag, strict=True)]


def _tokenize(tokens: list[str], tokenizer, max_length: int | None) -> Iterator[tuple[list[int], list[int]]]:
    """The token ids of a sentence and the word of each; halves of the sentence if it is too long."""
    encoding = tokenizer(tokens, is_split_into_words=True, verbose=False)
    words = words_of_tokens(encoding)
    if len(found := set(words) - {NO_WORD}) < len(tokens):
        # A word of invisible characters only leaves no token.
        tokens = [token if i in found else tokenizer.unk_token for i, token in enumerate(tokens)]
        yield from _tokenize(tokens, tokenizer, max_length)
    elif max_length is not None and len(words) > max_length and len(tokens) > 1:
        half = len(tokens) // 2
        yield from _tokenize(tokens[:half], tokenizer, max_length)
        yield from _tokenize(tokens[half:], tokenizer, max_length)
    else:
        yield encoding["input_ids"][:max_length], words[:max_length]
