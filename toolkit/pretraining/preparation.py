"""`toolkit prepare`: windows of a corpus in a folder of their own, made by one machine or by many."""

import dataclasses
import filecmp
import shutil
import typing
from dataclasses import dataclass
from pathlib import Path

from toolkit.corpora.prepared import Shard, check_shards, merge
from toolkit.errors import InputError
from toolkit.models.families import FAMILIES
from toolkit.pretraining import Method, get_method, method_names
from toolkit.pretraining.run import Run
from toolkit.pretraining.text_corpus import (
    PREPARED_FILE,
    TOKENIZERS,
    WINDOW_FLAGS,
    TextCorpusArguments,
    find_prepared,
    open_split_corpus,
    prepare_part,
    say_what_is_lost,
)
from toolkit.runs.arguments import Arguments, defaults
from toolkit.runs.output import OutputArguments, check_output_dir, create_output_dir, write_json
from toolkit.runs.results import RESULTS_FILE

SPLITS = ("train", "validation")


@dataclass(kw_only=True)
class ShardArguments(Arguments):
    """shards"""

    shard: str = "0/1"
    """Which shard to prepare, counted from 0: 3/8 is the fourth of eight. Every machine prepares one, then toolkit
    prepare merge puts them together."""

    def check(self) -> None:
        number, slash, of = self.shard.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and int(number) < int(of)):
            raise InputError(f"--shard {self.shard}: expected a number and how many there are, 0/8 to 7/8")


@dataclass(kw_only=True)
class PrepareArguments(TextCorpusArguments):
    """Arguments of `toolkit prepare`, without the windows of a method."""

    shard: ShardArguments = defaults(ShardArguments)


@dataclass(kw_only=True)
class ShardFolders(Arguments):
    """data"""

    folders: list[str]
    """Folders of all shards, in any order."""


@dataclass(kw_only=True)
class MergeArguments(Arguments):
    shards: ShardFolders
    output: OutputArguments


def prepare_arguments() -> dict[str, type[Arguments]]:
    """The arguments of `toolkit prepare`, by method, and those of `merge`."""
    names = [name for name in method_names() if name in FAMILIES and FAMILIES[name].windows is not None]
    methods = {name: get_method(name) for name in names}
    of_methods = {name: arguments_of(method) for name, method in methods.items() if method.recipe is not None}
    return {**of_methods, "merge": MergeArguments}


def arguments_of(method: Method) -> type[PrepareArguments]:
    """`PrepareArguments` with the groups `encoder` and `windows` of a method."""
    types = typing.get_type_hints(method.arguments)
    groups = [
        (field.name, types[field.name], dataclasses.field(default_factory=field.default_factory))  # type: ignore
        for field in dataclasses.fields(method.arguments)
        if field.name in ("encoder", "windows")
    ]
    return dataclasses.make_dataclass("PrepareMethodArguments", groups, bases=(PrepareArguments,), kw_only=True)


def prepare_folder(method: str, arguments: PrepareArguments) -> None:
    """Write windows of a corpus, with their tokenizers, to the output folder, for `toolkit pretrain METHOD`.

    Windows that an interrupted preparation has left there are not made again. Raises `InputError` if the folder holds
    something else or the corpus cannot be read.
    """
    output_dir, (number, of) = Path(arguments.output.output_dir), map(int, arguments.shard.shard.split("/"))
    holds_training = (output_dir / RESULTS_FILE).exists()
    run = Run(method, arguments, resume=None if arguments.output.overwrite_output_dir or holds_training else True)
    if find_prepared(run) is not None:
        raise InputError(f"--corpus {arguments.text.corpus}: is prepared already")
    make_recipe = get_method(method).recipe
    assert make_recipe is not None
    corpus = open_split_corpus(run)
    tokenizers, recipe = make_recipe(run, corpus[0])
    say_what_is_lost(run, tokenizers[0], corpus[0])
    run.create_output_dir(checks_data=False)  # prepared windows are checked by their own record
    for split, part in zip(SPLITS, corpus, strict=True):
        prepare_part(part, recipe, run, output_dir / split, Shard(number, of))
    for name, tokenizer in zip(TOKENIZERS, tokenizers, strict=False):
        tokenizer.save_pretrained(output_dir / name)
    settings = {name: run.flags[name] for name in WINDOW_FLAGS if name in run.flags}
    write_json(output_dir / PREPARED_FILE, {"windows": run.family.windows, **settings})


def merge_shards(arguments: MergeArguments) -> None:
    """Put the shards of one preparation together. Raises `InputError` unless each is there once and complete."""
    folders, output = [Path(folder) for folder in arguments.shards.folders], Path(arguments.output.output_dir)
    for folder in folders:
        if not (folder / PREPARED_FILE).is_file():
            raise InputError(f"{folder}: is not prepared to its end; repeat the command that began it")
        if not filecmp.cmp(folder / PREPARED_FILE, folders[0] / PREPARED_FILE, shallow=False):
            raise InputError(f"{folder}: was prepared with other settings than {folders[0]}")
    for split in SPLITS:
        check_shards([folder / split for folder in folders])
    check_output_dir(arguments.output)
    create_output_dir(arguments.output)
    for split in SPLITS:
        merge([folder / split for folder in folders], output / split)
    for name in TOKENIZERS:
        if (folders[0] / name).is_dir():
            shutil.copytree(folders[0] / name, output / name)
    shutil.copyfile(folders[0] / PREPARED_FILE, output / PREPARED_FILE)
