"""Being connected to a cluster, and what goes wrong there as our errors."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from typing import Any

from .._errors import Error, InputError

_REACH = 10.0  # seconds in which a head node takes a connection


def _nobody(address: str, why: str) -> str:
    return f"no Ray cluster answers at {address!r} ({why}); give the address of its head node, as in 10.0.0.1:6379"


def _reach(address: str) -> None:
    """Raise `InputError` if a host and port take no connection: Ray itself tries for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\s]+?)\]?:(\d{1,5})", address)
    if match is None:  # `auto`, say: Ray knows what it means, or says at once that it does not
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_REACH).close()
    except (OSError, OverflowError, UnicodeError) as e:
        raise InputError(_nobody(address, getattr(e, "strerror", None) or str(e))) from None


@contextlib.contextmanager
def connected(address: str | None, *, logs: bool) -> Iterator[Any]:
    """Connect to the cluster at an address, or start one on this machine; yield the module `ray`.

    What tasks raise comes out as it was; with `logs`, what they print goes to stderr. Raises `InputError` where no
    cluster answers at an address that was given.
    """
    try:
        import ray
    except ImportError:
        raise Error("specalign: Ray is not there; install the wheel with its extra [ray] on every node") from None
    given = address or os.environ.get("RAY_ADDRESS")
    with contextlib.redirect_stdout(sys.stderr):  # where Ray tells of workers that died
        try:
            if given:
                _reach(given)
                try:
                    ray.init(address=given, log_to_driver=logs, logging_level=logging.ERROR)
                except (ConnectionError, ValueError) as e:
                    raise InputError(_nobody(given, str(e).splitlines()[0])) from None
            else:
                ray.init(include_dashboard=False, log_to_driver=logs, logging_level=logging.ERROR)
            yield ray
        except ray.exceptions.RayTaskError as e:
            cause: Any = e.cause
            raise (cause if isinstance(cause, Error) else Error(f"a task failed: {cause!r}")) from None
        except (ray.exceptions.RayError, ConnectionError) as e:
            raise Error(f"Ray gave up: {' '.join(str(e).split())}") from None
        finally:
            ray.shutdown()
