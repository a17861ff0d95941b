"""Whose fault it is when an input goes wrong: our layer's, or that of the harness around it.

Every exception is our layer's fault until it is shown to be the harness's: then it is raised as a
`HarnessFault`, which a run counts, and goes on.
"""

import contextlib
import errno
from collections.abc import Iterator

# The system has no port, descriptor or memory left: no connection is to blame.
SHORTAGES = (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HarnessFault(Exception):
    """A part of the harness failed, so that the input says nothing about our layer.

    Its text names the part: the generator, a stranger's library, or the system below the sockets.
    """


class Hung(AssertionError):
    """An input was not done in time."""


@contextlib.contextmanager
def blaming(part: str) -> Iterator[None]:
    """Whatever is raised inside is the fault of this part of the harness."""
    try:
        yield
    except Exception as error:
        raise HarnessFault(f"{part} raised {type(error).__name__}") from error


@contextlib.contextmanager
def blaming_shortage() -> Iterator[None]:
    """Where the system has run out of something, an OSError is the fault of nobody's connection."""
    try:
        yield
    except OSError as error:
        if error.errno in SHORTAGES:
            raise HarnessFault(f"the system: {error.strerror}") from error
        raise


def is_hung(error: BaseException) -> bool:
    """Whether the input took too long, or a peer of the harness waited too long for its answer."""
    return isinstance(error, Hung | TimeoutError)
