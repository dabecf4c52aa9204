"""Tokenize a corpus of any size once, on all cores or many machines, for toolkit pretrain bert, electra, rnn
or elmo.

toolkit prepare bert --corpus 'texts/*.jsonl' --tokenizer runs/wordpiece --output_dir runs/windows
toolkit prepare bert --corpus org/name --tokenizer runs/wordpiece --output_dir runs/part_3 --shard 3/8
toolkit prepare merge runs/part_0 runs/part_1 runs/part_2 runs/part_3 --output_dir runs/windows
toolkit prepare elmo --corpus texts/ --output_dir runs/windows --deduplicate near --unit document --min_words 3
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.cli.flags import parse_kind
from toolkit.pretraining.preparation import SPLITS, MergeArguments, merge_shards, prepare_arguments, prepare_folder


def parse(words: Sequence[str]) -> tuple[str, Any]:
    return parse_kind(words, "toolkit prepare", "METHOD", prepare_arguments(), __doc__, ["folders"])


def run(parsed: tuple[str, Any]) -> None:
    from toolkit.corpora.prepared import read_index

    method, arguments = parsed
    if isinstance(arguments, MergeArguments):
        merge_shards(arguments)
        shard = ""
    else:
        prepare_folder(method, arguments)
        shard = "" if arguments.shard.shard == "0/1" else f", shard {arguments.shard.shard}"
    folder = Path(arguments.output.output_dir)
    blocks = {split: read_index(folder / split)["blocks"] for split in SPLITS}
    windows = {split: sum(block["num_rows"] for block in of_split) for split, of_split in blocks.items()}
    size = sum(block["num_bytes"] for of_split in blocks.values() for block in of_split) / 1e6
    print(
        f"{folder}: {windows['train']:,} windows to train on, {windows['validation']:,} held out, "
        f"{size:,.1f} MB{shard}"
    )
