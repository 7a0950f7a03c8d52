"""The ranks of a run: what one process knows of the others."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks(Protocol):
    """The processes that one penalty is of."""

    first: bool  # whether this is the one that computes
    size: int

    def agree(self, failure: str | None, rows: int) -> str | None:
        """Return the first failure that any rank reports, the same on every rank; None where there is none.

        That ranks have different numbers of rows is a failure, too.
        """
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, in their order: (n, ...) becomes (size * n, ...). No gradient flows."""
        ...

    def share(self, failure: str | None, value: float, gradient: Tensor | None, like: Tensor) -> Shared:
        """Hand out what the first rank computed.

        Args:
            failure: why there is nothing; of the first rank, as all that follows.
            value: of the penalty.
            gradient: (size * n, d) float32, or None.
            like: (n, d), whose shape and device the result has; of this rank.
        """
        ...

    def settle(self, failure: str | None) -> str | None:
        """Return the failure that this step counts as, the same on every rank of the run, when all is done.

        The ranks of one penalty have agreed on it; ranks with a penalty each have not yet.
        """
        ...


class Shared:
    """What every rank has of a step.

    Attributes:
        failure: why there is nothing.
        value: of the penalty, the same everywhere.
        gradient: (n, d) float32, of this rank's rows.
    """

    def __init__(self, failure: str | None, value: float, gradient: Tensor | None) -> None:
        """Hold them."""
        self.failure = failure
        self.value = value
        self.gradient = gradient


class Alone:
    """One process; or each rank for itself."""

    first = True
    size = 1

    def agree(self, failure: str | None, rows: int) -> str | None:  # noqa: ARG002
        """See `Ranks.agree`."""
        return failure

    def gather(self, rows: Tensor) -> Tensor:
        """See `Ranks.gather`."""
        return rows.detach()

    def share(self, failure: str | None, value: float, gradient: Tensor | None, like: Tensor) -> Shared:  # noqa: ARG002
        """See `Ranks.share`."""
        return Shared(failure, value, gradient)

    def settle(self, failure: str | None) -> str | None:
        """See `Ranks.settle`."""
        return failure


class Apart(Alone):
    """Each rank for itself, except that a step counts as failed on all of them or on none: so they stop together."""

    def __init__(self, device: torch.device) -> None:
        """Use the default process group, with tensors on `device`."""
        self._device = device

    def settle(self, failure: str | None) -> str | None:
        """See `Ranks.settle`."""
        said = torch.tensor([failure is not None], dtype=torch.int64, device=self._device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return _first(failure) if said.item() else None


class Group:
    """All ranks of ``torch.distributed``.

    Every rank makes the same calls in the same order whatever happens to it, so that none waits for another that has
    gone elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        """Use the default process group, which OpenCLIP has made, with tensors on `device`."""
        self.size = dist.get_world_size()
        self.first = dist.get_rank() == 0
        self._device = device

    def agree(self, failure: str | None, rows: int) -> str | None:
        """See `Ranks.agree`."""
        said = torch.tensor([failure is not None, rows, -rows], dtype=torch.int64, device=self._device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        failed, most, fewest = said.tolist()
        if failed:
            return _first(failure)
        if most != -fewest:
            return f"the ranks have different batches, of {-fewest} to {most} rows"
        return None

    def gather(self, rows: Tensor) -> Tensor:
        """See `Ranks.gather`."""
        rows = rows.detach().contiguous().to(self._device)
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    def share(self, failure: str | None, value: float, gradient: Tensor | None, like: Tensor) -> Shared:
        """See `Ranks.share`."""
        head = [failure is not None, gradient is not None, value if failure is None else 0.0]
        header = torch.tensor([float(h) for h in head], dtype=torch.float64, device=self._device)
        dist.broadcast(header, 0)
        failed, has_gradient, shared = header.tolist()
        if failed:
            said: list[Any] = [failure]
            dist.broadcast_object_list(said, 0)
            return Shared(said[0], 0.0, None)
        if not has_gradient:
            return Shared(None, shared, None)
        mine = torch.empty(like.shape, dtype=torch.float32, device=self._device)
        parts = None
        if self.first:
            assert gradient is not None
            parts = [part.contiguous() for part in gradient.to(self._device).chunk(self.size)]
        dist.scatter(mine, parts, 0)
        return Shared(None, shared, mine)

    def settle(self, failure: str | None) -> str | None:
        """See `Ranks.settle`."""
        return failure


def _first(failure: str | None) -> str:
    """Return the failure of the lowest rank that has one; one of them has."""
    reasons: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, failure)
    rank, why = next((r, s) for r, s in enumerate(reasons) if s is not None)
    return f"rank {rank}: {why}"
