"""Sequence to sequence: a text from a text, such as a pronunciation from a word, or an inflected form from a lemma.

An example: source "colonel", targets ["K ER1 N AH0 L"], of words; or source "<N><GEN><SG>talo" with tags, targets
["talon"], of characters. A source may have several right answers. Figures: exact match, word error rate, edit distance
per symbol, chrF (`toolkit/metrics/sequences.py`).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.task import NO_LABEL, FinetuneArguments, Prediction, SearchArguments, Task
from toolkit.corpora.symbols import Units, encode_sources, split_tags, symbols_of, unknown_symbols
from toolkit.corpora.tokenization import SPECIAL_TOKENS
from toolkit.data.files import read_text
from toolkit.data.pairs import PairColumns, clean, open_pairs, read_sources
from toolkit.data.sources import Source
from toolkit.data.splits import suffix_of
from toolkit.data.table_files import TABLE_BUILDERS
from toolkit.errors import InputError, check_flags
from toolkit.hub.download import local_copy
from toolkit.metrics.intervals import Bootstrap
from toolkit.metrics.sequences import sequence_scores
from toolkit.modalities.arguments import TextEncoderArguments
from toolkit.modalities.text import max_length
from toolkit.models.families import SCRATCH
from toolkit.runs.arguments import Arguments, defaults, flags_of, with_flags
from toolkit.runs.results import is_main_process
from toolkit.training.arguments import TrainingArguments
from toolkit.transfer.encoder_decoder import RECURRENT, TRANSFORMER, DecoderArguments, PairTokenizers

KEPT_COLUMNS = ("source_column", "target_column", "feature_columns", "remove")  # which other data is read with
ROOM = 2  # longest generated target, as a multiple of the longest in the training data


@dataclass(kw_only=True)
class UnitArguments(Arguments):
    """units"""

    source_units: Units = "characters"
    """What a new tokenizer makes of sources: characters, words between spaces, or pieces of words. With characters,
    the tokenizer of a pretrained encoder gets each character as a word; otherwise the text as it is."""
    target_units: Units = "characters"
    """What a new tokenizer makes of targets; a pretrained decoder keeps its own. symbol_error_rate counts characters,
    or words with the other two."""
    vocab_size: int = 8192
    """Largest vocabulary of a new tokenizer of words or pieces, with special tokens."""

    def check(self) -> None:
        check_flags(self, "vocab_size", lambda value: value > len(SPECIAL_TOKENS), f"more than {len(SPECIAL_TOKENS)}")


@dataclass(kw_only=True)
class SequenceFigure(Arguments):
    """decision"""

    figure: Literal["exact_match", "chrf"] = "exact_match"
    """Figure by which checkpoints and learning rates are chosen on validation data, and encoders compared."""


@dataclass(kw_only=True)
class Seq2SeqArguments(FinetuneArguments):
    columns: PairColumns = defaults(PairColumns)
    options: TextEncoderArguments = defaults(TextEncoderArguments, hidden=("layers",))
    decoder: DecoderArguments = defaults(DecoderArguments)
    units: UnitArguments = defaults(UnitArguments)
    search: SearchArguments = defaults(SearchArguments, num_beams=5, length_penalty=1.0)
    decision: SequenceFigure = defaults(SequenceFigure)
    training: TrainingArguments = defaults(TrainingArguments, batch_size=64, learning_rate=2e-3)

    @property
    def metric(self) -> str:
        return self.decision.figure

    def from_scratch(self) -> "Seq2SeqArguments":
        decoder = self.decoder.decoder
        is_new = decoder in (*RECURRENT, TRANSFORMER) or decoder.startswith(SCRATCH)
        return with_flags(super().from_scratch(), decoder=decoder if is_new else SCRATCH + decoder)


@dataclass(frozen=True)
class TargetPrediction(Prediction):
    """The targets found by the search, best first, and their probabilities. With a length penalty other than 0, the
    order need not be that of the probabilities."""

    targets: list[str]
    probabilities: list[float]
    units: Units

    def as_json(self) -> dict[str, Any]:
        found = zip(self.targets, self.probabilities, strict=True)
        candidates = [{"target": target, "probability": round(probability, 6)} for target, probability in found]
        return {"predicted": self.targets[0], "candidates": candidates, "units": self.units}

    def as_text(self, title: str) -> str:
        found = zip(self.targets, self.probabilities, strict=True)
        return "\n".join(f"{target}\t{probability:.4f}\t{title}" for target, probability in found)

    def cells(self) -> list[str]:
        return self.targets[:1]

    def best(self, number: int | None) -> "TargetPrediction":
        return TargetPrediction(self.targets[:number], self.probabilities[:number], self.units)


class Seq2Seq(Task):
    name = "seq2seq"
    modality_name = "text"
    arguments = Seq2SeqArguments
    auto_class = "AutoModelForSeq2SeqLM"
    reference_column = "targets"
    item = "pair"
    generates = True

    def open(self, source: str, columns: PairColumns) -> Source:
        return open_pairs(source, columns)

    def counted(self, rows) -> None:
        return None  # targets are too many to be listed as labels are

    def columns_of(self, columns: Any, config) -> PairColumns:
        """Those of the training data, unless others are named."""
        where = getattr(config, "toolkit_columns", {}).get("where")
        if where and columns.where is None and is_main_process():
            print(f"the model was trained on rows with {', '.join(where)}; --where selects rows here", file=sys.stderr)
        return _with_learned(columns, config)

    def read_inputs(self, inputs: Sequence[str | Path], skip_broken: bool = False, config=None):
        """Each text is a source, and so is each line of a text file and each row of a table."""
        texts: list[str] = []
        for given in inputs:
            if isinstance(given, str):
                texts.append(given)
            elif suffix_of(given) in TABLE_BUILDERS:
                texts += read_sources(str(given), _with_learned(PairColumns(), config))
            else:
                texts += read_text(given).split("\n")
        texts = [text for text in map(clean, texts) if text]
        if not texts:
            raise InputError("there is no source")
        return [{"source": text} for text in texts]

    def load_model(self, arguments: Seq2SeqArguments, train_rows, **config_fields: Any) -> tuple[Any, PairTokenizers]:
        from transformers import GenerationConfig

        from toolkit.transfer.encoder_decoder import build_encoder_decoder

        tags, sources = zip(*map(split_tags, train_rows["source"]), strict=True)
        targets = list(chain.from_iterable(train_rows["targets"]))
        units = (arguments.units.source_units, arguments.units.target_units)
        if len(symbols := {symbol for target in targets for symbol in symbols_of(target, units[1])}) < 2:
            raise InputError(f"{arguments.data.data}: all targets consist of one symbol, '{symbols.pop()}'")
        model, tokenizers = build_encoder_decoder(
            arguments.encoder.encoder,
            arguments.decoder,
            arguments.options,
            units,
            arguments.units.vocab_size,
            (sources, targets),
            sorted(set(chain.from_iterable(tags))),
            toolkit_source_units=units[0],
            toolkit_units=units[1],
            toolkit_columns={name: getattr(arguments.columns, name) for name in (*KEPT_COLUMNS, "where")},
            **config_fields,
        )
        most = ROOM * max(map(len, tokenizers.target(targets)["input_ids"]))
        model.generation_config = GenerationConfig(
            max_new_tokens=min(most, model.longest_target or most),
            pad_token_id=model.config.pad_token_id,
            decoder_start_token_id=model.config.decoder_start_token_id,
            eos_token_id=model.config.eos_token_id,
        )
        self.set_search(model, arguments.search)
        return model, tokenizers

    def set_search(self, model, search: SearchArguments) -> None:
        """Raises `InputError` also if the decoder has no place for so many tokens."""
        wanted, limit = search.max_new_tokens, model.longest_target
        if wanted is not None and limit is not None and wanted > limit:
            raise InputError(f"--max_new_tokens {wanted}: the decoder takes {limit} at most")
        super().set_search(model, search)

    def load_finetuned(self, folder: str) -> tuple[Any, PairTokenizers]:
        from toolkit.transfer.encoder_decoder import load_encoder_decoder

        return load_encoder_decoder(local_copy(folder))

    def encode(self, rows, processor: PairTokenizers, model) -> list[dict[str, Any]]:
        by_character = model.config.source_by_character
        limits = max_length(processor.source, model.encoder.model), model.longest_target
        texts = [row["source"] for row in rows]
        answers = [row.get("targets", []) for row in rows]
        flat = [target for targets in answers for target in targets]
        of_targets = iter(processor.target(flat, verbose=False)["input_ids"] if flat else [])
        encoded = []
        sources = encode_sources(processor.source, texts, by_character)
        for index, (text, ids, of_row) in enumerate(zip(texts, sources, answers, strict=True)):
            targets = [next(of_targets)[1:] for _ in of_row]
            for what, limit, found in zip(("source", "target"), limits, ([ids], targets), strict=True):
                if limit is not None and (length := max(map(len, found), default=0)) > limit:
                    raise InputError(f"the {what} of {text!r} has {length} tokens, the model takes {limit} at most")
            encoded.append({"input_ids": ids, "targets": targets, "index": index, "part": 0})
        return encoded

    def select_known(self, rows, processor: PairTokenizers, config, skip_broken: bool):
        """Rows without characters or tags that training did not have. Unknown words are only named: they are many."""
        kept: list[dict[str, Any]] = []
        units: Units = getattr(config, "toolkit_source_units", "characters")
        for row in rows:
            unknown = unknown_symbols(processor.source, row["source"], units)
            message = f"{row['source']!r}: the model has never seen {', '.join(map(repr, unknown))}"
            if unknown and units != "words":
                if not skip_broken:
                    raise InputError(f"{message}; --skip_broken leaves such sources out")
                print(f"left out {message}", file=sys.stderr)
                continue
            if unknown:
                print(f"warning: {message}", file=sys.stderr)
            kept.append(row)
        return kept

    def lengths(self, encoded) -> list[int]:
        return [len(row["input_ids"]) + max(map(len, row["targets"]), default=0) for row in encoded]

    def collate(self, encoded, keys, processor: PairTokenizers, arguments: Seq2SeqArguments | None) -> dict[str, Any]:
        """With `arguments`, to train on, a source that has several right answers gets one of them, anew each epoch."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        batch = {**self.modality.collate(encoded, processor.source), "num_items": len(encoded)}
        if arguments is None:
            return batch
        seed = arguments.training.seed
        chosen = [
            row["targets"][int(np.random.default_rng(key.seed(seed)).integers(len(row["targets"])))]
            for row, key in zip(encoded, keys, strict=True)
        ]
        labels = pad_sequence(list(map(torch.tensor, chosen)), batch_first=True, padding_value=NO_LABEL)
        return {**batch, "labels": labels, "num_targets": sum(map(len, chosen))}

    def forward(self, model, inputs: dict[str, Any], while_training: bool = False):
        """Sequences (B * n, T), start token included, for the n best targets of each row, and their log-probabilities
        (B * n,); while training, sequences of greedy search (B, T), and None."""
        if while_training:
            return model.generate(**inputs, num_beams=1), None
        sequences = model.generate(**inputs, num_return_sequences=model.generation_config.num_beams)
        return sequences, model.log_probabilities(inputs, sequences)

    def decode(self, encoded: list[dict], outputs: Any, model, processor: PairTokenizers) -> list[TargetPrediction]:
        sequences, scores = outputs
        texts = processor.target.batch_decode(sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        n_best = len(texts) // len(encoded)
        probabilities = [1.0] * len(texts) if scores is None else scores.exp().tolist()
        units = model.config.toolkit_units
        return [
            TargetPrediction(texts[first : first + n_best], probabilities[first : first + n_best], units)
            for first in range(0, len(texts), n_best)
        ]

    def read_prediction(self, line: dict[str, Any]) -> TargetPrediction:
        targets, probabilities = zip(*(found.values() for found in line["candidates"]), strict=True)
        return TargetPrediction(list(targets), list(probabilities), line["units"])

    def figures(self, rows, predictions: list[Any], seen: set[str] | None = None) -> dict[str, Bootstrap]:
        units = predictions[0].units
        predicted = [prediction.targets[0] for prediction in predictions]
        return sequence_scores(predicted, rows["targets"][:], partial(symbols_of, units=units))

    def explain(
        self, folder: str, item: str, label: str | None, layers: Sequence[str] | None, output_dir: Path
    ) -> tuple[str, list[Path]]:
        import torch

        from toolkit.explain.texts import explain_generation

        for flag, value in (("label", label), ("layers", layers and layers[0])):
            if value:
                raise InputError(f"--{flag} {value}: does not go with a sequence-to-sequence model")
        model, processor = self.load_finetuned(folder)
        row = self.read_one(item, model.config)
        self.select_known([row], processor, model.config, skip_broken=False)
        (encoded,) = self.encode([row], processor, model.eval())
        ids = torch.tensor(encoded["input_ids"])
        with torch.no_grad():
            outputs = self.forward(model, {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])})
        (prediction,) = self.decode([encoded], outputs, model, processor)
        sequence = outputs[0][0, 1:]
        ends = (sequence == model.config.eos_token_id).nonzero()
        target = sequence[: int(ends[0]) + 1] if len(ends) else sequence
        tokens, symbols = (
            tokenizer.convert_ids_to_tokens(found.tolist())
            for tokenizer, found in ((processor.source, ids), (processor.target, target))
        )
        title = f"{row['source']} → {prediction.targets[0]}"
        return prediction.best(1).as_text(row["source"]), explain_generation(
            model, ids, tokens, target, symbols, title, output_dir
        )

    def describe(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"source": row["source"]}

    def right_cells(self, reference: list[str]) -> list[list[str]]:
        return [reference]

    def title(self, row: dict[str, Any]) -> str:
        return row["source"]

    def caption(self, line: dict[str, Any]) -> str:
        return line["source"]


def _with_learned(columns: PairColumns, config) -> PairColumns:
    """The columns that were named, and for the others those of the training data of a checkpoint."""
    learned = getattr(config, "toolkit_columns", {})
    given = {name: getattr(columns, name) for name in flags_of(PairColumns)}
    missing = {name: learned.get(name) for name in KEPT_COLUMNS if given[name] is None}
    return PairColumns(**{**given, **missing})
