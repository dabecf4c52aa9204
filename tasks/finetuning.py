"""Fine-tune an encoder on a task: load, build, encode, train, predict, score, record.

Discriminative learning rates are of Howard & Ruder (2018), https://arxiv.org/abs/1801.06146; training the head before
the encoder (LP-FT) is of Kumar, Raghunathan, Jones, Ma & Liang (2022), https://arxiv.org/abs/2202.10054.
"""

import dataclasses
import math
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tasks.inference import SEEN_FILE, predict, write_predictions
from tasks.task import FinetuneArguments, Task, TransferArguments
from toolkit.data.rows import content_of_rows, take_subset
from toolkit.data.sources import SAMPLE, Source
from toolkit.data.table_files import order_of_label
from toolkit.errors import InputError
from toolkit.modalities.arguments import LossArguments
from toolkit.models.families import SCRATCH
from toolkit.runs.arguments import flags_of, to_flags, with_flags
from toolkit.runs.output import check_output_dir, check_unchanged, claimed, create_output_dir, write_json
from toolkit.runs.results import RESULTS_FILE, Stopwatch, finished_run, say_finished, write_results
from toolkit.training.arguments import DurationArguments, OptimizerArguments
from toolkit.training.inputs import Evaluation, TrainingData, TrainingOutput

VALIDATION_SHARE = 0.1  # of the training data, if a source has no validation split
DEFAULT_EPOCHS, DEFAULT_MIN_STEPS = 10, 400
NUM_EVALUATIONS = 5  # while training: an evaluation on much validation data takes as long as many steps


def finetune(
    task: Task, arguments: FinetuneArguments, source: Source | None = None, with_picture: bool = True
) -> dict[str, Any]:
    """Fine-tune the encoder under the task's head, and score the weights that are best on validation data.

    The figures are those of the test split or, if there is none, of the validation split, and the record says so.
    Several runs on the same data can share the opened `source`. `with_picture` draws the confusion matrix. Returns the
    record in `results.json`; with `resume`, that of a finished run in the output folder.
    """
    from toolkit.hub.upload import push_run

    with claimed(arguments.output):
        record = finished_run(arguments)
        if record is not None:
            _, source = load_splits(task, arguments, source)
            check_unchanged(Path(arguments.output.output_dir), _content(source, arguments))
            say_finished(arguments.output.output_dir)
        else:
            run = _finetune_with_each_rate if arguments.transfer.learning_rates else _finetune
            record = run(task, arguments, source, with_picture)
    push_run(arguments.output.output_dir, arguments.hub.push_to_hub)
    return record


def _finetune(task: Task, arguments: FinetuneArguments, source: Source | None, with_picture: bool) -> dict[str, Any]:
    import torch

    from toolkit.training.distributed import make_accelerator

    output_dir = check_output_dir(arguments.output, arguments.training.resume)
    accelerator = make_accelerator()
    accelerator.wait_for_everyone()  # all processes check the folder before the main process writes to it
    stopwatch = Stopwatch()
    data = arguments.data.data
    rows, source = load_splits(task, arguments, source)
    found, seen = task.labels(rows["train"]), task.seen(rows["train"])
    declared = source.declared_labels() or ()
    labels = None if found is None else [*declared, *sorted(found.difference(declared), key=order_of_label)]
    if labels is not None and len(labels) < 2:
        raise InputError(f"{data}: the only label is {labels[0]}, expected two or more")

    torch.manual_seed(arguments.training.seed)
    fields: dict[str, Any] = {"toolkit_task": task.name}
    if labels is not None:
        fields |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    model, processor = task.load_model(arguments, rows["train"], **fields, **task.config_fields(arguments))
    if arguments.encoder.freeze:
        _freeze_encoder(model)
    encoded = {name: task.encode(split, processor, model) for name, split in rows.items()}

    def evaluate(accelerator) -> dict[str, float]:
        predictions = predict(task, model, processor, encoded["validation"], accelerator, while_training=True)
        figures = task.figures(rows["validation"], predictions, seen)
        if arguments.metric not in figures:
            raise InputError(f"--figure {arguments.metric}: not defined on the validation data, with one label only")
        return {name: figure.value for name, figure in figures.items() if not name.startswith("f1_")}

    if accelerator.is_main_process:
        create_output_dir(arguments.output, arguments.training.resume, _content(source, arguments))
        if source.summary.say() and with_picture:  # a comparison of encoders has no note on one of them
            for note in task.notes(rows["train"], processor):
                print(note, file=sys.stderr, flush=True)
    result = _train(task, model, processor, encoded, arguments, evaluate, accelerator)
    model = type(model).from_pretrained(output_dir).to(accelerator.device).eval()
    scores: dict[str, Any] = {}
    for split in [name for name in rows if name != "train"]:  # the last one is reported
        predictions = predict(task, model, processor, encoded[split], accelerator)
        tunes = split == "validation" and task.tunes_threshold
        if tunes and task.tune_threshold(model, rows[split], predictions, arguments):
            if accelerator.is_main_process:
                model.config.save_pretrained(output_dir)
            predictions = predict(task, model, processor, encoded[split], accelerator)
        figures = task.figures(rows[split], predictions, seen)
        scores[split] = {name: figure.interval() for name, figure in figures.items()}
    record = _record(task, arguments, model, rows, scores, result) | {"data": source.summary.as_json()}
    if accelerator.is_main_process:
        if split == "validation":
            print(f"{data} has no test split, these figures are of its validation split", file=sys.stderr, flush=True)
        if seen:
            (output_dir / SEEN_FILE).write_text("\n".join(sorted(seen)) + "\n", encoding="utf-8")
        write_predictions(task, output_dir, rows[split], predictions, with_picture)
        record = write_results(output_dir / RESULTS_FILE, stopwatch, **record)
    accelerator.wait_for_everyone()
    return record


def _record(
    task: Task, arguments: FinetuneArguments, model, rows: dict[str, Any], scores: dict[str, Any], result
) -> dict[str, Any]:
    """What `results.json` says of the run, without the machine and the time."""
    split = list(scores)[-1]
    record = {
        "task": task.name,
        "modality": task.modality_name,
        "dataset": arguments.data.data,
        "split": split,
        "n": len(rows[split]),
        "metrics": scores[split],
        "validation_metrics": scores["validation"],
        "seed": arguments.training.seed,
        "encoder": arguments.encoder.encoder,
        "train_size": len(rows["train"]),
        "num_steps": result.num_steps,
        "training_seconds": result.seconds,
        "parameters": model.num_parameters(),
        "throughput": result.throughput,
        "throughput_unit": f"{task.item}s/s",
        "deterministic": result.deterministic,
        "arguments": to_flags(arguments),
    }
    if arguments.data.data == SAMPLE:
        record["sample_license"] = task.modality.labelled_sample_license
    return record


def load_splits(
    task: Task, arguments: FinetuneArguments, source: Source | None = None
) -> tuple[dict[str, Any], Source]:
    """Training rows, as many as the arguments say, validation rows, test rows if there are some; and their source.

    Raises `InputError` if the source is malformed, or has too few examples to hold some out for validation.
    """
    flags = arguments.data
    source = source or task.open(flags.data, arguments.columns)
    train_rows = source.load("train" if "train" in source.splits else None)
    if "validation" in source.splits:
        validation_rows = source.load("validation")
    else:
        task.check_to_split(flags.data, train_rows)
        num_held_out = max(1, round(VALIDATION_SHARE * len(train_rows)))
        if num_held_out >= len(train_rows):
            raise InputError(f"{flags.data}: {len(train_rows)} examples, too few to train and validate on")
        shuffled = train_rows.shuffle(seed=flags.subset_seed)
        validation_rows = shuffled.select(range(num_held_out))
        train_rows = shuffled.select(range(num_held_out, len(shuffled)))
    labels = train_rows[task.reference_column][:] if flags.per_class else None
    if labels and isinstance(labels[0], list):
        raise InputError(f"--per_class: an example of {task.name} has many labels, give --train_size alone")
    train_rows = take_subset(train_rows, flags.train_size, flags.subset_seed, labels)
    test_rows = {"test": source.load("test")} if "test" in source.splits else {}
    rows = {"train": train_rows, "validation": validation_rows, **test_rows}
    for split, of_split in rows.items():
        held_out_of = "train" if split == "validation" and "validation" not in source.splits else None
        content, num_repeated = content_of_rows(of_split), source.num_repeated(split)
        source.summary.add(split, of_split, task.counted(of_split), held_out_of, content, num_repeated)
    return rows, source


def _content(source: Source, arguments: FinetuneArguments) -> dict[str, str]:
    """Hashes of the data and of the encoder, by which a run that is resumed notices that they have changed."""
    from toolkit.transfer.encoders import content_of_encoder

    return source.summary.content | {"encoder": content_of_encoder(arguments.encoder.encoder)}


def _freeze_encoder(model) -> None:
    """Freeze all parameters but the head's; a pooler, which pretraining leaves untrained, belongs to the head."""
    from toolkit.transfer.encoders import layer_depths

    depths = layer_depths(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depths[name] == 0)


def _train(task: Task, model, processor, encoded: dict[str, Any], arguments: FinetuneArguments, evaluate, accelerator):
    """Fit the head of a frozen encoder if the task can do so at once, else train; returns the `TrainingResult`."""
    from toolkit.training.checkpoints import save_model
    from toolkit.training.loop import TrainingResult, train

    rows, training = encoded["train"], arguments.training
    output = TrainingOutput(Path(arguments.output.output_dir), processor)
    if arguments.encoder.freeze:
        model.to(accelerator.device)
        stopwatch = Stopwatch()
        if task.fit_head(model, processor, encoded, arguments.encoder.encoder.startswith(SCRATCH)):
            seconds = stopwatch.seconds
            if accelerator.is_main_process and (unused := _flags_of_training(arguments)):
                message = f"--freeze: the head was fitted at once, without {', '.join(unused)}"
                print(message, file=sys.stderr, flush=True)
            save_model(output.folder, model, processor, writes=accelerator.is_main_process)
            accelerator.wait_for_everyone()
            return TrainingResult(0, seconds, len(rows) / seconds, deterministic=True)
    if not training.has_limit:
        num_steps = DEFAULT_EPOCHS * math.ceil(len(rows) / training.batch_size)
        training = dataclasses.replace(training, max_steps=max(DEFAULT_MIN_STEPS, num_steps))
    collate = partial(task.collate, processor=processor, arguments=arguments)
    data = TrainingData(rows, collate, task.lengths(rows), item=task.item)
    options = _parameter_options(model, arguments)
    return train(model, data, training, output, Evaluation(evaluate, arguments.metric, NUM_EVALUATIONS), options)


def _flags_of_training(arguments: FinetuneArguments) -> list[str]:
    """The flags with other values than the default ones that only training in steps uses."""
    of_training = (LossArguments, TransferArguments, DurationArguments, OptimizerArguments)
    flags = {name: flag for name, flag in flags_of(type(arguments)).items() if issubclass(flag.owner, of_training)}
    given = to_flags(arguments)
    return [f"--{name}" for name, flag in flags.items() if name != "seed" and given[name] != flag.default]


def _parameter_options(model, arguments: FinetuneArguments) -> Callable:
    """The options of each parameter, by its name: layer-wise learning rates, and a warm-up of the head alone.

    All of a scratch encoder learns at the full rate from the start, or the comparison would be unfair.
    """
    from toolkit.training.optimizers import ParameterOptions
    from toolkit.transfer.encoders import layer_depths

    depths, flags = layer_depths(model), arguments.transfer
    is_scratch = arguments.encoder.encoder.startswith(SCRATCH)
    num_steps_down = max(1, max(depths.values()) - 1)  # from the top layer of the encoder to the lowest

    def options(name: str) -> ParameterOptions:
        if is_scratch or depths[name] == 0:
            return ParameterOptions()
        scale = flags.layerwise_lr_decay ** ((depths[name] - 1) / num_steps_down)
        return ParameterOptions(scale, flags.head_warmup_ratio)

    return options


def _finetune_with_each_rate(
    task: Task, arguments: FinetuneArguments, source: Source | None, with_picture: bool
) -> dict[str, Any]:
    """One run in a folder of its own for each learning rate; the files of the best are copied to the output folder."""
    from toolkit.training.distributed import make_accelerator, on_main_process

    output_dir = check_output_dir(arguments.output, arguments.training.resume)
    _, source = load_splits(task, arguments, source)  # an earlier run is replaced only if the data is sound
    accelerator = make_accelerator()
    accelerator.wait_for_everyone()  # all processes check the folder before the main process writes to it
    content = _content(source, arguments)
    on_main_process(accelerator, lambda: create_output_dir(arguments.output, arguments.training.resume, content))
    metric, records, figures = arguments.metric, {}, {}
    flags: dict[str, Any] = {"learning_rates": None, "overwrite_output_dir": False, "push_to_hub": None}
    for rate in arguments.transfer.learning_rates or ():
        one = with_flags(arguments, learning_rate=rate, output_dir=str(output_dir / f"lr-{rate:g}"), **flags)
        records[rate] = finetune(task, one, source, with_picture)
        figures[rate] = records[rate]["validation_metrics"][metric]["value"]
        if accelerator.is_main_process:
            message = f"learning rate {rate:g}: {metric} {figures[rate]:.4f} on validation data"
            print(message, file=sys.stderr, flush=True)
    best = max(figures, key=figures.__getitem__)
    record = {
        **records[best],
        "arguments": to_flags(arguments),
        "learning_rate": best,
        "learning_rates_tried": {f"{rate:g}": value for rate, value in figures.items()},
    }
    if accelerator.is_main_process:
        for file in (output_dir / f"lr-{best:g}").iterdir():
            if file.is_file() and file.name != RESULTS_FILE:  # the record comes last: it marks a run as finished
                shutil.copy2(file, output_dir / file.name)
        write_json(output_dir / RESULTS_FILE, record)
    accelerator.wait_for_everyone()
    return record
