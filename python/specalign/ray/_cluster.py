"""Being connected to a cluster, and what goes wrong there as our errors."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from .._errors import Error


@contextlib.contextmanager
def connected(address: str | None, *, logs: bool) -> Iterator[Any]:
    """Connect to the cluster at an address, or start one on this machine; yield the module `ray`.

    What tasks raise comes out as it was; with `logs`, what they print goes to stderr.
    """
    try:
        import ray
    except ImportError:
        raise Error("specalign: Ray is not there; install the wheel with its extra [ray] on every node") from None
    local: dict[str, Any] = {"include_dashboard": False}
    if address or os.environ.get("RAY_ADDRESS"):
        local = {}
    with contextlib.redirect_stdout(sys.stderr):  # where Ray tells of workers that died
        try:
            ray.init(address=address, log_to_driver=logs, logging_level=logging.ERROR, **local)
            yield ray
        except ray.exceptions.RayTaskError as e:
            cause: Any = e.cause
            raise (cause if isinstance(cause, Error) else Error(f"a task failed: {cause!r}")) from None
        except (ray.exceptions.RayError, ConnectionError) as e:
            raise Error(f"Ray gave up: {' '.join(str(e).split())}") from None
        finally:
            ray.shutdown()
