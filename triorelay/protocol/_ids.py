"""One-byte names.

An id is a byte from 1 to 255; 0 is the relay. People type and see one printable ASCII character, or `0x` and two hex
digits. Programs may also give a byte string of length one, or the number.
"""

import re

RELAY = 0
ALL_IDS = frozenset(range(1, 256))

_HEX = re.compile("0[xX]([0-9A-Fa-f]{2})")


def id_byte(value: str | bytes | int) -> int:
    """Return the id that a program means by `"A"`, `b"A"` or `65`.

    Raises:
        ValueError: not one character of Latin-1, not one byte, or not from 1 to 255.
        TypeError: neither a string, a byte string nor a number; a truth value is no number.
    """
    if isinstance(value, str):
        number = ord(value) if len(value) == 1 else -1
    elif isinstance(value, bytes | bytearray):
        number = value[0] if len(value) == 1 else -1
    elif not isinstance(value, bool) and isinstance(value, int):
        number = value
    else:
        raise TypeError(f'an id is a one-character str, one byte or an int such as "A", b"A" or 65, not {value!r}')
    if not 1 <= number <= 255:
        raise ValueError(f'an id is one byte from 1 to 255, such as "A", b"A" or 65, not {value!r}')
    return number


def id_text(number: int) -> str:
    """Return the id as a one-character string (Latin-1), so that `source == "A"` holds in Python."""
    return chr(number)


def id_name(number: int) -> str:
    """Return the id as it is typed and shown: a visible ASCII character, else `0x` and two hex digits."""
    return chr(number) if 0x21 <= number <= 0x7E else f"0x{number:02x}"


def parse_id(text: str) -> int:
    """Return the id that a person typed.

    Raises:
        ValueError: not one printable ASCII character and not `0x01` to `0xff`.
    """
    if len(text) == 1 and 0x20 <= ord(text) <= 0x7E:
        return ord(text)
    hex = _HEX.fullmatch(text)
    if hex and hex[1] != "00":
        return int(hex[1], 16)
    raise ValueError(f"an id is one printable ASCII character, or 0x01 to 0xff, not {text!r}")


def parse_id_set(text: str) -> frozenset[int]:
    """Return the ids named by a list such as `P-R,0x80-0x8f`; `*` means all 255.

    A comma, a hyphen or an asterisk that is itself an id is written in hex: `0x2c`, `0x2d`, `0x2a`.

    Raises:
        ValueError: a part is neither an id nor a range of two ids in rising order.
    """
    if text.strip() == "*":
        return ALL_IDS
    ids: set[int] = set()
    for part in (part.strip() for part in text.split(",")):
        first, dash, last = part.partition("-")
        try:
            low = _parse_listed(first)
            high = _parse_listed(last) if dash else low
        except ValueError:
            raise ValueError(f"{part!r} is neither an id nor a range such as A-C or 0x80-0x8f") from None
        if low > high:
            raise ValueError(f"the range {part!r} runs backwards")
        ids.update(range(low, high + 1))
    return frozenset(ids)


def _parse_listed(text: str) -> int:
    # An asterisk beside other ids could mean "all", so the id has to be written in hex.
    text = text.strip()
    if text == "*":
        raise ValueError
    return parse_id(text)


def id_from_path(path: bytes) -> int:
    """Return the id of a client that bound `path`: the first byte of the last component.

    0 if there is none: the client bound nothing, or an abstract name, which is not a path.
    """
    if path.startswith(b"\0"):
        return 0
    name = path.rpartition(b"/")[2]
    return name[0] if name else 0
