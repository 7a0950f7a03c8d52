"""`python -m specalign.ray features`: the store of a frozen model's features, made on a cluster.

The tasks share the pieces of one draft, in a folder that every node finds. What a task has done stays done: one that
Ray repeats because its worker or node died goes on from there, as the command does that was interrupted.
"""

from __future__ import annotations

import os
from typing import Any

from .._errors import InputError
from ..openclip import _features
from ._cluster import connected

RETRIES = 20  # of a task whose worker died
PROGRAM = "python -m specalign.ray features"
FLAGS: dict[str, dict[str, Any]] = {
    "--address": {"help": "of a running cluster (default: $RAY_ADDRESS, else one on this machine)"},
    "--processes": {"type": int, "metavar": "N", "help": "tasks (default: one a GPU, without GPUs as the CPUs allow)"},
    "--cpus": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "CPUs of a task (1); it has a GPU where there are any",
    },
}


def _share(arguments: list[str], folder: str, rank: int, size: int, collect: bool) -> str:
    os.chdir(folder)
    return _features.make(_features.parse(arguments, PROGRAM, FLAGS), rank, size, collect=collect)


def run(arguments: list[str]) -> int:
    """Make a store, and return the exit code."""
    options = _features.parse(arguments, PROGRAM, FLAGS)
    if options.cpus < 1 or (options.processes or 1) < 1:
        raise InputError("--processes and --cpus are whole numbers, 1 or more")
    _features.check(options)
    with connected(options.address, logs=True) as ray:
        have = ray.cluster_resources()
        gpus = int(have.get("GPU", 0))
        count = options.processes or gpus or max(1, int(have.get("CPU", 0)) // options.cpus)
        resources = {"num_cpus": options.cpus, "num_gpus": 1 if gpus else 0, "max_retries": RETRIES}
        share = ray.remote(**resources)(_share)
        waiting = [share.remote(arguments, os.getcwd(), rank, count, False) for rank in range(count)]
        while waiting:
            ready, waiting = ray.wait(waiting)
            ray.get(ready)
        said = ray.get(share.remote(arguments, os.getcwd(), 0, 1, True))
    print(said)
    return 0
