"""What may be sent: bytes, in whatever of the three shapes Python has for them."""


def check_octets(value: object, name: str = "data") -> None:
    """Refuse what is not bytes, before anything of it is sent.

    Raises:
        TypeError: neither bytes, nor a bytearray, nor a memoryview.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{name} must be bytes, bytearray or memoryview, not {type(value).__name__}: encode text first")
