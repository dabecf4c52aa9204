"""From dataclasses to flags: each field is a flag, the string below it its help."""

import dataclasses
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import InputError

_METAVARS = {int: "N", float: "X", str: "TEXT"}


def parse_flags(
    arguments: Sequence[str], arguments_class: type, program: str, documentation: str, positionals: Sequence[str] = ()
) -> Any:
    """An instance of the dataclass `arguments_class` from the words of a command line.

    Fields named in `positionals` are given without a flag, those that are true or false by their flag alone, and those
    with `init=False` not at all.
    `--config FILE` reads fields from a yaml file. `--help` prints `documentation`, its first line above the flags and
    the rest as examples below them, and exits. Raises `InputError`.
    """
    import jsonargparse
    from docstring_parser import parse_from_object

    class HelpFormatter(jsonargparse.DefaultHelpFormatter):
        def _fill_text(self, text: str, width: int, indent: str) -> str:  # the examples keep their lines
            return textwrap.indent(text, indent)

        def _get_help_string(self, action) -> str:  # without types
            return action.help

    summary, _, examples = documentation.partition("\n")
    fields = [field for field in dataclasses.fields(arguments_class) if field.init]
    required = [f for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    usage = [f.name.upper() if f.name in positionals else f"--{f.name} {f.name.upper()}" for f in required]
    parser = jsonargparse.ArgumentParser(
        prog=program,
        usage=" ".join([program, *usage, "[flags]"]),
        description=summary,
        epilog="examples:\n" + textwrap.indent(examples.strip(), "  "),
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    helps = {
        entry.args[1]: entry.description
        for parent in reversed(arguments_class.__mro__)
        if dataclasses.is_dataclass(parent)
        for entry in parse_from_object(parent).params
    }
    field_types = typing.get_type_hints(arguments_class)
    for field in sorted(fields, key=lambda field: field not in required):
        help_text = " ".join((helps[field.name] or "").split()).replace("%", "%%")
        is_positional = field.name in positionals
        options: dict[str, Any] = {"type": field_types[field.name], "help": help_text}
        if field in required:
            options |= {} if is_positional else {"required": True, "help": f"{help_text} (required)"}
        else:
            factory = field.default_factory
            default: Any = field.default if factory is dataclasses.MISSING else factory()
            shown = "" if default in (None, False, []) else f" (default: {default})"
            options |= {"default": default, "help": help_text + shown}
        if field_types[field.name] is bool:
            del options["type"]
            options["action"] = "store_true"
        else:
            plain = _plain_type(field_types[field.name])
            if typing.get_origin(plain) is list:
                (plain,) = typing.get_args(plain)
                options |= {"nargs": "*" if is_positional else "+", "type": plain}
                if options.get("default"):
                    options["help"] = f"{help_text} (default: {' '.join(map(str, default))})"
            if not is_positional and plain in _METAVARS:
                options["metavar"] = _METAVARS[plain]
            elif typing.get_origin(plain) is typing.Literal:
                options["metavar"] = f"{{{','.join(map(str, typing.get_args(plain)))}}}"
        parser.add_argument(field.name if is_positional else f"--{field.name}", **options)
    parser.add_argument("--config", action="config", help="Read flags from a yaml file; flags given as well win.")
    try:
        values = parser.parse_args(list(arguments))
    except jsonargparse.ArgumentError as error:
        message = " ".join(str(error).split()).replace('Parser key "', "--").replace('":', ":", 1)
        raise InputError(f"{message.rstrip('.')}; see: {program} --help") from None
    return arguments_class(**{field.name: values[field.name] for field in fields})


def parse_kind(
    arguments: Sequence[str],
    program: str,
    name: str,
    classes: Mapping[str, type],
    documentation: str,
    positionals: Sequence[str] = (),
) -> tuple[str, Any]:
    """The first word after a command that has kinds, such as `elmo` of `pretrain elmo`, and the flags after it.

    `classes` has the dataclass of the flags of each kind; those of `positionals` that it has need no name.
    """
    kinds = list(classes)
    if not arguments or arguments[0] in ("-h", "--help"):
        summary, _, examples = documentation.partition("\n")
        print(
            f"usage: {program} {name} [flags]\n\n{summary}\n\n{name} is one of {', '.join(kinds)}; each has its own "
            f"flags: {program} {kinds[0]} --help\n\nexamples:\n{textwrap.indent(examples.strip(), '  ')}"
        )
        raise SystemExit(0 if arguments else 2)
    if arguments[0] not in kinds:
        raise InputError(f"unknown {name.lower()} '{arguments[0]}', expected one of {', '.join(kinds)}")
    kind = arguments[0]
    known = [field.name for field in dataclasses.fields(classes[kind])]
    of_kind = [positional for positional in positionals if positional in known]
    return kind, parse_flags(arguments[1:], classes[kind], f"{program} {kind}", documentation, of_kind)


def _plain_type(annotation: Any) -> Any:
    """`int` of `int | None`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return annotation
