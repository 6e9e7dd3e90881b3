"""What the process of a relay asks of Python's memory management.

While the relay starts, almost everything that is made stays: looking for garbage takes a tenth of the time, and finds
nothing. So the collector is off until the relay is ready. What there is then is never looked at again: a collection
looks at what clients brought, not at the hundred thousand objects of modules and classes, which would take some 10 ms.
"""

import gc


def begin_start() -> None:
    """Look for no garbage until `end_start`."""
    gc.disable()


def end_start() -> None:
    """Look for garbage among what is made from now on."""
    gc.freeze()
    gc.enable()
