"""One log record for each event: a short sentence, and its facts as `record.fields`.

The program that runs the relay chooses the format; this module escapes nothing. `Throttle` bounds how much a client can
make the relay log.
"""

import logging

from ._buckets import Buckets

LOGGER = logging.getLogger("triorelay")


def log(level: int, message: str, **fields: object) -> None:
    """Log one event with its facts."""
    LOGGER.log(level, message, extra={"fields": fields})


class Throttle:
    """Lets through at most `burst` lines at once and one each `interval` seconds; tells how many it kept back."""

    def __init__(self, *, interval: float = 1.0, burst: int = 1) -> None:
        self._bucket = Buckets(interval=interval, burst=burst)
        self._kept_back = 0

    def log(self, level: int, message: str, **fields: object) -> None:
        """Log the event, or keep it back and count it."""
        self._log(level, message, fields)

    def bug(self, error: BaseException, message: str, **fields: object) -> None:
        """Log an unexpected error with its traceback, or keep it back and count it."""
        self._log(logging.ERROR, message, fields, error)

    def _log(self, level: int, message: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._bucket.wait(None):
            self._kept_back += 1
            return
        self._bucket.count(None)
        if self._kept_back:
            fields["similar_kept_back"] = self._kept_back
            self._kept_back = 0
        LOGGER.log(level, message, exc_info=error, extra={"fields": fields})
