"""From data classes of arguments to a command line: each field is a flag, the string below it its help text.

Flags appear in `--help` in sections, one for each group of arguments: first those of the command in the order of the
groups, then those of `GENERAL_FLAGS`.
"""

import argparse
import dataclasses
import functools
import os
import re
import textwrap
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments, Flag, flags_of, from_flags, plain_type

GENERAL_FLAGS = ("toolkit.training.arguments", "toolkit.hub.arguments")  # modules whose sections come last
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def parse_flags(
    words: Sequence[str],
    arguments_class: type,
    program: str,
    documentation: str,
    positionals: Collection[str] = (),
    notes: Mapping[str, str] = {},
) -> Any:
    """Parse the words of a command line to the command's data class of arguments.

    `--config FILE` reads flags from a yaml file. `--help` prints the documentation (its first paragraph above the
    flags, the rest as examples below them) and exits.

    Args:
        program: What the command is called.
        documentation: Docstring of the command.
        positionals: Flags that are given without their name.
        notes: Text to add to the help of some flags.

    Raises:
        InputError: A flag is unknown, missing or malformed.
    """
    (arguments,) = parse_several(words, {arguments_class: ()}, program, documentation, positionals, notes)
    return arguments


def parse_several(
    words: Sequence[str],
    classes: Mapping[type, Collection[str]],
    program: str,
    documentation: str,
    positionals: Collection[str] = (),
    notes: Mapping[str, str] = {},
    given: Mapping[str, Any] = {},
) -> list[Any]:
    """Like `parse_flags` for several classes, each with the names of its flags that are not offered. `given` holds
    values for those of them that are required."""
    import jsonargparse

    offered = {
        cls: {name: flag for name, flag in flags_of(cls).items() if name not in hidden}
        for cls, hidden in classes.items()
    }
    flags = {name: flag for of_class in offered.values() for name, flag in of_class.items()}
    parser = _parser(flags, program, documentation, positionals, notes)
    try:
        values = parser.parse_args(list(words))
    except jsonargparse.ArgumentError as error:
        message = " ".join(str(error).split()).replace('Parser key "', "--").replace('":', ":", 1)
        raise InputError(f"{message.rstrip('.')}; see: {program} --help") from None
    found: list[Any] = []
    for cls, of_class in offered.items():
        others = {name: value for name, value in given.items() if name in classes[cls]}
        found.append(from_flags(cls, **{name: _expanded(values[name]) for name in of_class}, **others))
    return found


def _expanded(value: Any) -> Any:
    """The value of a flag with the home folder in place of `~/`, also behind a prefix such as `scratch:`."""
    if isinstance(value, list):
        return list(map(_expanded, value))
    if isinstance(value, str) and (found := re.match(r"(\w+:)?~/", value)):
        prefix = found[1] or ""
        return prefix + os.path.expanduser(value.removeprefix(prefix))
    return value


def parse_kind(
    words: Sequence[str],
    program: str,
    name: str,
    classes: Mapping[str, Any],
    documentation: str,
    positionals: Collection[str] = (),
    notes: Mapping[str, Mapping[str, str]] = {},
) -> tuple[str, Any]:
    """Parse the words of a command that has kinds, such as `elmo` in `pretrain elmo`, with flags of their own.

    Args:
        name: What a kind is called, in capitals.
        classes: For each kind its data class of arguments, or a function that returns it.
        notes: For each kind, text to add to the help of some flags.

    Returns:
        The kind and its arguments.
    """
    summary, examples = _split(documentation)
    if not words or words[0] in ("-h", "--help"):
        print(
            f"usage: {program} {name} [flags]\n\n{summary}\n\n{name} is one of {', '.join(classes)}; each has its own "
            f"flags: {program} {next(iter(classes))} --help\n\nexamples:\n{textwrap.indent(examples, '  ')}"
        )
        raise SystemExit(0 if words else 2)
    kind = words[0]
    if kind not in classes:
        raise InputError(f"unknown {name.lower()} '{kind}', expected one of {', '.join(classes)}")
    arguments_class = classes[kind] if isinstance(classes[kind], type) else classes[kind]()
    if of_this_kind := [line for line in examples.splitlines() if f"{program} {kind} " in line]:
        documentation = "\n\n".join([summary, "\n".join(of_this_kind)])
    program = f"{program} {kind}"
    return kind, parse_flags(words[1:], arguments_class, program, documentation, positionals, notes.get(kind, {}))


def _split(documentation: str) -> tuple[str, str]:
    """The first paragraph of a docstring, as one line, and the rest."""
    summary, _, rest = documentation.strip().partition("\n\n")
    return " ".join(summary.split()), rest.strip()


def _parser(
    flags: Mapping[str, Flag],
    program: str,
    documentation: str,
    positionals: Collection[str],
    notes: Mapping[str, str],
):
    import jsonargparse

    class HelpFormatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
        def _get_help_string(self, action) -> str:  # without types
            return action.help

    required = [name for name, flag in flags.items() if flag.default is dataclasses.MISSING]
    usage = [name.upper() if name in positionals else f"--{name} {name.upper()}" for name in required]
    summary, examples = _split(documentation)
    parser = jsonargparse.ArgumentParser(
        prog=program,
        usage=" ".join([program, *usage, "[flags]"]),
        description=textwrap.fill(summary, 100),
        epilog="examples:\n" + textwrap.indent(examples, "  "),
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        add_help=False,  # added last, below the flags of the command
    )
    sections: dict[str, Any] = {}
    order = {name: (name not in required, flag.owner.__module__ in GENERAL_FLAGS) for name, flag in flags.items()}
    for name in sorted(flags, key=order.__getitem__):
        flag = flags[name]
        title = "required" if name in required else (flag.owner.__doc__ or "flags").splitlines()[0]
        if title not in sections:
            sections[title] = parser.add_argument_group(title)
        is_positional = name in positionals
        options = _options(flag, is_positional, notes.get(name, ""))
        sections[title].add_argument(name if is_positional else f"--{name}", **options)
    general = parser.add_argument_group("help and configuration")
    general.add_argument("-h", "--help", action="help", help="Show this text and exit.")
    general.add_argument(
        "--config", action="config", metavar="FILE", help="Read flags from a yaml file; the command line has priority."
    )
    return parser


def _options(flag: Flag, is_positional: bool, note: str) -> dict[str, Any]:
    """What argparse is told about a flag."""
    text = f"{_help_of(flag)} {note}".strip()
    options: dict[str, Any] = {}
    if flag.default is not dataclasses.MISSING:
        options["default"] = flag.default
        if flag.default not in (None, False, []):
            shown = " ".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
            text += f" (default: {shown})"
    elif not is_positional:
        options["required"] = True
    options["help"] = text.replace("%", "%%")
    if flag.type is bool:
        return options | {"action": "store_true"}
    plain = plain_type(flag.type)
    # Of an optional text, jsonargparse would read `null`, `~` and `#…` as YAML does, as nothing.
    options["type"] = str if plain is str else flag.type
    if typing.get_origin(plain) is list:
        (plain,) = typing.get_args(plain)
        options |= {"nargs": "*" if is_positional else "+", "type": plain}
    if not is_positional and plain in _METAVARS:
        options["metavar"] = _METAVARS[plain]
    elif typing.get_origin(plain) is typing.Literal:
        options["metavar"] = f"{{{','.join(map(str, typing.get_args(plain)))}}}"
    return options


def _help_of(flag: Flag) -> str:
    """The string below the field, of the most derived class that has one."""
    classes = flag.group.__mro__[: flag.group.__mro__.index(Arguments)]
    return next((texts[flag.name] for texts in map(_help_texts, classes) if flag.name in texts), "")


@functools.cache  # reads and parses the file of the class
def _help_texts(arguments_class: type) -> dict[str, str]:
    """The strings below the fields of a class."""
    from docstring_parser import parse_from_object

    entries = parse_from_object(arguments_class).params
    return {entry.args[1]: " ".join(entry.description.split()) for entry in entries if entry.description}
