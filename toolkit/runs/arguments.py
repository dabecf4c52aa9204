"""Arguments as data classes that are composed of groups.

The arguments of a command are a data class whose fields are groups, each a data class of related flags:

    @dataclass(kw_only=True)
    class BertArguments(Arguments):
        text: CorpusArguments
        training: TrainingArguments = defaults(TrainingArguments, learning_rate=1e-3)

Code passes groups to the functions that use them (`train(model, ..., arguments.training)`). On the command line, in
Python and in `results.json` flags have their own names only: `--learning_rate 1e-3`, `pretrain("bert",
learning_rate=1e-3)`. The string below a field is its help text.
"""

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from toolkit.errors import InputError

T = TypeVar("T")


@dataclass(kw_only=True)
class Arguments:
    """Base class of groups and of whole commands. A subclass checks its own fields in `check`.

    `check` is called for each class of the inheritance chain, base classes first, so it never calls `super()`.
    """

    def __post_init__(self) -> None:
        for cls in reversed(type(self).__mro__):
            if "check" in vars(cls):
                cls.check(self)  # type: ignore[attr-defined]


def defaults(group: type[T], hidden: Collection[str] = (), **values: Any) -> T:
    """A field that holds a group, with other default values for some of its flags.

    `hidden` are the names of flags that the command does not offer, because it sets them itself.
    """
    return dataclasses.field(default_factory=partial(group, **values), metadata={"hidden": tuple(hidden)})


def without(*hidden: str) -> Any:
    """A field that holds a group with required flags, without the flags named."""
    return dataclasses.field(metadata={"hidden": hidden})


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    type: Any
    default: Any  # `dataclasses.MISSING` if the flag is required
    group: type
    owner: type  # the base class of the group that first declares the flag: its section of the help


def flags_of(group: type, values: Any = dataclasses.MISSING, hidden: Collection[str] = ()) -> dict[str, Flag]:
    """All flags of a command or group by name, except `hidden` ones. `values` is an instance with other defaults."""
    annotations = typing.get_type_hints(group)
    found: dict[str, Flag] = {}
    for field in dataclasses.fields(group):
        if field.name in hidden:
            continue
        default = _default(field) if values is dataclasses.MISSING else getattr(values, field.name)
        annotation = annotations[field.name]
        if is_group(annotation):
            flags = flags_of(annotation, default, {*hidden, *field.metadata.get("hidden", ())})
        else:
            bases = reversed(group.__mro__)
            owner = next(base for base in bases if field.name in getattr(base, "__annotations__", {}))
            flags = {field.name: Flag(field.name, annotation, default, group, owner)}
        if twice := found.keys() & flags.keys():
            raise TypeError(f"{group.__name__}: the flags {sorted(twice)} are in two groups")
        found |= flags
    return found


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def from_flags(arguments_class: type[T], **flags: Any) -> T:
    """Build the arguments of a command from the values of its flags.

    Raises:
        InputError: There is no such flag, a required one is missing, or a group refuses a value.
    """
    known = flags_of(arguments_class)
    if unknown := sorted(set(flags) - set(known)):
        raise InputError(f"unknown flag {unknown[0]}, expected one of {', '.join(known)}")
    missing = [name for name, flag in known.items() if flag.default is dataclasses.MISSING and name not in flags]
    if missing:
        raise InputError(f"the flag {missing[0]} is required")
    return _build(arguments_class, flags)


def _build(cls: type[T], flags: Mapping[str, Any]) -> T:
    annotations = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if is_group(annotations[field.name]):
            value = _default(field)
            is_required = value is dataclasses.MISSING
            values[field.name] = _build(annotations[field.name], flags) if is_required else with_flags(value, **flags)
        elif field.name in flags:
            values[field.name] = flags[field.name]
    return cls(**values)


def to_flags(arguments: Any) -> dict[str, Any]:
    """The value of every flag, as it stands in `results.json`."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        found |= to_flags(value) if is_group(type(value)) else {field.name: value}
    return found


def with_flags(arguments: T, **flags: Any) -> T:
    """A copy with other values for some flags, in whatever group they are."""
    values = {}
    for field in dataclasses.fields(arguments):  # type: ignore[arg-type]
        value = getattr(arguments, field.name)
        if is_group(type(value)):
            values[field.name] = with_flags(value, **flags)
        elif field.name in flags:
            values[field.name] = flags[field.name]
    return dataclasses.replace(arguments, **values)  # type: ignore[type-var]


def plain_type(annotation: Any) -> Any:
    """`int` of `int | None`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return annotation
