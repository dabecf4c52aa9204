"""What a task is, and how an encoder is fine-tuned and scored on it. Knows no task by name.

What may help with few labels, each by a flag: a slower pace for lower layers (Howard & Ruder 2018,
https://arxiv.org/abs/1801.06146), a start with the head alone (Kumar, Raghunathan, Jones, Ma & Liang 2022,
https://arxiv.org/abs/2202.10054), and a learning rate chosen on validation data.
"""

import dataclasses
import json
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, check_flags, check_not_negative, check_positive, check_share
from toolkit.training.arguments import TrainingArguments

PREDICTIONS_FILE = "predictions.jsonl"
SEEN_FILE = "seen_in_training.txt"
CONFUSION_FILE = "confusion_matrix.png"
VALIDATION_SHARE = 0.1  # of the training data, where a source has no validation split
DEFAULT_EPOCHS, DEFAULT_MIN_STEPS = 10, 400
NUM_EVALUATIONS = 5  # while training: one on much validation data takes as long as many steps
PREDICTION_BATCH_SIZE = 128
IGNORED = -100  # what stands for a label where there is none to learn


@dataclass(kw_only=True)
class FinetuneArguments(TrainingArguments):
    encoder: str
    """A checkpoint folder, a Hub id, or 'scratch:' and a preset or folder for the same network with new weights."""
    data: str
    """Labelled data: a file, a folder with one file a split, a Hub id, or 'sample'."""
    output_dir: str
    """Folder for the checkpoint, results.json, predictions.jsonl and train_log.jsonl."""
    train_size: int | None = None
    """Train on this many examples only."""
    per_class: bool = False
    """--train_size counts the examples of each class; a class that has fewer gives all."""
    subset_seed: int = 0
    """Seed of the choice of those examples; a larger choice holds every smaller one."""
    freeze: bool = False
    """Train the head only."""
    probe_ratio: float = 0.1
    """Share of the run in which the head is trained alone, before a pretrained encoder joins."""
    bottom_rate: float = 0.25
    """Share of the learning rate at which the lowest layer of a pretrained encoder learns; those above it follow in
    equal ratios up to the top layer, which learns at the rate of the head."""
    learning_rates: list[float] | None = None
    """Train once with each of these and keep what does best on validation data (instead of --learning_rate)."""
    overwrite_output_dir: bool = False
    """Replace an earlier run in the output folder."""

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "train_size")
        check_not_negative(self, "subset_seed")
        check_share(self, "probe_ratio")
        check_flags(self, "bottom_rate", lambda value: 0 < value <= 1, "a share above 0, at most 1")
        if any(rate <= 0 for rate in self.learning_rates or ()):
            raise InputError(f"--learning_rates {min(self.learning_rates or ())}: expected numbers greater than zero")

    def settled(self) -> "FinetuneArguments":
        """The same where defaults that follow from other flags, such as `freeze`, are said."""
        return self


class Task(ABC):
    """From rows of data to rows of features, and from logits to figures.

    A row of features has `index` and `part`, the row of data it was made from and which part of it, and what `collate`
    and `read` need. A processor is what makes features, and is saved with the model: a tokenizer, for example.
    """

    name: str
    arguments_class: type[FinetuneArguments]
    data_flags: tuple[str, ...]  # those that say how data is read, such as names of columns
    model_class: str  # transformers' Auto class
    item: str  # what throughput counts
    baseline_name: str

    @property
    def head(self) -> str:
        """How the class of a fine-tuned model ends, such as `ForTokenClassification`."""
        return self.model_class.removeprefix("AutoModel")

    @abstractmethod
    def load(self, source: str, split: str | None, flags: dict[str, Any]):
        """The data set of a source, with the values of `data_flags`. Raises `InputError`."""

    @abstractmethod
    def splits(self, source: str) -> list[str]:
        """The splits that the source is known to have."""

    @abstractmethod
    def labels(self, rows) -> list[str]:
        """All labels in the rows, sorted."""

    def seen(self, rows) -> set[str]:
        """What later counts as seen in training, if that makes a difference."""
        return set()

    def config_fields(self, arguments: Any) -> dict[str, Any]:
        """What the configuration of the model keeps of the arguments, besides the labels."""
        return {}

    def labels_of_rows(self, rows) -> list[str]:
        """The label of each row. Raises `InputError` where a row has several."""
        raise InputError(f"--per_class: an example of {self.name} has many labels, give --train_size alone")

    @abstractmethod
    def load_encoder(self, arguments: Any, train_rows, **config_fields: Any) -> tuple[Any, Any]:
        """The encoder that the arguments name under the head of the task, and its processor; `config_fields`, such as
        the labels, go into the configuration. Raises `InputError`."""

    @abstractmethod
    def load_finetuned(self, folder: str) -> tuple[Any, Any]:
        """The model and the processor of a folder or Hub id. Raises `InputError`."""

    @abstractmethod
    def encode(self, rows, processor, model):
        """The rows of features for `model`, as a data set."""

    def lengths(self, features) -> list[int] | None:
        """Of the rows of features, where similar ones are best batched together."""
        return None

    @abstractmethod
    def collate(self, rows: list[dict], draws, processor, arguments: Any | None) -> dict[str, Any]:
        """From rows of features to a batch, as `toolkit.training.batches` wants it; with `arguments` to train with,
        and with what they say of changing examples at random."""

    def fit_head(self, model, processor, features: dict[str, Any], is_new: bool) -> bool:
        """Fit the head to an encoder that stays as it is, where that needs no training loop; False where it does.
        `is_new` says whether the encoder's weights are."""
        return False

    def settle(self, model, rows, predictions: list[Any], arguments: Any) -> bool:
        """Let the model's configuration say how to decide, by predictions for validation rows; whether it now does."""
        return False

    def logits(self, model, inputs: dict[str, Any]):
        """What the model says of a batch."""
        return model(**inputs).logits

    @abstractmethod
    def read(self, features: list[dict], logits, model) -> list[Any]:
        """What the logits of a batch say, one prediction a row of features."""

    @abstractmethod
    def join(self, predictions: list[Any]) -> Any:
        """The predictions of all rows of features that one row of data was cut into, as one."""

    @abstractmethod
    def score(self, rows, predictions: list[Any], seen: set[str] | None) -> dict[str, dict[str, float]]:
        """Each figure with its interval."""

    @abstractmethod
    def baseline(self, train_rows, rows) -> list[Any]:
        """The predictions for `rows` of the usual method without a network, trained on `train_rows`."""

    @abstractmethod
    def unlabelled(self, inputs: Sequence[str | Path]):
        """A data set of rows to label: of texts, and of paths of files of text or of the task's data.

        Raises `InputError`.
        """

    @abstractmethod
    def as_json(self, row: dict, prediction: Any) -> dict:
        """A prediction beside what it is of, and beside the right answer where the row has it."""

    @abstractmethod
    def answers(self, rows, predictions: list[Any]) -> tuple[list[str], list[str]]:
        """All right labels, and beside them the predicted ones."""

    @abstractmethod
    def hits(self, line: dict) -> tuple[int, int]:
        """Of what `as_json` gave for a row with the right answer: how many were right, of how many."""

    def figure(self, arguments: FinetuneArguments) -> str:
        """The one by which checkpoints and learning rates are chosen, and encoders compared."""
        return "accuracy"

    def measure(self, figure: str, runs: list[list[dict]], others: list[list[dict]] | None = None) -> dict[str, float]:
        """That figure, with its interval, of several runs' lines of predictions on the same examples: the mean over
        the runs, or how much it is above that of the others."""
        from toolkit.metrics.intervals import paired_difference

        def hits(of_runs: list[list[dict]]) -> list[list[int]]:
            return [[self.hits(line)[0] for line in lines] for lines in of_runs]

        totals = [self.hits(line)[1] for line in runs[0]]
        return paired_difference(hits(runs), hits(others) if others else [[0] * len(totals)], totals)

    def pictures(self, load_rows: Callable, indices: Sequence[int]) -> dict[int, str]:
        """The addresses of small pictures that show those of the rows, `data:image/png;base64,…`; none of text, whose
        rows are not loaded."""
        return {}

    @abstractmethod
    def as_text(self, row: dict, prediction: Any) -> str:
        """The same for people and spreadsheets."""


def finetune(task: Task, arguments: FinetuneArguments, with_picture: bool = True) -> dict[str, Any]:
    """Put the task's head on an encoder and train both; score the best weights on the test split.

    The best are those that do best on validation data. Where the data has no test split, the figures are of the
    validation split, and the record says so. Leaves a checkpoint in `output_dir`, returns its `results.json`; with
    `resume` that of a run which stands there finished. The picture is that of the confusion matrix.
    """
    from toolkit.hub.upload import share
    from toolkit.reports.results import finished_run

    record = finished_run(arguments)
    if record is None:
        record = (
            _finetune_with_each_rate(task, arguments)
            if arguments.learning_rates
            else _finetune(task, arguments, with_picture)
        )
    share(arguments)
    return record


def _finetune(task: Task, arguments: FinetuneArguments, with_picture: bool) -> dict[str, Any]:
    import torch

    from toolkit.reports.page import write_confusion_matrix
    from toolkit.reports.results import RESULTS_FILE, Stopwatch, check_output_dir, create_output_dir, write_results
    from toolkit.training.distributed import make_accelerator
    from toolkit.training.loop import train

    output_dir = check_output_dir(arguments.output_dir, arguments.resume, arguments.overwrite_output_dir)
    accelerator = make_accelerator()
    accelerator.wait_for_everyone()  # every process has looked at the folder before the main one writes to it
    stopwatch = Stopwatch()
    train_rows, validation_rows, test_rows = load_splits(task, arguments)
    labels = task.labels(train_rows)
    if len(labels) < 2:
        raise InputError(f"{arguments.data}: the only label is {labels[0]}, expected two or more")
    label2id = {label: i for i, label in enumerate(labels)}
    id2label = dict(enumerate(labels))
    seen = task.seen(train_rows)

    torch.manual_seed(arguments.seed)
    config_fields = {"id2label": id2label, "label2id": label2id, **task.config_fields(arguments)}
    model, processor = task.load_encoder(arguments, train_rows, **config_fields)
    if arguments.freeze:
        _freeze_encoder(model)
    features = {
        name: task.encode(rows, processor, model)
        for name, rows in (("train", train_rows), ("validation", validation_rows), ("test", test_rows))
        if rows is not None
    }

    better = task.figure(arguments)

    def evaluate(accelerator) -> dict[str, float]:
        predictions = predict(task, model, processor, features["validation"], PREDICTION_BATCH_SIZE, accelerator)
        figures = task.score(validation_rows, predictions, seen)
        if better not in figures:
            raise InputError(f"--figure {better}: not defined on the validation data, which has one label only")
        return {name: interval["value"] for name, interval in figures.items() if not name.startswith("f1_")}

    if accelerator.is_main_process:
        create_output_dir(output_dir, arguments.overwrite_output_dir and not arguments.resume)
    result = _fit_head(task, model, processor, features, arguments, accelerator) if arguments.freeze else None
    result = result or train(
        model,
        features["train"],
        Collate(task, processor, arguments),
        _with_default_budget(arguments, len(features["train"])),
        output_dir,
        processor=processor,
        lengths=task.lengths(features["train"]),
        evaluate=evaluate,
        better=better,
        item=task.item,
        num_evaluations=NUM_EVALUATIONS,
        pace=_pace(model, arguments),
    )
    model = type(model).from_pretrained(output_dir).to(accelerator.device).eval()
    scores, predictions = {}, []
    rows_of = {"validation": validation_rows, "test": test_rows}
    for split in [name for name in rows_of if name in features]:
        predictions = predict(task, model, processor, features[split], PREDICTION_BATCH_SIZE, accelerator)
        if split == "validation" and task.settle(model, validation_rows, predictions, arguments):
            if accelerator.is_main_process:
                model.config.save_pretrained(output_dir)
            predictions = predict(task, model, processor, features[split], PREDICTION_BATCH_SIZE, accelerator)
        scores[split] = task.score(rows_of[split], predictions, seen)
    split = "test" if "test" in scores else "validation"
    if split == "validation":
        say(f"{arguments.data} has no test split, these figures are of its validation split", accelerator)
    record = {
        "task": task.name,
        "dataset": arguments.data,
        "split": split,
        "n": len(rows_of[split]),
        "metrics": scores[split],
        "validation_metrics": scores["validation"],
        "seed": arguments.seed,
        "encoder": arguments.encoder,
        "train_size": len(train_rows),
        "num_steps": result.num_steps,
        "training_seconds": result.seconds,
        "parameters": model.num_parameters(),
        "throughput": result.throughput,
        "throughput_unit": f"{task.item}s/s",
        "deterministic": result.deterministic,
        "arguments": dataclasses.asdict(arguments),
    }
    if accelerator.is_main_process:
        if seen:
            (output_dir / SEEN_FILE).write_text("\n".join(sorted(seen)) + "\n", encoding="utf-8")
        _write_predictions(output_dir / PREDICTIONS_FILE, task, rows_of[split], predictions)
        if with_picture:
            write_confusion_matrix(output_dir / CONFUSION_FILE, *task.answers(rows_of[split], predictions))
        record = write_results(output_dir / RESULTS_FILE, stopwatch, **record)
    accelerator.wait_for_everyone()
    return record


def score(
    task: Task, folder: str, data: str, split: str | None, flags: dict[str, Any], output_file: Path
) -> dict[str, Any]:
    """Score a fine-tuned checkpoint on labelled data; the record is also written to `output_file`."""
    from toolkit.hub.download import local_copy
    from toolkit.reports.page import write_confusion_matrix
    from toolkit.reports.results import Stopwatch, write_results
    from toolkit.training.distributed import make_accelerator

    accelerator = make_accelerator()
    stopwatch = Stopwatch()
    model, processor = task.load_finetuned(folder)
    if split is None:
        splits = task.splits(data)
        split = "test" if "test" in splits or not splits else splits[-1]
    rows = task.load(data, split, flags)
    seen_file = local_copy(folder) / SEEN_FILE
    seen = set(seen_file.read_text(encoding="utf-8").split("\n")) if seen_file.is_file() else None
    model.to(accelerator.device).eval()
    features = task.encode(rows, processor, model)
    predictions = predict(task, model, processor, features, PREDICTION_BATCH_SIZE, accelerator)
    record = {
        "task": task.name,
        "dataset": data,
        "split": split,
        "n": len(rows),
        "metrics": task.score(rows, predictions, seen),
        "seed": None,
        "encoder": folder,
        "num_steps": 0,
        "parameters": model.num_parameters(),
        "throughput": len(rows) / stopwatch.seconds,
        "throughput_unit": "examples/s",
        "deterministic": True,
    }
    if accelerator.is_main_process:
        write_confusion_matrix(
            output_file.with_name(f"{output_file.stem}_{CONFUSION_FILE}"), *task.answers(rows, predictions)
        )
        record = write_results(output_file, stopwatch, **record)
    return record


def load_predictor(task: Task, folder: str) -> Callable[[Any], list[Any]]:
    """From a data set of unlabelled rows to one prediction a row."""
    from toolkit.training.distributed import make_accelerator

    accelerator = make_accelerator()
    model, processor = task.load_finetuned(folder)
    model.to(accelerator.device).eval()

    def predictor(rows) -> list[Any]:
        features = task.encode(rows, processor, model)
        return predict(task, model, processor, features, PREDICTION_BATCH_SIZE, accelerator)

    return predictor


def predict(task: Task, model, processor, features, batch_size: int, accelerator) -> list[Any]:
    """One prediction a row of data, in order, the same on every process."""
    import torch

    from toolkit.training.distributed import gather_objects
    from toolkit.training.evaluation import evaluation_batches

    collate = Collate(task, processor)
    if (lengths := task.lengths(features)) is not None:
        features = features.select(sorted(range(len(lengths)), key=lengths.__getitem__))  # little padding

    def collate_with_rows(rows: list[dict], draws) -> dict[str, Any]:
        return {**collate(rows, draws), "rows": rows}

    mine = []
    with torch.inference_mode():
        for batch in evaluation_batches(features, collate_with_rows, batch_size, accelerator, in_step=True):
            rows = batch.pop("rows")
            inputs = {name: batch[name] for name in batch if name not in ("labels", "num_targets", "num_items")}
            logits = task.logits(model, inputs)
            if batch["num_items"]:
                predictions = task.read(rows, logits, model)
                mine += [(row["index"], row["part"], p) for row, p in zip(rows, predictions, strict=True)]
    parts: dict[int, list[Any]] = {}
    for index, _, prediction in sorted(gather_objects(accelerator, mine), key=lambda found: found[:2]):
        parts.setdefault(index, []).append(prediction)
    return [task.join(parts[index]) for index in sorted(parts)]


def say(message: str, accelerator) -> None:
    if accelerator.is_main_process:
        print(message, file=sys.stderr, flush=True)


def load_splits(task: Task, arguments: FinetuneArguments):
    """Training rows, as many as `arguments` say, validation rows, and test rows, None where there are none."""
    from toolkit.data.rows import take_subset

    splits = task.splits(arguments.data)
    flags = {name: getattr(arguments, name) for name in task.data_flags}
    train_rows = task.load(arguments.data, "train" if "train" in splits else None, flags)
    if "validation" in splits:
        validation_rows = task.load(arguments.data, "validation", flags)
    else:
        num_held_out = max(1, round(VALIDATION_SHARE * len(train_rows)))
        if num_held_out >= len(train_rows):
            raise InputError(f"{arguments.data}: {len(train_rows)} examples, too few to train and validate on")
        shuffled = train_rows.shuffle(seed=arguments.subset_seed)
        validation_rows = shuffled.select(range(num_held_out))
        train_rows = shuffled.select(range(num_held_out, len(shuffled)))
    test_rows = task.load(arguments.data, "test", flags) if "test" in splits else None
    labels = task.labels_of_rows(train_rows) if arguments.per_class else None
    train_rows = take_subset(train_rows, arguments.train_size, arguments.subset_seed, labels)
    return train_rows, validation_rows, test_rows


@dataclass(frozen=True)
class Collate:
    """Rows of features to a batch, to train with `arguments`; a class, since workers of a data loader are given it."""

    task: Task
    processor: Any
    arguments: FinetuneArguments | None = None

    def __call__(self, rows: list[dict], draws) -> dict[str, Any]:
        return self.task.collate(rows, draws, self.processor, self.arguments)


def _freeze_encoder(model) -> None:
    """All but the head, to which a pooler belongs that pretraining did not train."""
    from toolkit.transfer.encoders import layers_below_head

    depths = layers_below_head(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depths[name] == 0)


def _fit_head(task: Task, model, processor, features: dict[str, Any], arguments: FinetuneArguments, accelerator):
    """The `TrainingResult` of a head that was fitted without training, its checkpoint saved; None where none was."""
    from toolkit.reports.results import Stopwatch
    from toolkit.training.checkpoints import save_model
    from toolkit.training.loop import TrainingResult
    from toolkit.transfer.encoders import SCRATCH

    model.to(accelerator.device)
    stopwatch = Stopwatch()
    if not task.fit_head(model, processor, features, is_new=arguments.encoder.startswith(SCRATCH)):
        return None
    seconds = stopwatch.seconds
    save_model(Path(arguments.output_dir), model, processor, writes=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    return TrainingResult(0, seconds, len(features["train"]) / seconds, deterministic=True)


def _pace(model, arguments: FinetuneArguments) -> Callable:
    """How fast each parameter learns, by its name: the head at full rate from the start, then layer by layer.

    A scratch encoder has nothing to be careful with: all of it learns at full rate, or the comparison would be unfair.
    """
    from toolkit.training.loop import Pace
    from toolkit.transfer.encoders import SCRATCH, layers_below_head

    depths = layers_below_head(model)
    is_scratch = arguments.encoder.startswith(SCRATCH)
    steps_down = max(1, max(depths.values()) - 1)  # from the top layer of the encoder to the lowest

    def pace(name: str) -> Pace:
        depth = 0 if is_scratch else depths[name]
        if depth == 0:
            return Pace()
        return Pace(arguments.bottom_rate ** ((depth - 1) / steps_down), arguments.probe_ratio)

    return pace


def _finetune_with_each_rate(task: Task, arguments: FinetuneArguments) -> dict[str, Any]:
    """One run in a folder for each rate; what the best one left moves up to `output_dir`."""
    from toolkit.reports.results import (
        RESULTS_FILE,
        check_output_dir,
        create_output_dir,
        is_main_process,
        read_results,
        write_json,
    )
    from toolkit.training.distributed import make_accelerator

    output_dir = check_output_dir(arguments.output_dir, arguments.resume, arguments.overwrite_output_dir)
    load_splits(task, arguments)  # an earlier run must not go before the data is known to be sound
    accelerator = make_accelerator()
    accelerator.wait_for_everyone()
    if is_main_process():
        create_output_dir(output_dir, arguments.overwrite_output_dir and not arguments.resume)
    accelerator.wait_for_everyone()
    figures = {}
    for rate in arguments.learning_rates or ():
        folder = output_dir / f"lr-{rate:g}"
        one = dataclasses.replace(
            arguments,
            learning_rates=None,
            learning_rate=rate,
            output_dir=str(folder),
            overwrite_output_dir=False,
            push_to_hub=None,
        )
        figure = task.figure(arguments)
        figures[rate] = finetune(task, one)["validation_metrics"][figure]["value"]
        say(f"learning rate {rate:g}: {figure} {figures[rate]:.4f} on validation data", accelerator)
    best = max(figures, key=lambda rate: figures[rate])
    record = read_results(output_dir / f"lr-{best:g}")
    record["arguments"] = dataclasses.asdict(arguments)
    record["learning_rate"] = best
    record["learning_rates_tried"] = {f"{rate:g}": value for rate, value in figures.items()}
    if accelerator.is_main_process:
        for file in (output_dir / f"lr-{best:g}").iterdir():
            if file.is_file() and file.name != RESULTS_FILE:  # the record comes last: with it a run counts as finished
                shutil.copy2(file, output_dir / file.name)
        write_json(output_dir / RESULTS_FILE, record)
    accelerator.wait_for_everyone()
    return record


def _with_default_budget(arguments: FinetuneArguments, num_examples: int) -> FinetuneArguments:
    if arguments.max_steps or arguments.num_train_epochs or arguments.max_minutes:
        return arguments
    steps = DEFAULT_EPOCHS * -(-num_examples // arguments.batch_size)
    return dataclasses.replace(arguments, max_steps=max(DEFAULT_MIN_STEPS, steps))


def _write_predictions(path: Path, task: Task, rows, predictions: list[Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row, prediction in zip(rows, predictions, strict=True):
            print(json.dumps(task.as_json(row, prediction), ensure_ascii=False), file=file)
