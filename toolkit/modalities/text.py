"""Text: tokenizers, padding, and the mean of token states as the feature vector of a text.

The mean over tokens is that of Reimers & Gurevych (2019), "Sentence-BERT", https://arxiv.org/abs/1908.10084. For
static word vectors rare words get a higher weight: Arora, Liang & Ma (2017), "A simple but tough-to-beat baseline for
sentence embeddings", https://openreview.net/forum?id=SyK00v5xx, weight a word of probability p by a / (a + p). By
Zipf's law p is proportional to 1 / rank, and the rank is known from the order of the vocabulary, so the weight is rank
/ (rank + 100); their a of 1e-3 corresponds to about 100.

Shape legend: N texts, T tokens, V vocabulary, D features.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.columns import TextColumn
from toolkit.data.files import read_text
from toolkit.data.labelled_text import open_labelled_text
from toolkit.data.sources import Source
from toolkit.data.splits import suffix_of
from toolkit.data.summary import say_empty
from toolkit.data.table_files import TABLE_BUILDERS
from toolkit.errors import InputError, first_line
from toolkit.modalities.arguments import TextEncoderArguments
from toolkit.modalities.base import Modality
from toolkit.models.families import PREFIX, family_of, family_of_preset, presets

HALF_WEIGHT_RANK = 100  # rank of the word whose weight is a half


class TextModality(Modality):
    name = "text"
    main_input_names = ("input_ids",)
    columns = TextColumn
    encoder_arguments = TextEncoderArguments
    few_shot_head = "FewShotForSequenceClassification"
    items_are_texts = True
    sample_license = "parts of English Wikipedia, CC BY-SA, and the Lee news articles, as gensim installs them"
    labelled_sample_license = "Apache-2.0, as this toolkit"

    def open_labelled(
        self, source: str, columns: Any, label_column: str | None, group_column: str | None = None
    ) -> Source:
        if group_column is not None:
            raise InputError(f"--within {group_column}: goes with images and recordings")
        return open_labelled_text(source, columns.text_column, label_column)

    def open_unlabelled(self, source: str, columns: Any) -> Source:
        from toolkit.corpora.text import open_text

        opened = open_text(source, columns.text_column)
        return opened.with_rows(lambda rows: rows.filter(lambda text: bool(text.strip()), input_columns="text"))

    def read_inputs(self, inputs: Sequence[str | Path], skip_broken: bool = False):
        """Each text is one item, and so is each line of a text file and each row of a table.

        Prints on stderr how many rows of a table have no text; empty lines are left out without a word.
        """
        from toolkit.corpora.text import load_text

        texts: list[str] = []
        for given in inputs:
            if isinstance(given, str):
                texts.append(given)
            elif suffix_of(given) in TABLE_BUILDERS:
                rows = load_text(str(given), on_error="skip" if skip_broken else "fail")["text"][:]
                say_empty(str(given), len(rows), sum(not text.strip() for text in rows), "text")
                texts += rows
            else:
                texts += read_text(given).split("\n")
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise InputError("there is no text to classify")
        return [{"text": text} for text in texts]

    def new_processor(self, preset: str, options: Any, train_rows):
        from toolkit.corpora.tokenization import load_tokenizer
        from toolkit.corpora.tokenizer_training import train_tokenizer

        if options.tokenizer is not None:
            return load_tokenizer(options.tokenizer)
        if train_rows is None:
            raise InputError(f"--encoder scratch:{preset}: give a --tokenizer too")
        kind: Any = family_of_preset(preset).tokenizer
        size = presets()[preset].default_size
        is_text = "text" in train_rows.column_names
        texts = train_rows["text"] if is_text else [" ".join(tokens) for tokens in train_rows["tokens"]]
        with tempfile.TemporaryDirectory() as folder:
            train_tokenizer(texts, kind, size, min_frequency=1).save_pretrained(folder)
            return load_tokenizer(folder)

    def new_config(self, preset: str, options: Any, processor):
        from toolkit.corpora.tokenization import spells_words

        if family_of_preset(preset).tokenizer == "bytes" and not spells_words(processor):
            raise InputError(
                f"{options.tokenizer}: the tokenizer does not fit {preset}, which reads bytes of words; "
                "make one with: toolkit tokenizer --kind bytes"
            )
        return presets()[preset].config(len(processor))

    def load_processor(self, source: str, config, options: Any):
        from toolkit.corpora.tokenization import load_tokenizer

        return load_tokenizer(options.tokenizer or source)

    def apply_options(self, name: str, config, processor, options: Any) -> tuple[Any, Any, bool]:
        mixes_layers = options.layers == "mix" and not config.model_type.startswith(PREFIX)
        if mixes_layers:
            from toolkit.models.layer_mix import LayerMixConfig

            config = LayerMixConfig(encoder=config.to_dict())
        if len(processor) > getattr(config, "vocab_size", len(processor)):
            raise InputError(
                f"{options.tokenizer or name}: the tokenizer has {len(processor)} entries and does not fit the "
                f"encoder {name}, which has {config.vocab_size}; give the one that it was pretrained with"
            )
        return config, processor, mixes_layers

    def finish(self, model, processor, train_rows, is_scratch: bool) -> None:
        if (
            getattr(model.config, "pad_token_id", 0) is None
        ):  # as of a GPT; classifiers look for the last token before it
            model.config.pad_token_id = processor.pad_token_id
        if is_scratch and hasattr(model.base_model, "mark_words"):
            from toolkit.corpora.tokenization import continues_word

            model.base_model.mark_words(continues_word(processor))
        encoder = getattr(model.config, "encoder", None) or {}
        model_type = encoder.get("model_type", model.config.model_type)
        if family_of(model_type) is None:
            self._try(model, model_type, processor)

    def _try(self, model, model_type: str, processor) -> None:
        """Raises `InputError` if a model that is not of `FAMILIES` cannot compute with a batch of texts, or if what it
        computes for a text depends on the padding."""
        import torch

        what, is_training = f"{type(model).__name__} of type {model_type} cannot be used on texts", model.training
        batches = [
            self.collate(self.encode(texts, processor, model), processor) for texts in (["a"], ["a", "a b c d"])
        ]
        try:
            with torch.no_grad():
                alone, padded = (model.eval()(**inputs)[0] for inputs in batches)
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{what}: {first_line(error)}") from None
        finally:
            model.train(is_training)
        padded = padded[:1, : alone.shape[1]]
        if not torch.allclose(alone, padded, rtol=1e-2, atol=1e-3 * float(alone.abs().max())):
            raise InputError(f"{what}: what it computes for a text changes if the text is padded on the right")

    def encode(self, items: Sequence[Any], processor, model) -> list[dict[str, Any]]:
        for number, text in enumerate(items, start=1):
            if not isinstance(text, str):
                raise InputError(f"item {number}: {type(text).__name__}, expected a text, which the encoder reads")
            if not text.strip():
                raise InputError(f"item {number}: the text is empty")
        limit = max_length(processor, model)
        encoding = processor(list(items), truncation=limit is not None, max_length=limit, verbose=False)
        return [{"input_ids": ids, "size": len(ids)} for ids in encoding["input_ids"]]

    def collate(self, encoded: Sequence[dict[str, Any]], processor) -> dict[str, Any]:
        inputs = processor.pad({"input_ids": [row["input_ids"] for row in encoded]}, return_tensors="pt")
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}

    def pooling(self, model, processor) -> Callable[[dict[str, Any]], Any]:
        return MeanOfTokens(model, processor)


def max_length(tokenizer, model) -> int | None:
    """How many tokens model and tokenizer allow; None without a limit."""
    from toolkit.corpora.tokenization import WITHOUT_LIMIT

    positions = getattr(model.config, "max_position_embeddings", None) or WITHOUT_LIMIT
    positions = positions if positions > 0 else WITHOUT_LIMIT  # -1 in XLNet
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1  # RoBERTa counts positions from there
    limit = min(tokenizer.model_max_length or WITHOUT_LIMIT, positions)
    return limit if limit < WITHOUT_LIMIT else None


class MeanOfTokens:
    """The feature vector of a text: the weighted mean of the last hidden states, (N, D).

    For BERT and similar encoders all tokens count alike. For the toolkit's own encoders the mean is over words; with
    static word vectors a word's weight grows with its rank, and a word without a vector has none.
    """

    def __init__(self, model, tokenizer):
        self.model = model
        weights, continues = token_weights(tokenizer, model.config.model_type)
        self.weights, self.continues = weights.to(model.device), continues.to(model.device)

    def __call__(self, inputs: dict[str, Any]):
        from toolkit.models.subwords import mean_of_tokens

        states = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        return mean_of_tokens(states, inputs["input_ids"], inputs["attention_mask"], self.weights, self.continues)


def token_weights(tokenizer, model_type: str):
    """The weight of each vocabulary entry in the mean of a text, (V,), and whether it continues a word, (V,)."""
    import torch

    from toolkit.corpora.tokenization import continues_word

    weights = torch.ones(len(tokenizer))
    if not model_type.startswith(PREFIX):
        return weights, torch.zeros(len(tokenizer), dtype=torch.bool)
    continues = torch.from_numpy(continues_word(tokenizer))
    family = family_of(model_type)
    if family is not None and family.first_word_id is not None:
        ranks = (torch.arange(len(tokenizer)) - family.first_word_id + 1).clamp(min=1)  # 1 for single characters
        weights = ranks / (ranks + HALF_WEIGHT_RANK)
        weights[tokenizer.unk_token_id] = 0
    weights[continues] = 0
    weights[[i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id]] = 0
    return weights, continues
