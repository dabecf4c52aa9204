"""From data classes of arguments to a command line: each field is a flag, the string below it its help text.

Flags appear in `--help` in sections, one for each group of arguments, in the order of the groups.
"""

import dataclasses
import textwrap
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from toolkit.errors import InputError
from toolkit.runs.arguments import Arguments, Flag, flags_of, from_flags, plain_type

_METAVARS = {int: "N", float: "X", str: "TEXT"}


def parse_flags(
    words: Sequence[str],
    arguments_class: type,
    program: str,
    documentation: str,
    positionals: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Any:
    """Parse the words of a command line.

    `--config FILE` reads flags from a yaml file. `--help` prints the documentation (its first paragraph above the
    flags, the rest as examples below them) and exits.

    Args:
        words: The words after the command.
        arguments_class: Data class of the command's arguments.
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
    notes: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Like `parse_flags` for the flags of several classes together.

    Args:
        classes: The classes, and for each the flags that are not offered.
        given: Values of required flags that are not offered.
    """
    import jsonargparse

    offered = {
        cls: {name: flag for name, flag in flags_of(cls).items() if name not in hidden}
        for cls, hidden in classes.items()
    }
    flags = {name: flag for of_class in offered.values() for name, flag in of_class.items()}
    parser = _parser(flags, program, documentation, positionals, notes or {})
    try:
        values = parser.parse_args(list(words))
    except jsonargparse.ArgumentError as error:
        message = " ".join(str(error).split()).replace('Parser key "', "--").replace('":', ":", 1)
        raise InputError(f"{message.rstrip('.')}; see: {program} --help") from None
    found: list[Any] = []
    for cls, of_class in offered.items():
        others = {name: value for name, value in (given or {}).items() if name in classes[cls]}
        found.append(from_flags(cls, **{name: values[name] for name in of_class}, **others))
    return found


def parse_kind(
    words: Sequence[str],
    program: str,
    name: str,
    classes: Mapping[str, Any],
    documentation: str,
    positionals: Collection[str] = (),
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[str, Any]:
    """Parse the words of a command that has kinds, such as `elmo` in `pretrain elmo`, with flags of their own.

    Args:
        words: The words after the command.
        program: What the command is called.
        name: What a kind is called, in capitals.
        classes: For each kind its data class of arguments, or a function that returns it.
        documentation: Docstring of the command.
        positionals: Flags that are given without their name.
        notes: For each kind, text to add to the help of some flags.

    Returns:
        The kind and its arguments.
    """
    kinds = list(classes)
    if not words or words[0] in ("-h", "--help"):
        summary, examples = split_documentation(documentation)
        print(
            f"usage: {program} {name} [flags]\n\n{summary}\n\n{name} is one of {', '.join(kinds)}; each has its own "
            f"flags: {program} {kinds[0]} --help\n\nexamples:\n{textwrap.indent(examples, '  ')}"
        )
        raise SystemExit(0 if words else 2)
    if words[0] not in kinds:
        raise InputError(f"unknown {name.lower()} '{words[0]}', expected one of {', '.join(kinds)}")
    kind, found = words[0], classes[words[0]]
    arguments_class = found if isinstance(found, type) else found()
    of_kind = [positional for positional in positionals if positional in flags_of(arguments_class)]
    of_notes = (notes or {}).get(kind, {})
    summary, examples = split_documentation(documentation)
    if of_this_kind := [line for line in examples.splitlines() if f"{program} {kind} " in line]:
        documentation = "\n\n".join([summary, "\n".join(of_this_kind)])
    return kind, parse_flags(words[1:], arguments_class, f"{program} {kind}", documentation, of_kind, of_notes)


def split_documentation(documentation: str) -> tuple[str, str]:
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

    class HelpFormatter(jsonargparse.DefaultHelpFormatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:  # examples keep their lines
            return textwrap.indent(text, indent)

        def _get_help_string(self, action) -> str:  # without types
            return action.help

    required = [name for name, flag in flags.items() if flag.default is dataclasses.MISSING]
    usage = [name.upper() if name in positionals else f"--{name} {name.upper()}" for name in required]
    summary, examples = split_documentation(documentation)
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
    sections = {"required": parser.add_argument_group("required")} if required else {}
    for flag in sorted(flags.values(), key=lambda flag: flag.name not in required):
        title = "required" if flag.name in required else _title(flag)
        if title not in sections:
            sections[title] = parser.add_argument_group(title)
        is_positional = flag.name in positionals
        options = _options(flag, is_positional, notes.get(flag.name, ""))
        sections[title].add_argument(flag.name if is_positional else f"--{flag.name}", **options)
    general = parser.add_argument_group("help and configuration")
    general.add_argument("-h", "--help", action="help", help="Show this text and exit.")
    general.add_argument(
        "--config", action="config", metavar="FILE", help="Read flags from a yaml file; the command line has priority."
    )
    return parser


def _title(flag: Flag) -> str:
    """The section of a flag: the docstring of the class that declares it."""
    return (flag.owner.__doc__ or "flags").splitlines()[0]


def _options(flag: Flag, is_positional: bool, note: str) -> dict[str, Any]:
    """What argparse is told about a flag."""
    text = f"{_help_of(flag)} {note}".strip().replace("%", "%%")
    is_required = flag.default is dataclasses.MISSING
    options: dict[str, Any] = {"type": flag.type, "help": text}
    if is_required and not is_positional:
        options["required"] = True
    elif not is_required:
        shown = "" if flag.default in (None, False, []) else f" (default: {_shown(flag.default)})"
        options |= {"default": flag.default, "help": text + shown}
    if flag.type is bool:
        del options["type"]
        options["action"] = "store_true"
        return options
    plain = plain_type(flag.type)
    if typing.get_origin(plain) is list:
        (plain,) = typing.get_args(plain)
        options |= {"nargs": "*" if is_positional else "+", "type": plain}
    if not is_positional and plain in _METAVARS:
        options["metavar"] = _METAVARS[plain]
    elif typing.get_origin(plain) is typing.Literal:
        options["metavar"] = f"{{{','.join(map(str, typing.get_args(plain)))}}}"
    return options


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, list) else str(default)


def _help_of(flag: Flag) -> str:
    """The string below the field, of the most derived class that has one."""
    from docstring_parser import parse_from_object

    for cls in flag.group.__mro__:
        if cls is Arguments:
            break
        for entry in parse_from_object(cls).params:
            if entry.args[1] == flag.name and entry.description:
                return " ".join(entry.description.split())
    return ""
