"""What visitors may add: files are known by their content, not by their names, and decoded before they are kept.

An image is kept as a PNG and a recording as a FLAC, at most as large as encoders read them. What a camera or an editor
wrote beside the pixels, such as a place, is not kept.
"""

import io
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.app.project import (
    FILES,
    MOST_BYTES,
    PROJECT_FILE,
    NewExample,
    Project,
    as_size,
    parse_project,
)
from toolkit.data.audio_decoding import head_of, open_audio
from toolkit.data.image_decoding import open_image
from toolkit.data.media_files import as_file
from toolkit.errors import InputError, extra, first_line

MOST_BYTES_OF_FILE = 25 * 2**20
LARGEST_SIDE = 256  # pixels
SAMPLING_RATE = 16_000  # Hz, at most
LONGEST_SECONDS = 60.0
LONGEST_TEXT = 2_000  # characters
MOST_SHOWN = 3  # reasons
_ARCHIVES = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf\x27\x1c": "7z"}
_ARCHIVES |= {b"Rar!": "rar", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_TAR_MARK, _TAR_PLACE = b"ustar", 257


def read_image(path: Path, name: str) -> NewExample:
    """An image file. Raises `InputError` if it is too large, an archive, or no image that can be decoded."""
    _check_file(path, name)
    return image_of(open_image(as_file(path), name), name)


def image_of(image: Any, name: str, burst: str = "") -> NewExample:
    """An image of Pillow, or an array (height, width, 3) of bytes; `burst` identifies a recording of a camera."""
    from PIL import Image

    image = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    file = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "PNG")  # of the pixels alone, without what else is known of them
    return NewExample(file.getvalue(), name, ".png", burst)


def read_recording(path: Path, name: str) -> NewExample:
    """A recording. Raises `InputError` if it is too large or too long, an archive, or cannot be decoded."""
    _check_file(path, name)
    audio = as_file(path)
    head = head_of(audio, name)
    if head.seconds > LONGEST_SECONDS:
        raise InputError(
            f"{name}: {head.seconds:.0f} seconds long, at most {LONGEST_SECONDS:.0f} are allowed; cut it into examples"
        )
    rate = min(SAMPLING_RATE, head.sampling_rate)
    return _recording(open_audio(audio, name, rate), rate, name)


def recording_of(rate: int, samples: np.ndarray, name: str) -> NewExample:
    """What a microphone recorded: whole numbers or floats from -1 to 1, (N,) or (N, channels), at `rate` Hz."""
    with extra("audio"):
        import soundfile

    if not len(samples):
        raise InputError(f"{name}: there is no sound in it, it holds no samples")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    audio = {"bytes": file.getvalue(), "path": None}
    new_rate = min(SAMPLING_RATE, rate)
    return _recording(open_audio(audio, name, new_rate)[: round(LONGEST_SECONDS * new_rate)], new_rate, name)


def amplitude_of(samples: np.ndarray) -> float:
    """The largest amplitude of samples, whole numbers or floats from -1 to 1."""
    full = np.iinfo(samples.dtype).max if np.issubdtype(samples.dtype, np.integer) else 1.0
    return float(np.abs(samples.astype(np.float64)).max(initial=0)) / full


def _recording(samples: np.ndarray, rate: int, name: str) -> NewExample:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), rate, format="FLAC", subtype="PCM_16")
    return NewExample(file.getvalue(), name, ".flac")


def read_texts(text: str, first_line: int = 1) -> list[NewExample]:
    """One example for each line that is not empty. Raises `InputError` if a line is too long."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for number, line in enumerate(lines, start=first_line):
        if len(line) > LONGEST_TEXT:
            raise InputError(f"line {number}: {len(line):,} characters, at most {LONGEST_TEXT:,} are allowed")
    return [NewExample(line, line) for line in lines if line]


def read_table(text: str) -> dict[str, list[NewExample]]:
    """Texts by label from lines of text, tab, label, as a spreadsheet puts them on the clipboard.

    Raises `InputError` if a line has no label.
    """
    found: dict[str, list[NewExample]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        text, tab, label = line.rpartition("\t")
        if not tab or not text.strip() or not label.strip():
            raise InputError(f"line {number}: expected a text, a tab and a label")
        found.setdefault(" ".join(label.split()), []).extend(read_texts(text, number))
    return found


def read_files(
    files: Sequence[tuple[Path, str]], read: Callable[[Path, str], NewExample], check: Callable[[int, int], None]
) -> tuple[list[NewExample], list[str]]:
    """Read uploaded files, each with its name: those that can be read, and the reasons why others cannot.

    `check` is called with the number of files and of the bytes that are to be kept, before more is read.
    """
    found: list[NewExample] = []
    reasons: list[str] = []
    num_bytes = 0
    for path, name in files:
        check(len(files), num_bytes)
        try:
            found.append(read(path, name))
            num_bytes += len(found[-1].content)
        except InputError as error:
            reasons.append(str(error))
    return found, reasons


def summary_of(reasons: Sequence[str]) -> str:
    """The reasons why files were left out, in a few lines."""
    first = list(reasons[:MOST_SHOWN])
    if len(reasons) > MOST_SHOWN:
        first.append(f"and {len(reasons) - MOST_SHOWN:,} more")
    return "\n".join(first)


def _check_file(path: Path, name: str) -> None:
    """Raises `InputError` if a file is too large or an archive."""
    if not path.is_file():
        raise InputError(f"{name}: the upload no longer exists; add it again")
    size = path.stat().st_size
    if size > MOST_BYTES_OF_FILE:
        raise InputError(
            f"{name}: {as_size(size)}, at most {as_size(MOST_BYTES_OF_FILE)} are allowed; make it smaller"
        )
    with path.open("rb") as file:
        head = file.read(_TAR_PLACE + len(_TAR_MARK))
    kind = next((kind for mark, kind in _ARCHIVES.items() if head.startswith(mark)), None)
    kind = "tar" if head[_TAR_PLACE:] == _TAR_MARK else kind
    if kind is not None:
        raise InputError(f"{name}: a {kind} archive; unpack it, and add the files or the folder in it")


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a file of an archive, at most as much as its head says. Raises `ValueError` if that is a lie."""
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may unpack without a limit
        raise ValueError(f"{name}: an unsupported compression method")
    with archive.open(entry) as file:
        return file.read(entry.file_size)


# What zipfile and json raise for what they cannot read.
_BROKEN = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
READERS: dict[str, Callable[[Path, str], NewExample]] = {"image": read_image, "audio": read_recording}


def read_project(path: Path, folder: Path) -> Project:
    """Open a project that is one file, in a folder that does not exist yet.

    Everything in it is checked like what visitors add, and no file is written outside the folder. Raises `InputError`
    if it is no project.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise InputError(f"{path.name}: holds more than {as_size(MOST_BYTES)}")
            kind, state = parse_project(_unpacked(archive, PROJECT_FILE).decode())
            project = Project(folder, kind)
            keys = {}
            for each in state.classes:
                keys[each.key] = project.add_class(each.name).key
                project.change_class(keys[each.key], color=each.color)
            of_class: dict[int, list[NewExample]] = {key: [] for key in keys.values()}
            num_bytes = 0
            for example in state.examples:
                if kind == "text":
                    (new,) = read_texts(example.content)
                else:
                    unpacked = folder / example.content
                    unpacked.write_bytes(_unpacked(archive, f"{FILES}/{example.content}"))
                    new = READERS[kind](unpacked, example.name)
                    unpacked.unlink()
                num_bytes += len(new.content)
                project.check_room(len(state.examples), num_bytes)
                of_class[keys[example.of_class]].append(new._replace(burst=example.burst))
            for key, examples in of_class.items():
                project.add(key, examples)
            project.forget()
            return project
    except _BROKEN as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{path.name}: holds no project of this page ({first_line(error)})") from None
