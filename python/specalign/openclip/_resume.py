"""What a resumed run goes on with: the sessions' memory and the weight's, kept beside OpenCLIP's checkpoints."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from .._errors import Error
from ._config import Config
from ._files import replace
from ._penalty import Penalty

SCHEMA = 1
_MAGIC = b"specalign-run\n"
_log = logging.getLogger("specalign.openclip")


def beside(checkpoint: str, args: Any, config: Config) -> str:
    """Return the path of the state that belongs to a checkpoint: of this rank, where each has its own."""
    rank = f"-rank{args.rank}" if config.scope == "local" and args.rank else ""
    base = checkpoint.removesuffix(".pt").rstrip("/")
    return f"{base}{rank}.specalign"


def save(penalty: Penalty, completed: int, config: Config, args: Any) -> None:
    """Keep the state after an epoch, wherever OpenCLIP is about to write a checkpoint; whole or not at all.

    A failure to write is logged: the run goes on, and one resumed from there begins with cold sessions.
    """
    writes = args.save_logs or (config.scope == "local" and os.path.isdir(getattr(args, "checkpoint_path", "") or ""))
    if not writes or any(a.session is None for a in penalty.aligned):
        return
    names = []
    if completed == args.epochs or (args.save_frequency > 0 and completed % args.save_frequency == 0):
        names.append(f"epoch_{completed}.pt")
    if args.save_most_recent:
        names.append("epoch_latest.pt")
    if not names:
        return
    states = [a.session.state() for a in penalty.aligned if a.session is not None]
    head = {
        "schema_version": SCHEMA,
        "epoch": completed,
        "targets": [_known(a) for a in penalty.aligned],
        "sizes": [len(s) for s in states],
        "balance": {} if penalty.balance is None else penalty.balance.state,
        "failures": penalty.failures,
    }
    blob = _MAGIC + json.dumps(head).encode() + b"\n" + b"".join(states)
    try:
        for name in names:
            replace(beside(os.path.join(args.checkpoint_path, name), args, config), lambda file: file.write(blob))
        if args.delete_previous_checkpoint:
            step = 1 if not hasattr(args, "trackio") else max(1, args.save_frequency)  # as either loop does
            old = beside(os.path.join(args.checkpoint_path, f"epoch_{completed - step}.pt"), args, config)
            if os.path.exists(old):
                os.remove(old)
    except OSError as e:
        _log.warning("specalign: the state of this epoch was not kept: %s", e)


def load(penalty: Penalty, config: Config, args: Any) -> None:
    """Go on with the state beside the checkpoint that OpenCLIP resumes from; say so, or why not. All ranks call it."""
    if not args.resume:
        return
    head = penalty.ranks.spread(_restored(penalty, beside(args.resume, args, config)) if penalty.ranks.first else None)
    if head is None:
        return
    if penalty.balance is not None:
        penalty.balance.state = dict(head["balance"])
    penalty.failures = head["failures"]


def _restored(penalty: Penalty, path: str) -> dict[str, Any] | None:
    """Give the sessions their memory back. Returns the rest of the state, or None where there is none to go on with."""
    try:
        head, states = _read(path)
        if head["targets"] != [_known(a) for a in penalty.aligned]:
            raise Error("it is of other settings or references")
        for aligned, state in zip(penalty.aligned, states, strict=True):
            assert aligned.session is not None
            aligned.session.restore(state)
    except (OSError, Error) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e).splitlines()[0]
        _log.warning("specalign: resumed without the penalty's state, which is found again: %s: %s", path, why)
        return None
    _log.info("specalign: resumed the penalty's state of epoch %d from %s", head["epoch"], path)
    return head


def _known(aligned: Any) -> dict[str, Any]:
    target = aligned.target
    # Threads and device may be others: what is kept does not depend on them.
    settings = {k: v for k, v in target.penalty.items() if k not in ("threads", "device")}
    return {"kind": target.kind, "features": target.features, "settings": settings}


def _read(path: str) -> tuple[dict[str, Any], list[bytes]]:
    with open(path, "rb") as file:
        blob = file.read()
    try:
        if not blob.startswith(_MAGIC):
            raise ValueError
        line, _, rest = blob[len(_MAGIC) :].partition(b"\n")
        head = json.loads(line)
        if head["schema_version"] != SCHEMA:
            raise Error(f"it is of schema {head['schema_version']}, this version reads {SCHEMA}")
        sizes = [int(s) for s in head["sizes"]]
        numbers = {str(k): float(v) for k, v in head["balance"].items()}
        head = {**head, "balance": numbers, "failures": int(head["failures"]), "epoch": int(head["epoch"])}
        if min(sizes, default=0) < 0 or sum(sizes) != len(rest):
            raise ValueError
        states = []
        for size in sizes:
            states.append(rest[:size])
            rest = rest[size:]
        _ = head["targets"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Error("it is damaged") from None
    return head, states
