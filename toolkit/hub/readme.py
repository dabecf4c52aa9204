"""The parts of a README.md: the metadata as YAML, and the generated text from a template."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import InputError, first_line, readable

CARD = "README.md"
_METADATA = re.compile(r"\A---\n(.*?)\n?---\n", re.DOTALL)


def split_metadata(text: str, name: str) -> tuple[dict[str, Any], str]:
    """Split a card into its metadata and its text. Raises `InputError`, with `name`, if the metadata are malformed."""
    found = _METADATA.match(text)
    if found is None:
        return {}, text
    try:
        metadata = yaml.safe_load(found[1]) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"{name}: the metadata between the lines --- are no YAML ({first_line(error)})") from None
    if not isinstance(metadata, dict):
        raise InputError(f"{name}: the metadata between the lines --- are no mapping")
    return metadata, text[found.end() :]


def read_text(path: Path) -> str:
    with readable(path):
        return path.read_text(encoding="utf-8")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is no file. Raises `InputError` if it contains anything else."""
    text = read_text(path) if path.is_file() else "{}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a mapping")
    return found


def render(**fields: Any) -> str:
    """Fill in the template of the block."""
    import jinja2

    template = files("toolkit.hub").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined)
    rendered = environment.from_string(template).render(**fields)
    return re.sub(r"\n+(?=## )", "\n\n", rendered).strip()
