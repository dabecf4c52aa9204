"""A corpus prepared once, for example tokenized: Arrow files, memory-mapped, one for each block of the corpus.

Processes write them side by side, each file completely or not at all, so an interrupted run continues where it
stopped. The files do not depend on the number of processes. Several machines can each prepare a shard of the blocks.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from toolkit.corpora.blocks import Block, chunks_of, content_hash
from toolkit.corpora.cleaning import Notes
from toolkit.corpora.workers import OnDone, map_in_order
from toolkit.data.cache import cache_folder, digest, locked
from toolkit.errors import InputError
from toolkit.runs.output import write_json

if TYPE_CHECKING:
    from toolkit.corpora.corpus import Corpus

INDEX = "index.json"
_PLAN = "plan.json"  # until there is an index
_OF_ALL_SHARDS = ("corpus", "recipe", "num_blocks")


class Recipe(Protocol):
    """Makes Arrow columns of equal length from a batch of texts. `key` identifies the recipe and its settings."""

    @property
    def key(self) -> str: ...

    def __call__(self, texts: list[Any], /) -> Mapping[str, Any]: ...


class AsItIs:
    """The recipe that keeps the texts, in the column `text`."""

    key = "text"

    def __call__(self, texts: list[str]) -> dict[str, list[str]]:
        return {"text": texts}


class Shard(NamedTuple):
    """The blocks that one of several machines prepares: every `of`-th, from `number` on, counted from 0."""

    number: int = 0
    of: int = 1


WHOLE = Shard()


def prepare(
    corpus: Any,
    recipe: Recipe,
    folder: Path | None = None,
    num_proc: int | None = None,
    shard: Shard = WHOLE,
    on_block: OnDone | None = None,
) -> Path:
    """Apply a recipe to a corpus, in order, unless that was done before. Returns the folder, for `open_prepared`.

    Args:
        corpus: A `Corpus`, or an object with its `blocks`, `faults`, `key` and `read`.
        recipe: Makes columns of its texts.
        folder: Where to write them, by default a folder of the cache.
        num_proc: Number of processes, by default one per core.
        shard: Which blocks to prepare.
        on_block: Called after each block.

    Raises:
        InputError: The folder holds something else, or the corpus cannot be read.
    """
    plan = {"corpus": corpus.key, "recipe": recipe.key, "num_blocks": len(corpus.blocks), "shard": list(shard)}
    folder = folder or cache_folder() / "prepared" / digest(plan)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(str(folder.absolute())):
        _check_plan(folder, plan)
        blocks = list(enumerate(corpus.blocks))[shard.number :: shard.of]
        if not (folder / INDEX).is_file():
            write_json(folder / _PLAN, plan)
            records = list(map_in_order(partial(_write_block, corpus, recipe, folder), blocks, num_proc, on_block))
            write_json(folder / INDEX, {**plan, "faults": corpus.faults, "blocks": records})
        for intermediate in (folder / _PLAN, *(_record_file(folder, number) for number, _ in blocks)):
            intermediate.unlink(missing_ok=True)
    return folder


def open_prepared(folder: Path):
    """Open the rows as a `datasets.Dataset`. Raises `InputError` if they are incomplete."""
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


def rows_made_of(corpus: "Corpus", recipe: Recipe):
    """Prepare a corpus in the cache and open it, a `datasets.Dataset`."""
    return open_prepared(prepare(corpus, recipe))


def notes_of(folder: Path) -> Notes:
    """What was left out of the corpus."""
    notes, index = Notes(), read_index(folder)
    for part in (index, *index["blocks"]):
        notes.add(part["faults"], part.get("counts", {}))
    return notes


def check_shards(folders: Sequence[Path]) -> None:
    """Raises `InputError` unless the folders hold all shards of one preparation, each once and undamaged."""
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
            if not file.is_file() or content_hash(chunks_of(str(file))) != block["content"]:
                raise InputError(f"{file}: damaged or gone; prepare this shard again")
    if missing := [str(number) for number in range(of) if number not in shards]:
        raise InputError(f"of {of} shards {', '.join(missing)} are missing among {', '.join(map(str, folders))}")


def merge(folders: Sequence[Path], output_dir: Path) -> None:
    """Combine checked shards into what one machine would have written; files are linked where that is possible."""
    output_dir.mkdir(parents=True, exist_ok=True)
    blocks = []
    for folder in folders:
        index = read_index(folder)
        for block in index["blocks"]:
            source, target = _rows_file(folder, block["number"]), _rows_file(output_dir, block["number"])
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
            blocks.append(block)
    blocks.sort(key=itemgetter("number"))
    write_json(output_dir / INDEX, {**index, "shard": WHOLE, "blocks": blocks})


def read_index(folder: Path) -> dict[str, Any]:
    """Read the description of a prepared folder. Raises `InputError` if its preparation has not ended."""
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: is not prepared to its end; repeat the command that began it") from None
    except ValueError:
        raise InputError(f"{folder / INDEX}: damaged; delete {folder} and prepare it again") from None


def _write_block(corpus: "Corpus", recipe: Recipe, folder: Path, numbered: tuple[int, Block]) -> dict[str, Any]:
    """Write the rows of one block, unless that was done before. Returns its record for the index."""
    import pyarrow

    number, block = numbered
    record_file, file = _record_file(folder, number), _rows_file(folder, number)
    if record_file.is_file():
        return json.loads(record_file.read_text(encoding="utf-8"))
    partial_file, writer, num_rows, notes = file.with_suffix(".partial"), None, 0, Notes()
    with open(partial_file, "wb") as opened:
        for texts in corpus.read(block, notes):
            batch = pyarrow.RecordBatch.from_pydict(recipe(texts))
            writer = writer or pyarrow.ipc.new_stream(opened, batch.schema)
            if batch.num_rows:
                writer.write_batch(batch)
                num_rows += batch.num_rows
        if writer is not None:
            writer.close()
    os.replace(partial_file, file)
    content = content_hash(chunks_of(str(file)))
    record = {"number": number, "num_rows": num_rows, "num_bytes": file.stat().st_size, "content": content}
    record |= {"faults": notes.faults, "counts": notes.counts}
    write_json(record_file, record)
    return record


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Raises `InputError` if the folder holds, or was to hold, something else."""
    for name in (INDEX, _PLAN):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8"))
            for field, what in (("corpus", "text"), ("recipe", "settings, or tokenizer"), ("shard", "shard")):
                if found[field] != plan[field]:
                    raise InputError(f"{folder}: was prepared of other {what}; name another folder or delete this one")


def _rows_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.arrow"


def _record_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"
