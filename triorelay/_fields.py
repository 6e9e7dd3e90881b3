"""Checks that the fields of settings have the types that they declare, for programs that no type checker reads.

A list is taken for a tuple, a set for a frozenset and a str for a path, because they work as well.
"""

import math
import types
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_NAMES: dict[object, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a str",
    Path: "a path",
    type(None): "None",
}
_KINDS: dict[object, tuple[type, str]] = {
    tuple: (Sequence, "a tuple"),
    frozenset: (Set, "a set"),
    Mapping: (Mapping, "a mapping"),
}
"""Declared collections, what is taken for them, and how they are called."""


LARGEST = 64
"""Bits of a number: no setting has more, and Python refuses to compare some of those with a float, or to print them."""


def check_fields(settings: "DataclassInstance", error: type[Exception], prefix: str = "") -> None:
    """Check each field of a dataclass.

    Args:
        settings: the dataclass; its annotations are of the types below, and no text.
        error: the class of the exception.
        prefix: goes before the field's name in its text.

    Raises:
        error: a value has not the type of its field; the text names the field.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not fits(value, field.type):
            raise error(f"{prefix}{field.name} must be {_describe(field.type)}, not {shown(value)}")


def check_count(name: str, value: object, least: int) -> None:
    """Check an argument that is a whole number.

    Raises:
        TypeError: it is none.
        ValueError: it is less than `least`.
    """
    if not fits(value, int):
        raise TypeError(f"{name} must be a whole number, not {shown(value)}")
    if isinstance(value, int) and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def fits(value: object, hint: Any) -> bool:
    """Return whether a value has the type of an annotation; a number of more than `LARGEST` bits has none."""
    if _is_huge(value):
        return False
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin in _KINDS:
        return isinstance(value, _KINDS[origin][0]) and not isinstance(value, str | bytes) and _has_all(value, parts)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str | PathLike if hint is Path else hint)


def _has_all(values: Any, parts: tuple[Any, ...]) -> bool:
    if isinstance(values, Mapping):
        return all(fits(key, parts[0]) and fits(value, parts[1]) for key, value in values.items())
    if isinstance(values, Sequence) and parts[-1] is not Ellipsis:
        return len(values) == len(parts) and all(map(fits, values, parts))
    return all(fits(value, parts[0]) for value in values)


def _describe(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, parts))
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"({', '.join(map(_describe, parts))})"
    if origin in _KINDS:
        items = " and ".join(_describe(part) for part in parts if part is not Ellipsis)
        return f"{_KINDS[origin][1]} (each item: {items})"
    return _NAMES.get(hint) or f"{'an' if hint.__name__[0] in 'AEIOU' else 'a'} {hint.__name__}"


def shown(value: object) -> str:
    """Return what a message shows of a value that does not fit."""
    huge = f"a number of more than {LARGEST} bits"
    try:
        return huge if _is_huge(value) else repr(value)
    except ValueError:  # Python prints no number of more than 4,300 digits, and there is one in this list or table
        return f"something with {huge}"


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > LARGEST
