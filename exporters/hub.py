"""What every hub has in common: a clock, an offline switch, and one line when it fails.

``EDGEZOO_OFFLINE=1`` keeps an export off the network. Weights that the framework already has in its
own cache are still used; the others are refused at once.
"""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError

from runtime.errors import EdgeZooError, WeightsUnavailable

OFFLINE = "EDGEZOO_OFFLINE"

TIMEOUT = 10.0
"""Seconds without an answer, or without one more byte, after which a hub is out of reach. By default
urllib, which torch and Keras download with, waits for ever."""

_NOT_CACHED = f"not in the cache, and {OFFLINE} is set"
_WAYS_OUT = "use --weights FILE with weights you have, or --weights none for an untrained network"


def offline() -> bool:
    """Whether EDGEZOO_OFFLINE forbids the network."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def refuse_offline() -> None:
    """Raises URLError when EDGEZOO_OFFLINE forbids the network."""
    if offline():
        raise URLError(_NOT_CACHED)


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Around a framework's download of ``what``: bounded in time, refused when offline.

    Raises WeightsUnavailable, with the two ways out, for whatever goes wrong.
    """
    timeout, opener = socket.getdefaulttimeout(), getattr(urllib.request, "_opener", None)
    socket.setdefaulttimeout(TIMEOUT)
    if offline():
        urllib.request.install_opener(urllib.request.build_opener(_Refuse))
    try:
        yield
    except EdgeZooError:
        raise
    except Exception as error:
        reason = _NOT_CACHED if _NOT_CACHED in str(error) else first_line(error)
        raise WeightsUnavailable(f"cannot get {what} ({reason}): {_WAYS_OUT}") from error
    finally:
        socket.setdefaulttimeout(timeout)
        urllib.request.install_opener(opener)


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that frameworks add."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


class _Refuse(urllib.request.BaseHandler):
    def default_open(self, request: Any) -> None:
        """Called before any protocol's own handler."""
        refuse_offline()
