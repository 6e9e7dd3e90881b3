"""The types of data that may be sent: bytes, bytearray, memoryview."""


def check_octets(value: object, name: str = "data") -> None:
    """Refuse a value that is not bytes, before any of it is sent.

    Raises:
        TypeError: neither bytes, nor a bytearray, nor a memoryview.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{name} must be bytes, bytearray or memoryview, not {type(value).__name__}: encode text first")
