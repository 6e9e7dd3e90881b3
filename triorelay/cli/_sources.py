"""Settings from the command line, the environment and a file.

1. Each setting is taken from the first of these that gives it. A list replaces a list; nothing is merged.
2. Every value is checked, even if another source overrides it. An error names its place: the option, the variable, or
   the file and the key in it. Text from outside a file is read as a number or a truth value if the setting is one.
3. A wrong setting is wrong usage (UsageError, exit code 2), in a file too. A file that cannot be read is
   a failure of the system (ConfigError, exit code 1).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click

from .._fields import fits, shown
from .._files import read_file
from ..protocol import ConfigError
from ._settings import OPTIONS, Settings

T = TypeVar("T")


_FLAGS = {option.key: option.flag for option in OPTIONS}
_NAMES = "|".join(key for key in _FLAGS if "_" in key)
_SETTINGS = rf"\A(?:{'|'.join(_FLAGS)})(?=[:,] )|(?<![\w/.-])(?:{_NAMES})(?![\w/.-])"
"""The settings that a message names: any at its start, and elsewhere those that cannot be words or parts of a path.
Compiled with the first message, because that takes 0.6 ms."""


@dataclass(frozen=True, slots=True)
class Sourced:
    """One setting as the user gave it.

    Attributes:
        value: checked.
        place: the option, the variable, or the file and the key in it.
        directory: the directory for relative paths: paths in a configuration file are relative to that file.
    """

    value: Any
    place: str
    directory: Path = Path()

    @property
    def is_outside_file(self) -> bool:
        return self.place.startswith(("--", "TRIORELAY_"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and by key the source of each that the user gave.

    Attributes:
        file: the path of the configuration file; empty without one.
        ends_whole: whether the last line of the file has an end. In one that was cut off it seldom has.
    """

    settings: Settings
    said: Mapping[str, Sourced]
    file: str = ""
    ends_whole: bool = True

    def parse(self, key: str, text: str, parse: Callable[[str], T], *inner: str) -> T:
        """Return what `parse` makes of `text`, which stands at `key` and the keys `inner` within it."""
        try:
            return parse(text)
        except ValueError as error:
            raise click.UsageError(f"{'.'.join((self.said[key].place, *inner))}: {error}") from None

    def path(self, key: str, text: str) -> Path:
        """Return the path of the file that is named at `key`."""
        if "\0" in text:
            raise click.UsageError(f"{self.said[key].place}: no file can be called {text!r}")
        return self.said[key].directory / text

    def locate(self, error: ConfigError) -> click.UsageError:
        """Return the error with the place in front, if its first word is a setting or a key in one."""
        name, _, complaint = str(error).partition(" ")
        key, dot, inner = name.partition(".")
        if key not in self.said:
            return click.UsageError(self.reword(str(error)))
        return click.UsageError(f"{self.said[key].place}{dot}{inner}: {self.reword(complaint)}")

    def reword(self, text: str) -> str:
        """Return a message with each setting called as it was given: by its option or its variable.

        A setting that a file gives keeps its key, with the file in front at the start of the message. One that nothing
        gives is called by its option, unless some are given by a file.
        """
        in_file = any(not one.is_outside_file for one in self.said.values())

        def name(found: re.Match[str]) -> str:
            key = found[0]
            if key not in self.said:
                return key if in_file else _FLAGS[key]
            return self.said[key].place if self.said[key].is_outside_file or not found.start() else key

        return re.sub(_SETTINGS, name, text)


def load_settings(options: Mapping[str, object], environment: Mapping[str, str], file: str | None) -> Loaded:
    """Put together the settings of a relay.

    Args:
        options: the command line's values by key; None and an empty tuple count as not given.
        environment: the variables of the process.
        file: the path of a TOML file, if any.
    """
    content: bytes = b""
    said: dict[str, Sourced] = {}
    if file is not None:
        content = _read(file)
        checked = _checked_table(Settings, _parsed(file, content), f"{file}: ")
        said = {key: Sourced(value, f"{file}: {key}", Path(file).parent) for key, value in checked.items()}
    said |= _outside_file(options, environment)
    settings = Settings(**{key: one.value for key, one in said.items()})
    return Loaded(settings, said, file or "", not content or content.endswith(b"\n"))


def _outside_file(options: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, Sourced]:
    """Return what variables and options give. A variable that is empty counts as not given, and a list has commas."""
    said: dict[str, Sourced] = {}
    for option in OPTIONS:
        text = environment.get(option.variable, "").strip()
        words = [word.strip() for word in text.split(",")] if option.repeatable else text
        for place, given in ((option.variable, words if text else None), (option.flag, options.get(option.key))):
            if given not in (None, ()):
                value = _from_text(given, option.type) if isinstance(given, str) else given
                said[option.key] = Sourced(_checked(option.type, value, place), place)
    return said


def _read(file: str) -> bytes:
    try:
        return read_file(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give --config a file that can be read") from None


def _parsed(file: str, content: bytes) -> dict[str, object]:
    import tomllib  # only here: most relays have no file

    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: byte {error.start} is not UTF-8, and TOML is") from None
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, a number or a nesting beyond all measure
        raise click.UsageError(f"{file}: not TOML: {error}") from None


def _checked_table(settings: Any, table: object, prefix: str) -> dict[str, object]:
    """Return the checked values of a table whose keys are the fields of `settings`."""
    values: dict[str, object] = _checked(dict, table, prefix.rstrip(".: "))
    types = {field.name: field.type for field in fields(settings)}
    for key in values:
        if key not in types:
            raise click.UsageError(f"{prefix}{key}: unknown key; {_nearest(key, types)}")
    return {key: _checked(types[key], value, f"{prefix}{key}") for key, value in values.items()}


def _nearest(key: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches  # only here: it takes a millisecond

    near = get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_EXPECTED: dict[object, str] = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a whole number",
    Sequence: "a list of strings",
    str: "a string",
}
"""What the author of a configuration calls a type."""


def _from_text(text: str, type_: Any) -> object:
    """Return the number or truth value that `text` is, if the type asks for one; else the text."""
    if type_ is bool:
        return _TRUTH.get(text.lower(), text)
    try:
        return type_(text) if type_ in (int, float) else text
    except ValueError:
        return text


def _checked(type_: Any, value: object, place: str) -> Any:
    """Return `value` as `type_`, including what is in lists and tables."""
    origin, parts = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return _checked(parts[0], value, place)
    if isinstance(type_, type) and is_dataclass(type_):
        return type_(**_checked_table(type_, value, f"{place}."))
    if origin is dict:
        table = _checked(dict, value, place)
        return {key: _checked(parts[1], part, f"{place}.{key}") for key, part in table.items()}
    if origin is tuple:
        # A list of one may be written as that one.
        items = _checked(Sequence, [value] if isinstance(value, str) else value, place)
        return tuple(_checked(parts[0], item, f"{place}[{index}]") for index, item in enumerate(items))
    # NaN, a float that does not fit, is refused with what is out of bounds.
    if not fits(value, type_) and (type_, type(value)) != (float, float):
        expected = " or ".join(parts) if origin is Literal else _EXPECTED[parts[0] if parts else type_]
        raise click.UsageError(f"{place}: expected {expected}, not {shown(value)}")
    return value
