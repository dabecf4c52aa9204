"""Build a sequence-to-sequence model from a named encoder and a new or pretrained decoder.

Starting both from pretrained models follows Rothe, Narayan & Severyn (2020), "Leveraging pre-trained checkpoints for
sequence generation tasks", https://arxiv.org/abs/1907.12461, and of Ramachandran, Liu & Le (2017), "Unsupervised
pretraining for sequence to sequence learning", https://aclanthology.org/D17-1039.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.corpora.symbols import Units, train_symbol_tokenizer
from toolkit.corpora.tokenization import byte_decoder, load_tokenizer, spells_words, wrap
from toolkit.errors import InputError, check_positive, check_share
from toolkit.modalities import MODALITIES
from toolkit.models.families import PREFIX, SCRATCH, bert_config, family_of_preset, presets
from toolkit.runs.arguments import Arguments
from toolkit.transfer.encoders import load_config, load_encoder, load_model

TARGET_TOKENIZER = "target_tokenizer.json"  # in the folder of a model, beside the tokenizer of the source
TRANSFORMER, RECURRENT = "transformer", ("rnn", "gru", "lstm")
LANGUAGE_MODELS = ("ForPreTraining", "ForMaskedLM", "ForCausalLM", "LMHeadModel")  # how their names end
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
ATTENDS_TO_ENCODER = {"is_decoder": True, "add_cross_attention": True}


@dataclass(kw_only=True)
class DecoderArguments(Arguments):
    """decoder"""

    decoder: str = "lstm"
    """rnn, gru, lstm or transformer, with random weights; or the folder or Hub id of a language model to start from:
    a recurrent network (pretrain rnn), whose forward direction is used, or a BERT."""
    attention: Literal["none", "additive", "multiplicative"] = "additive"
    """How a recurrent decoder reads the states of the encoder: additive (Bahdanau et al. 2015), multiplicative (Luong
    et al. 2015), or not at all, with one vector for the whole source (Sutskever et al. 2014)."""
    num_decoder_layers: int | None = None
    """Number of layers of a new decoder (default: 2, and for a Transformer that of the encoder, at least 2)."""
    decoder_hidden_size: int | None = None
    """Width of a new decoder (default: hidden_size of the encoder)."""
    dropout: float | None = None
    """Dropout of the encoder and of the decoder, except a BERT decoder, which keeps its own (default: 0.3 for a
    recurrent decoder, 0.1 for a new Transformer, and that of its configuration for the encoder)."""
    label_smoothing: float = 0.0
    """Label smoothing (Szegedy et al. 2016)."""

    def check(self) -> None:
        check_positive(self, "num_decoder_layers decoder_hidden_size")
        check_share(self, "dropout label_smoothing")


class PairTokenizers:
    """The tokenizer of sources and that of targets, saved beside each other."""

    def __init__(self, source, target):
        self.source, self.target = source, target

    def save_pretrained(self, folder: str | Path) -> None:
        self.source.save_pretrained(folder)
        self.target.backend_tokenizer.save(str(Path(folder) / TARGET_TOKENIZER))

    @classmethod
    def load(cls, folder: Path) -> "PairTokenizers":
        """Raises `InputError` if one of them is missing."""
        from tokenizers import Tokenizer

        if not (folder / TARGET_TOKENIZER).is_file():
            raise InputError(f"{folder}: has no {TARGET_TOKENIZER}, expected a checkpoint of toolkit finetune seq2seq")
        return cls(load_tokenizer(folder), wrap(Tokenizer.from_file(str(folder / TARGET_TOKENIZER))))


def build_encoder_decoder(
    name: str,
    flags: DecoderArguments,
    options: Any,
    units: tuple[Units, Units],
    vocab_size: int,
    texts: tuple[Sequence[str], Sequence[str]],
    tags: Sequence[str],
    **config_fields: Any,
) -> tuple[Any, PairTokenizers]:
    """A sequence-to-sequence model, and its tokenizers. Random weights come from torch's generator: seed it first.

    Args:
        name: The encoder: a folder, a Hub id or a `scratch:` name.
        flags: What the decoder is.
        options: Flags of a text encoder, such as the tokenizer of a scratch preset.
        units: What sources and targets are made of, for new tokenizers.
        vocab_size: Largest number of words or pieces of a new tokenizer.
        texts: Sources without tags, and targets, to which new tokenizers are fitted.
        tags: All tags of sources.
        config_fields: Further fields of the configuration.

    Raises:
        InputError: Encoder or decoder cannot be loaded or do not go together with their tokenizers.
    """
    from toolkit.models.seq2seq import Seq2SeqConfig, Seq2SeqForConditionalGeneration

    encoder, source, by_character = _load_source(name, flags, options, units[0], vocab_size, texts[0], tags)
    target, fields, pretrained = _load_target(flags, units[1], vocab_size, texts[1], encoder.config)
    config = Seq2SeqConfig(
        encoder=encoder.config.to_dict(),
        encoder_width=_width(encoder),
        vocab_size=len(target),
        label_smoothing=flags.label_smoothing,
        attention=flags.attention,
        pad_token_id=target.pad_token_id,
        decoder_start_token_id=target.cls_token_id,
        eos_token_id=target.sep_token_id,
        source_by_character=by_character,
        **fields,
    )
    for field, value in config_fields.items():
        setattr(config, field, value)
    model = Seq2SeqForConditionalGeneration(config)
    model.encoder.set_model(encoder)
    if pretrained is not None:
        model.decoder.load_pretrained(pretrained)
    return model, PairTokenizers(source, target)


def load_encoder_decoder(folder: Path) -> tuple[Any, PairTokenizers]:
    """A fine-tuned sequence-to-sequence model, and its tokenizers. Raises `InputError`."""
    config = load_config(str(folder))
    return load_model(str(folder), "AutoModelForSeq2SeqLM", config), PairTokenizers.load(folder)


def _load_source(
    name: str,
    flags: DecoderArguments,
    options: Any,
    units: Units,
    vocab_size: int,
    texts: Sequence[str],
    tags: Sequence[str],
) -> tuple[Any, Any, bool]:
    """The encoder, its tokenizer, and whether that gets each character of a source as a word."""
    preset = name.removeprefix(SCRATCH)
    is_new = name.startswith(SCRATCH) and preset in presets("text") and not options.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        if is_new:
            _new_tokenizer(preset, texts, units, vocab_size, tags).save_pretrained(folder)
            options = dataclasses.replace(options, tokenizer=folder)
        encoder, tokenizer = load_encoder(name, "AutoModel", MODALITIES["text"], options)
    if flags.dropout is not None:
        _set_dropout(encoder, flags.dropout)
    reads_bytes = spells_words(tokenizer)
    if not reads_bytes:
        _add_tags(encoder, tokenizer, tags)
    reads_characters = is_new and not reads_bytes
    reads_characters |= reads_bytes and encoder.config.model_type == PREFIX + "rnn"  # a state for each byte
    return encoder, tokenizer, units == "characters" and not reads_characters


def _load_target(
    flags: DecoderArguments, units: Units, vocab_size: int, texts: Sequence[str], encoder_config
) -> tuple[Any, dict[str, Any], Any]:
    """The tokenizer of targets, the fields of the configuration for the decoder, and the language model that it starts
    from, if it does."""
    name = flags.decoder.removeprefix(SCRATCH)
    if flags.decoder in (*RECURRENT, TRANSFORMER):
        tokenizer, pretrained = train_symbol_tokenizer(texts, units, vocab_size), None
        fields = _new_decoder(flags, encoder_config, len(tokenizer))
    elif "/" not in name and not Path(name).is_dir():
        kinds = ", ".join((*RECURRENT, TRANSFORMER))
        raise InputError(f"--decoder {flags.decoder}: expected {kinds}, a folder or a Hub id")
    else:
        tokenizer = _target_tokenizer(name, texts)
        fields, pretrained = _pretrained_decoder(name, flags)
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise InputError(f"--decoder {flags.decoder}: its tokenizer has no tokens for the start and the end of a text")
    return tokenizer, fields, pretrained


def _set_dropout(encoder, dropout: float) -> None:
    """Change all dropout of an encoder, also of its attention."""
    from torch import nn

    for field in DROPOUTS:
        if hasattr(encoder.config, field):
            setattr(encoder.config, field, dropout)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def _width(encoder) -> int:
    """The width of the states of an encoder."""
    import torch

    ids = torch.tensor([[encoder.config.pad_token_id or 0]])
    with torch.no_grad():
        return encoder.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.shape[-1]


def _new_tokenizer(preset: str, texts: Sequence[str], units: Units, vocab_size: int, tags: Sequence[str]):
    """A tokenizer for a preset with random weights: one of `units`, or of bytes if the encoder reads nothing else."""
    from toolkit.corpora.tokenizer_training import train_tokenizer

    if family_of_preset(preset).tokenizer == "bytes":
        return train_tokenizer([], "bytes")
    return train_symbol_tokenizer(texts, units, vocab_size, tags)


def _add_tags(encoder, tokenizer, tags: Sequence[str]) -> None:
    """Make each tag one symbol of the tokenizer, and give it an embedding, if it is none yet."""
    from transformers import AddedToken

    if tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in tags]):
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def _new_decoder(flags: DecoderArguments, encoder_config, vocab_size: int) -> dict[str, Any]:
    """The fields of the configuration for a decoder with random weights."""
    hidden = flags.decoder_hidden_size or encoder_config.hidden_size
    if flags.decoder != TRANSFORMER:
        sizes = {"hidden_size": hidden, "num_hidden_layers": flags.num_decoder_layers or 2}
        return {"cell": flags.decoder, **sizes, "hidden_dropout_prob": _recurrent_dropout(flags)}
    depth = flags.num_decoder_layers or max(2, getattr(encoder_config, "num_hidden_layers", 2))
    dropout = 0.1 if flags.dropout is None else flags.dropout
    config = bert_config(vocab_size, depth, hidden)
    config.update({**dict.fromkeys(DROPOUTS, dropout), **ATTENDS_TO_ENCODER})
    return {"transformer": config.to_dict()}


def _recurrent_dropout(flags: DecoderArguments) -> float:
    return 0.3 if flags.dropout is None else flags.dropout


def _pretrained_decoder(name: str, flags: DecoderArguments) -> tuple[dict[str, Any], Any]:
    """The fields of the configuration for a decoder like a language model, and that model, None to start from scratch.

    Raises `InputError`.
    """
    config, is_scratch = load_config(name), flags.decoder.startswith(SCRATCH)
    for flag in ("num_decoder_layers", "decoder_hidden_size"):
        if getattr(flags, flag) is not None:
            raise InputError(f"--{flag} {getattr(flags, flag)}: does not go with --decoder {name}, which has its own")
    architectures = config.architectures or []
    if not is_scratch and not any(architecture.endswith(LANGUAGE_MODELS) for architecture in architectures):
        raise InputError(f"--decoder {name}: holds {' and '.join(architectures) or 'no model'}, no language model")
    if config.model_type == PREFIX + "rnn":
        names = ("cell", "hidden_size", "num_hidden_layers")
        fields = {field: getattr(config, field) for field in names}
        model = None if is_scratch else load_model(name, "AutoModelForPreTraining", config)
        return {**fields, "hidden_dropout_prob": _recurrent_dropout(flags)}, model
    if config.model_type != "bert":
        raise InputError(
            f"--decoder {name}: {config.model_type}, expected a recurrent network (pretrain rnn) or a BERT"
        )
    config.update(ATTENDS_TO_ENCODER)
    model = None if is_scratch else load_model(name, "AutoModelForCausalLM", config, new_layers="crossattention")
    return {"transformer": config.to_dict()}, model


def _target_tokenizer(name: str, targets: Sequence[str]):
    """The tokenizer of a pretrained decoder. Raises `InputError` if it does not give the targets back."""
    tokenizer = load_tokenizer(name)
    if spells_words(tokenizer):
        tokenizer.backend_tokenizer.decoder = byte_decoder()
    for target in targets:
        ids = tokenizer(target, verbose=False)["input_ids"]
        found = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if found != target:
            raise InputError(
                f"--decoder {name}: its tokenizer reads the target '{target}' and gives '{found}' back, so that the "
                "answer could never be right; use a decoder with a tokenizer of characters"
            )
    return tokenizer
