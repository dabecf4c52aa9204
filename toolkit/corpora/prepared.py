"""What is made of a corpus, once: Arrow files, memory-mapped, one for each block of the corpus.

Processes make them side by side, each file whole or not at all, so that a run which was killed goes on where it
stopped, and the files are the same however many processes there were. Machines can share the blocks out among them.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from toolkit.corpora.blocks import CHUNK, Block, content_of
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.corpus import Corpus, cache_folder, digest, locked
from toolkit.corpora.workers import map_in_order
from toolkit.errors import InputError
from toolkit.runs.output import write_json

INDEX = "index.json"
_PLAN = "plan.json"  # until there is an index
_OF_ALL_SHARDS = ("corpus", "recipe", "num_blocks")


class Recipe(Protocol):
    """What becomes of a batch of texts: columns of equal length, for Arrow. `key` tells it from every other recipe."""

    @property
    def key(self) -> str: ...

    def __call__(self, texts: list[str]) -> Mapping[str, Any]: ...


class AsItIs:
    """The recipe for the texts themselves, in the column `text`."""

    key = "text"

    def __call__(self, texts: list[str]) -> dict[str, list[str]]:
        return {"text": texts}


class Shard(NamedTuple):
    """Every so manieth block, the part of one of several machines; they count from 0."""

    number: int = 0
    of: int = 1


WHOLE = Shard()


def prepare(
    corpus: Corpus,
    recipe: Recipe,
    folder: Path | None = None,
    num_proc: int | None = None,
    shard: Shard = WHOLE,
    on_block: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Make of the corpus what `recipe` says, in its order, unless it is there already. Returns the folder that it is
    in, by default one of the cache, for `open_prepared`.

    `on_block` is told how many blocks are done, of how many. Raises `InputError` where something else is in the
    folder, or the corpus cannot be read.
    """
    plan = {"corpus": corpus.key, "recipe": recipe.key, "num_blocks": len(corpus.blocks), "shard": list(shard)}
    folder = folder or cache_folder() / "prepared" / digest(plan)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(str(folder.absolute())):
        _check_plan(folder, plan)
        mine = list(enumerate(corpus.blocks))[shard.number :: shard.of]
        if not (folder / INDEX).is_file():
            write_json(folder / _PLAN, plan)
            blocks = []
            for made in map_in_order(partial(_make, corpus, recipe, folder), mine, num_proc):
                blocks.append(made)
                on_block(len(blocks), len(mine))
            write_json(folder / INDEX, {**plan, "faults": corpus.faults, "blocks": blocks})
        for left in (folder / _PLAN, *(_made_file(folder, number) for number, _ in mine)):
            left.unlink(missing_ok=True)
    return folder


def open_prepared(folder: Path):
    """The rows, a `datasets.Dataset`. Raises `InputError` where they are not whole."""
    import datasets
    from datasets.table import MemoryMappedTable, concat_tables

    index = read_index(folder)
    if index["shard"] != list(WHOLE):
        number, of = index["shard"]
        raise InputError(f"{folder}: holds shard {number} of {of} alone; put all together with toolkit prepare merge")
    tables = []
    for block in index["blocks"]:
        file = _rows_file(folder, block["number"])
        if not file.is_file() or file.stat().st_size != block["num_bytes"]:
            raise InputError(f"{file}: damaged or gone; delete {folder} and prepare it again")
        if block["num_rows"]:
            tables.append(MemoryMappedTable.from_file(str(file)))
    if not tables:
        return datasets.Dataset.from_dict({})
    return datasets.Dataset(concat_tables(tables), fingerprint=digest(index))


def rows_made_of(corpus: Corpus, recipe: Recipe):
    """What `recipe` makes of the corpus, a `datasets.Dataset`, made now or kept from when it was before."""
    return open_prepared(prepare(corpus, recipe))


def lists_of(values, lengths):
    """Values one after the other, and the length of each list, as a column of lists."""
    import numpy as np
    import pyarrow

    return pyarrow.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), values)


def notes_of(folder: Path) -> Notes:
    """What of the corpus was left out."""
    notes, index = Notes(), read_index(folder)
    for part in (index, *index["blocks"]):
        notes.add(part["faults"], part.get("counts", {}))
    return notes


def check_shards(folders: Sequence[Path]) -> None:
    """Raises `InputError` unless these are all shards of one preparation, each there once and whole."""
    shards: dict[int, Path] = {}
    first = read_index(folders[0])
    for folder in folders:
        index = read_index(folder)
        number, of = index["shard"]
        if of != first["shard"][1] or any(index[field] != first[field] for field in _OF_ALL_SHARDS):
            raise InputError(f"{folder}: was not prepared of the same corpus in the same way as {folders[0]}")
        if number in shards:
            raise InputError(f"{folder}: is shard {number} of {of}, and so is {shards[number]}")
        shards[number] = folder
        for block in index["blocks"]:
            file = _rows_file(folder, block["number"])
            if not file.is_file() or _content(file) != block["content"]:
                raise InputError(f"{file}: damaged or gone; prepare this shard again")
    if missing := [str(number) for number in range(of) if number not in shards]:
        raise InputError(f"of {of} shards {', '.join(missing)} are missing among {', '.join(map(str, folders))}")


def merge(folders: Sequence[Path], output_dir: Path) -> None:
    """Put shards that were checked together, as one machine would have made the whole, by links where there can be."""
    indices = {folder: read_index(folder) for folder in folders}
    blocks = [(block, folder) for folder, index in indices.items() for block in index["blocks"]]
    blocks.sort(key=lambda found: found[0]["number"])
    output_dir.mkdir(parents=True, exist_ok=True)
    for block, folder in blocks:
        source, target = _rows_file(folder, block["number"]), _rows_file(output_dir, block["number"])
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    whole = {"shard": WHOLE, "blocks": [block for block, _ in blocks]}
    write_json(output_dir / INDEX, {**indices[folders[0]], **whole})


def read_index(folder: Path) -> dict[str, Any]:
    """What a folder says of what is in it. Raises `InputError` where it is not whole."""
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: is not prepared to its end; repeat the command that began it") from None
    except ValueError:
        raise InputError(f"{folder / INDEX}: damaged; delete {folder} and prepare it again") from None


def _make(corpus: Corpus, recipe: Recipe, folder: Path, numbered: tuple[int, Block]) -> dict[str, Any]:
    """Make the rows of one block, if that is not done, and what the index says of them."""
    import pyarrow

    number, block = numbered
    made_file, file = _made_file(folder, number), _rows_file(folder, number)
    if made_file.is_file():
        return json.loads(made_file.read_text(encoding="utf-8"))
    aside, writer, num_rows, notes = file.with_suffix(".partial"), None, 0, Notes()
    with open(aside, "wb") as opened:
        for texts in corpus.read(block, notes):
            batch = pyarrow.RecordBatch.from_pydict(recipe(texts))
            writer = writer or pyarrow.ipc.new_stream(opened, batch.schema)
            if batch.num_rows:
                writer.write_batch(batch)
                num_rows += batch.num_rows
        if writer is not None:
            writer.close()
    os.replace(aside, file)
    made = {"number": number, "num_rows": num_rows, "num_bytes": file.stat().st_size, "content": _content(file)}
    made |= {"faults": notes.faults, "counts": notes.counts}
    write_json(made_file, made)
    return made


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Raises `InputError` where the folder holds, or was to hold, something else."""
    for name in (INDEX, _PLAN):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8"))
            for field, what in (("corpus", "text"), ("recipe", "settings, or tokenizer"), ("shard", "shard")):
                if found[field] != plan[field]:
                    raise InputError(f"{folder}: was prepared of other {what}; name another folder or delete this one")


def _rows_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.arrow"


def _made_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def _content(file: Path) -> str:
    with open(file, "rb") as opened:
        return content_of(iter(lambda: opened.read(CHUNK), b""))
