"""What to pretrain on and how: the flags of each method. Loads no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.corpora.arguments import Packing, TextArguments
from toolkit.errors import InputError, check_flags, check_not_negative, check_positive, check_share
from toolkit.training.arguments import SharedArguments, TrainingArguments

SHORTEST_OF_PIECES, SHORTEST_OF_WORDS = 8, 3  # windows


@dataclass(kw_only=True)
class EncodedTextArguments(TextArguments):
    output_dir: str
    """Folder for what is made."""
    validation_corpus: str | None = None
    """Held-out text; by default the last part of the corpus, which is then not trained on."""
    validation_fraction: float = 0.01
    """Share of the lines to hold out where there is no --validation_corpus."""
    tokenizer: str | None = None
    """Folder or Hub id of a tokenizer; by default one is trained on the corpus."""
    vocab_size: int | None = None
    """Largest size of a vocabulary trained here (default: the preset's)."""
    do_lower_case: bool = False
    """Lower-case the text, for a tokenizer trained here."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    def __post_init__(self):
        TextArguments.__post_init__(self)
        check_flags(self, "validation_fraction", _is_between_0_and_1, "a share between 0 and 1")
        check_positive(self, "vocab_size")


@dataclass(kw_only=True)
class CorpusArguments(SharedArguments, EncodedTextArguments):
    corpus: str
    """Text: a file, folder or glob of .txt, .jsonl, .csv or .parquet (also .gz), a Hub id, 'sample', or a folder that
    toolkit prepare has made."""
    output_dir: str
    """Folder for the checkpoint, results.json and train_log.jsonl."""

    def __post_init__(self):
        SharedArguments.__post_init__(self)
        EncodedTextArguments.__post_init__(self)


@dataclass(kw_only=True)
class PrepareArguments(EncodedTextArguments):
    shard: str = "0/1"
    """Which of so many parts to prepare, counted from 0: 3/8 is the fourth of eight. Every machine prepares one, then
    toolkit prepare merge puts them together."""

    def __post_init__(self):
        super().__post_init__()
        number, slash, of = self.shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
            raise InputError(f"--shard {self.shard}: expected a number and how many there are, 0/8 to 7/8")


@dataclass(kw_only=True)
class PieceWindowArguments:
    max_length: int = 128
    """Tokens of a window."""
    packing: Packing = "none"
    """How lines fill windows: joined and cut (none), or whole, each read as if it stood alone (lines). Held-out losses
    of the two do not compare."""


@dataclass(kw_only=True)
class PrepareBertArguments(PieceWindowArguments, PrepareArguments):
    preset: str = "bert-mini"
    """Size of the encoder, which says that of a vocabulary trained here."""

    def __post_init__(self):
        super().__post_init__()
        _check_length(self, SHORTEST_OF_PIECES)


@dataclass(kw_only=True)
class PrepareElectraArguments(PrepareBertArguments):
    preset: str = "electra-mini"
    """Size of the encoder, which says that of a vocabulary trained here."""


@dataclass(kw_only=True)
class PrepareElmoArguments(PrepareArguments):
    preset: str = "elmo-mini"
    """Size of the encoder, which says how many words it predicts."""
    max_length: int = 32
    """Words of a window."""

    def __post_init__(self):
        super().__post_init__()
        _check_length(self, SHORTEST_OF_WORDS)


@dataclass(kw_only=True)
class MergeArguments:
    folders: list[str]
    """Folders of all shards, in any order."""
    output_dir: str
    """Folder for the whole."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""


@dataclass(kw_only=True)
class Word2VecArguments(CorpusArguments):
    preset: str = "word2vec-mini"
    """Size of the vectors: word2vec-tiny, -mini, -small or -base."""
    num_train_epochs: int = 5
    """Passes over the corpus."""
    max_minutes: float | None = None
    """End after the first epoch that ends later than this."""
    learning_rate: float = 0.025
    """Learning rate at the start; it falls linearly to almost zero."""
    window: int = 5
    """Words to each side that are predicted."""
    negative: int = 5
    """Random words that each neighbour is compared with."""
    min_count: int = 5
    """Leave out words that occur fewer times."""
    workers: int = 2
    """gensim's threads; with one the vectors are the same each time."""
    seed: int = 0
    """Seed of the initial vectors."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "num_train_epochs max_minutes learning_rate window negative min_count workers")
        check_not_negative(self, "seed")


@dataclass(kw_only=True)
class FastTextArguments(Word2VecArguments):
    preset: str = "fasttext-mini"
    """Size of the vectors: fasttext-tiny, -mini, -small or -base."""
    num_buckets: int | None = None
    """Vectors of n-grams, which share them by their hashes (default: the preset's)."""
    min_n: int = 3
    """Characters of the shortest n-gram, with the brackets that stand around a word."""
    max_n: int = 6
    """Characters of the longest n-gram."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "num_buckets min_n")
        if self.max_n < self.min_n:
            raise InputError(f"--max_n {self.max_n}: expected at least --min_n {self.min_n}")


@dataclass(kw_only=True)
class ElmoArguments(TrainingArguments, CorpusArguments):
    preset: str = "elmo-mini"
    """Size of the encoder: elmo-tiny, -mini, -small or -base."""
    max_length: int = 32
    """Words of a window."""
    num_negatives: int = 2048
    """Random words that each predicted word competes with while training."""
    consecutive_windows: int = 1
    """Windows that are read one after the other, the state of the LSTM carried from each to the next, of both
    directions by turns; 1 carries nothing."""
    learning_rate: float = 3e-3
    """Peak learning rate."""

    def __post_init__(self):
        TrainingArguments.__post_init__(self)
        CorpusArguments.__post_init__(self)
        _check_length(self, SHORTEST_OF_WORDS)
        _default_to_epochs(self, 1.0)
        check_positive(self, "num_negatives consecutive_windows")


@dataclass(kw_only=True)
class BertArguments(PieceWindowArguments, TrainingArguments, CorpusArguments):
    preset: str = "bert-mini"
    """Size of the encoder: bert-tiny, -mini, -small or -base."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    dropout: float = 0.0
    """Dropout while pretraining; the checkpoint keeps BERT's usual 0.1 for fine-tuning."""
    mlm_probability: float = 0.3
    """Share of the tokens that are masked while training; held-out text is always masked at 0.15."""
    mlm_probability_end: float | None = None
    """The same at the end of the run; it changes linearly (default: it does not)."""
    whole_word_mask: bool = False
    """Mask all pieces of a word or none while training."""
    embeddings: Literal["random", "word2vec"] = "word2vec"
    """What the embeddings of tokens start from: word2vec learns them from the corpus first, in seconds."""
    attention: Literal["random", "neighbours"] = "neighbours"
    """What the heads look at when training starts: anything, or each head at one of the tokens on either side."""
    output_bias: Literal["zeros", "frequencies"] = "zeros"
    """What the bias of the output layer starts from: 'frequencies' guesses each token as often as it occurs."""

    def __post_init__(self):
        TrainingArguments.__post_init__(self)
        CorpusArguments.__post_init__(self)
        _check_length(self, SHORTEST_OF_PIECES)
        _default_to_epochs(self, 1.0)
        check_flags(self, "mlm_probability mlm_probability_end", _is_between_0_and_1, "a share between 0 and 1")
        check_share(self, "dropout")


@dataclass(kw_only=True)
class ElectraArguments(BertArguments):
    preset: str = "electra-mini"
    """Size of the encoder: electra-tiny, -mini, -small or -base."""
    generator_size: float | None = None
    """Width of the generator, which fills in what the encoder looks for, as a share of the encoder's (default: the
    preset's, a quarter to a half)."""
    discriminator_weight: float = 50.0
    """What a token counts for that the encoder judges, beside a masked one that the generator guesses."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "generator_size discriminator_weight")


ImageChange = Literal["flip", "shift", "zoom", "rotate", "color", "trivial", "erase"]


@dataclass(kw_only=True)
class ImageInputArguments:
    image_column: str | None = None
    """Column of a table that holds images or their paths (default: the one of images, or image, file_name or path)."""
    image_size: int | None = None
    """Height and width that all images are given (default: those of the preset or of the encoder)."""
    skip_broken: bool = False
    """Leave out images that cannot be opened, and name them; by default the first one ends the run."""

    def __post_init__(self):
        check_positive(self, "image_size")


@dataclass(kw_only=True)
class ImageArguments(ImageInputArguments):
    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""
    labels: list[str] | None = None
    """Take the images of these labels only (default: of all)."""
    keep_size: bool = False
    """Let images stay as large as they are; goes with --pooling."""
    pooling: Literal["max", "average", "l2", "gem"] | None = None
    """Of a convolutional network, what becomes of the values of a map: the largest, their mean, 1/n · sqrt(Σ h²), or
    the generalised mean, which learns to stand between the first two (default: what the network does itself)."""
    image_size_start: int | None = None
    """Train on images that are smaller when the run begins, and of full size from three quarters of it on."""
    augment: list[ImageChange] = field(default_factory=lambda: ["shift"])
    """How training images are changed at random: flip (left to right), shift, zoom, rotate, color, trivial (one of
    many such changes, TrivialAugment), erase (a rectangle). Without a value, not at all."""
    max_shift: float = 0.125
    """Share of its size by which `shift` moves an image at most."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all labels."""
    class_weights: bool = False
    """Let rare labels count for more, all labels alike together."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "image_size_start")
        if self.keep_size and (self.image_size or self.image_size_start):
            raise InputError("--keep_size: does not go with --image_size or --image_size_start")
        check_flags(self, "max_shift", _is_between_0_and_1, "a share between 0 and 1")
        check_share(self, "label_smoothing")


@dataclass(kw_only=True)
class ImageCorpusArguments(ImageInputArguments, TrainingArguments):
    corpus: str
    """Images: a folder with one folder a label, a table, a Hub id, or 'sample'; where labels are not needed also a
    folder that holds images itself."""
    output_dir: str
    """Folder for the checkpoint, results.json and train_log.jsonl."""
    split: str | None = None
    """Split of a folder or Hub data set (default: train)."""
    validation_fraction: float = 0.05
    """Share of the images to hold out where there is no validation split."""
    streaming: bool = False
    """Read sharded .parquet or webdataset (.tar) files, here or on a Hub, while training, without a copy on disk or in
    memory. Held out are the first images of the validation split, or of the last file where there is none."""
    shuffle_buffer: int = 1000
    """Images in memory that the next one is drawn from, with --streaming."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    def __post_init__(self):
        ImageInputArguments.__post_init__(self)
        TrainingArguments.__post_init__(self)
        check_flags(self, "validation_fraction", _is_between_0_and_1, "a share between 0 and 1")
        check_positive(self, "shuffle_buffer")
        _default_to_epochs(self, 10.0)


@dataclass(kw_only=True)
class ResNetArguments(ImageArguments, ImageCorpusArguments):
    preset: str = "resnet-mini"
    """Size of the encoder: resnet-tiny, -mini, -small or -base, or resnet-fast for small images and minutes."""


@dataclass(kw_only=True)
class LeNetArguments(ResNetArguments):
    preset: str = "lenet-5"
    """Size of the encoder: lenet-5."""


@dataclass(kw_only=True)
class GoogLeNetArguments(ResNetArguments):
    preset: str = "googlenet-mini"
    """Size of the encoder: googlenet-mini or -base."""


@dataclass(kw_only=True)
class ViTArguments(ResNetArguments):
    preset: str = "vit-mini"
    """Size of the encoder: vit-tiny, -mini, -small or -base."""


@dataclass(kw_only=True)
class MlpArguments(ResNetArguments):
    preset: str = "mlp-mini"
    """Size of the encoder: mlp-tiny or -mini."""


@dataclass(kw_only=True)
class SimCLRArguments(ImageCorpusArguments):
    preset: str = "resnet-fast"
    """Size of the encoder: any preset of images."""
    batch_size: int = 256
    """Images a step; each is to be told from all others of its step, in each process."""
    temperature: float = 0.5
    """What similarities are divided by; the smaller, the more those count that are most alike."""
    projection_size: int = 128
    """Size of the projections that are compared; they are not kept."""
    smallest_part: float = 0.2
    """Share of an image that a view shows at least."""
    color_strength: float = 0.5
    """How much the colours of a view change, up to 1; 0 leaves them."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "temperature projection_size")
        check_flags(self, "smallest_part", _is_between_0_and_1, "a share between 0 and 1")
        check_flags(self, "color_strength", lambda value: 0 <= value <= 1, "a number from 0 to 1")


@dataclass(kw_only=True)
class ViTMAEArguments(ImageCorpusArguments):
    preset: str = "vit-mini"
    """Size of the encoder: vit-tiny, -mini, -small or -base."""
    mask_ratio: float = 0.75
    """Share of the patches that are hidden, and guessed from the rest."""
    decoder_layers: int = 2
    """Layers of the decoder that guesses, which is half as wide as the encoder and is not kept."""

    def __post_init__(self):
        super().__post_init__()
        check_flags(self, "mask_ratio", _is_between_0_and_1, "a share between 0 and 1")
        check_positive(self, "decoder_layers")


@dataclass(kw_only=True)
class PrototypicalArguments(ImageCorpusArguments):
    preset: str = "resnet-fast"
    """Size of the encoder: any preset of images that pools what it sees."""
    label_column: str | None = None
    """Column of a table that holds the label (default: label, labels, category or class)."""
    ways: int = 60
    """Classes of an episode; more than there will be in use teach more."""
    shots: int = 1
    """Images of each class by which it is known in an episode."""
    queries: int = 4
    """Images of each class that are to be told from the others."""
    rotations: bool = False
    """Take every class turned by one, two and three quarters for three classes more, as of characters."""
    augment: list[ImageChange] = field(default_factory=list)
    """How training images are changed at random: flip (left to right), shift, zoom, rotate, color, trivial (one of
    many such changes, TrivialAugment), erase (a rectangle) (default: not at all)."""
    validation_fraction: float = 0.1
    """Share of the classes to hold out."""
    batch_size: int = field(default=0, init=False)

    def __post_init__(self):
        self.batch_size = self.ways
        super().__post_init__()
        check_positive(self, "shots queries")
        if self.ways < 2:
            raise InputError(f"--ways {self.ways}: expected two or more")


def _is_between_0_and_1(value: float) -> bool:
    return 0 < value < 1


def _check_length(arguments: Any, shortest: int) -> None:
    if arguments.max_length < shortest:
        raise InputError(f"--max_length {arguments.max_length}: expected at least {shortest}")


def _default_to_epochs(arguments: TrainingArguments, num_epochs: float) -> None:
    if arguments.max_steps is None and arguments.max_minutes is None and arguments.num_train_epochs is None:
        arguments.num_train_epochs = num_epochs
