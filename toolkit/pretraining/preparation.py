"""Windows of a corpus, made before pretraining, in a folder of their own, by one machine or by many."""

import filecmp
import shutil
from pathlib import Path
from typing import Any

from toolkit.corpora.prepared import Recipe, Shard, check_shards, merge
from toolkit.errors import InputError
from toolkit.pretraining.arguments import (
    MergeArguments,
    PrepareArguments,
    PrepareBertArguments,
    PrepareElectraArguments,
    PrepareElmoArguments,
)
from toolkit.pretraining.text import OUTPUT_WORDS, PREPARED_FILE, TOKENIZER, WINDOWS, TextRun
from toolkit.reports.results import RESULTS_FILE, check_output_dir, create_output_dir, write_json

PREPARATION: dict[str, type] = {
    "bert": PrepareBertArguments,
    "electra": PrepareElectraArguments,
    "elmo": PrepareElmoArguments,
    "merge": MergeArguments,
}


SPLITS = ("train", "validation")


class Preparation(TextRun):
    """A run that ends when there are windows."""

    arguments: PrepareArguments

    def prepare(self, recipe: Recipe) -> Any:
        folder, shard = self.create_output_dir(), Shard(*map(int, self.arguments.shard.split("/")))
        self.make(self.corpus, recipe, folder / "train", shard)
        self.make(self.held_out, recipe, folder / "validation", shard)


def prepare_windows(method: str, arguments: PrepareArguments) -> None:
    """Leave in the output folder windows of a corpus, with their tokenizers, for `toolkit pretrain METHOD`.

    What a run that was stopped has left there is not made again.
    """
    output_dir = Path(arguments.output_dir)
    is_of_training = (output_dir / RESULTS_FILE).exists()
    run = Preparation(method, arguments, None if arguments.overwrite_output_dir or is_of_training else True)
    if run.made is not None:
        raise InputError(f"--corpus {arguments.corpus}: is prepared already")
    if WINDOWS[method] == "words":
        tokenizer, words, _ = run.windows_of_words("an ELMo")
        words.save_pretrained(output_dir / OUTPUT_WORDS)
    else:
        tokenizer, _ = run.windows_of_pieces({"bert": "a BERT", "electra": "an ELECTRA"}[method])
    tokenizer.save_pretrained(output_dir / TOKENIZER)
    settings = {name: getattr(arguments, name) for name in ("max_length", "packing") if hasattr(arguments, name)}
    write_json(output_dir / PREPARED_FILE, {"windows": WINDOWS[method], **settings})


def merge_shards(arguments: MergeArguments) -> None:
    """Put the shards of one preparation together. Raises `InputError` unless each is there once, whole."""
    folders, output = [Path(folder) for folder in arguments.folders], Path(arguments.output_dir).resolve()
    if inside := [folder for folder in folders if output in (folder.resolve(), *folder.resolve().parents)]:
        raise InputError(
            f"--output_dir {arguments.output_dir}: holds {inside[0]}, which is to be merged; name another"
        )
    for folder in folders:
        if not (folder / PREPARED_FILE).is_file():
            raise InputError(f"{folder}: is not prepared to its end; repeat the command that began it")
        if not filecmp.cmp(folder / PREPARED_FILE, folders[0] / PREPARED_FILE, shallow=False):
            raise InputError(f"{folder}: was prepared with other settings than {folders[0]}")
    for split in SPLITS:
        check_shards([folder / split for folder in folders])
    check_output_dir(arguments.output_dir, overwrite=arguments.overwrite_output_dir)
    output_dir = create_output_dir(arguments.output_dir, arguments.overwrite_output_dir)
    for split in SPLITS:
        merge([folder / split for folder in folders], output_dir / split)
    for name in (TOKENIZER, OUTPUT_WORDS):
        if (folders[0] / name).is_dir():
            shutil.copytree(folders[0] / name, output_dir / name)
    shutil.copyfile(folders[0] / PREPARED_FILE, output_dir / PREPARED_FILE)
