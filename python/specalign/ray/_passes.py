"""The two passes as tasks of Ray.

A task takes a group of neighbouring shards; a tree of tasks, eight branches a node and always the same one, merges what
they give. Merging is exact, so the bytes do not depend on which worker does what, or does it again because another one
died: Ray repeats tasks whose worker or node is gone, and those whose result was lost with it.
"""

from __future__ import annotations

from typing import Any

import ray

from .. import shards
from . import _files
from ._progress import Progress

FAN_IN = 8
RETRIES = 20  # of a task whose worker died


@ray.remote(num_returns=2, max_retries=RETRIES)
def _partial(plan: bytes, group: range, threads: int) -> tuple[bytes, int]:
    pairs, rows = _shards(plan, group)
    with _files.opened(pairs) as given:
        return shards.partial(plan, given, threads), rows


@ray.remote(num_returns=2, max_retries=RETRIES)
def _top(plan: bytes, directions: bytes, group: range, threads: int) -> tuple[bytes, int]:
    pairs, rows = _shards(plan, group)
    with _files.opened(pairs) as given:
        return shards.top(plan, directions, given, threads), rows


@ray.remote(max_retries=RETRIES)
def _merge(*files: bytes) -> bytes:
    return shards.merge(files)


@ray.remote(max_retries=RETRIES)
def _spectrum(plan: bytes, moments: bytes) -> bytes:
    return shards.spectrum(plan, moments)


def _shards(plan: bytes, group: range) -> tuple[list[tuple[int, str, str]], int]:
    names = shards.names(plan)
    return [(i, *names[i][:2]) for i in group], sum(names[i][2] for i in group)


def group_size(count: int, cpus: float) -> int:
    """Return how many shards a task takes: a power of eight, whose moments are one matrix, with four tasks a CPU."""
    size = 1
    while count >= 4 * cpus * FAN_IN * size:
        size *= FAN_IN
    return size


def run(plan: bytes, size: int, threads: int) -> tuple[bytes, bytes, bytes]:
    """Return the moments, the directions and the scores of all shards."""
    names = shards.names(plan)
    groups = [range(first, min(first + size, len(names))) for first in range(0, len(names), size)]
    total = sum(rows for _, _, rows in names)
    held = ray.put(plan)
    resources = {"num_cpus": max(1, threads)}
    partial: Any = _partial.options(**resources)  # which Ray types as giving one thing
    top: Any = _top.options(**resources)
    moments = _reduced([partial.remote(held, g, threads) for g in groups], Progress("partial", total))
    directions = _spectrum.remote(held, moments)
    ray.get(directions)
    scores = _reduced([top.remote(held, directions, g, threads) for g in groups], Progress("top", total))
    return ray.get(moments), ray.get(directions), ray.get(scores)


def _reduced(tasks: list[list[Any]], progress: Progress) -> Any:
    """Merge what tasks give, each (bytes, rows), in a tree; tell how far it is; return a reference to the bytes."""
    level, waiting = [data for data, _ in tasks], [rows for _, rows in tasks]
    tasks.clear()  # what was merged is freed
    while len(level) > 1:
        level = [_merge.remote(*level[i : i + FAN_IN]) for i in range(0, len(level), FAN_IN)]
    (result,) = level
    with progress:
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
            progress.add(sum(ray.get(ready)))  # which raises what went wrong
        ray.wait([result], fetch_local=False)
    return result
