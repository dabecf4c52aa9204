"""What images and recordings share: they are files, which are opened when they are needed."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from toolkit.data.media_files import MediaFiles
from toolkit.data.sources import Source
from toolkit.errors import InputError
from toolkit.modalities.base import Modality


def png_url(content: bytes) -> str:
    """A PNG as a `data:` URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


class MediaModality(Modality):
    """A modality whose items are files. Its `columns` are a subclass of `SkipBroken`, with the flag `NAME_column`."""

    files: ClassVar[MediaFiles]

    def open_labelled(
        self, source: str, columns: Any, label_column: str | None, group_column: str | None = None
    ) -> Source:
        opened = self.files.open_labelled(source, self._column(columns), label_column, group_column=group_column)
        return self._without_broken(opened, columns)

    def open_unlabelled(self, source: str, columns: Any) -> Source:
        return self._without_broken(self.files.open_unlabelled(source, self._column(columns)), columns)

    def _column(self, columns: Any) -> str | None:
        return getattr(columns, f"{self.name}_column")

    def _without_broken(self, source: Source, columns: Any) -> Source:
        if not columns.skip_broken:
            return source
        return source.with_rows(lambda rows: self.files.without_broken(rows, source.found))

    def read_inputs(self, inputs: Sequence[str | Path], skip_broken: bool = False):
        for given in inputs:
            if isinstance(given, str):
                raise InputError(f"{given}: no such file, expected {self.files.noun}s")
        rows = self.files.load_inputs(inputs)
        return self.files.without_broken(rows) if skip_broken else rows

    def describe(self, row: dict[str, Any]) -> dict[str, Any]:
        return {self.name: row["name"]}

    def title(self, row: dict[str, Any]) -> str:
        return row["name"]
