"""The ranks of a run: what one process knows of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Failure:
    """Why a step has no penalty.

    Attributes:
        why: in a line.
        fatal: whether the run has to end.
    """

    why: str
    fatal: bool = False


@dataclass(frozen=True)
class Shared:
    """What every rank has of a step.

    Attributes:
        failure: why there is nothing.
        value: of the penalty, the same everywhere.
        gradients: by side, (n, d) float32, of this rank's rows; empty where nobody wants them.
    """

    failure: Failure | None
    value: float
    gradients: dict[str, Tensor]


class Ranks(Protocol):
    """The processes that one penalty is of."""

    first: bool  # whether this is the one that computes
    size: int

    def agree(self, failure: Failure | None, rows: int) -> Failure | None:
        """Return the first failure that any rank reports, the same on every rank; None where there is none.

        That ranks have different numbers of rows is a failure, too.
        """
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, in their order: (n, ...) becomes (size * n, ...). No gradient flows."""
        ...

    def gather_names(self, names: list[str]) -> list[str]:
        """Return the names of all ranks, in their order."""
        ...

    def share(
        self, failure: Failure | None, value: float, gradients: dict[str, Tensor], like: dict[str, Tensor]
    ) -> Shared:
        """Hand out what the first rank computed.

        Args:
            failure: why there is nothing; of the first rank, as all that follows.
            value: of the penalty.
            gradients: by side, (size * n, d) float32; empty where nobody wants them.
            like: by side, (n, d), whose shape and device the result has; of this rank.
        """
        ...

    def sum(self, values: list[float], failure: Failure | None) -> tuple[list[float], Failure | None]:
        """Return the sums over all ranks, and the first failure that any rank reports; the same on every rank."""
        ...

    def spread(self, value: Any) -> Any:
        """Return the first rank's object, on every rank of one penalty."""
        ...

    def settle(self, failure: Failure | None) -> Failure | None:
        """Return the failure that this step counts as, the same on every rank of the run, when all is done.

        The ranks of one penalty have agreed on it; ranks with a penalty each have not yet.
        """
        ...


class Alone:
    """One process; or each rank for itself."""

    first = True
    size = 1

    def agree(self, failure: Failure | None, rows: int) -> Failure | None:  # noqa: ARG002
        """See `Ranks.agree`."""
        return failure

    def gather(self, rows: Tensor) -> Tensor:
        """See `Ranks.gather`."""
        return rows.detach()

    def gather_names(self, names: list[str]) -> list[str]:
        """See `Ranks.gather_names`."""
        return names

    def share(
        self,
        failure: Failure | None,
        value: float,
        gradients: dict[str, Tensor],
        like: dict[str, Tensor],  # noqa: ARG002
    ) -> Shared:
        """See `Ranks.share`."""
        return Shared(failure, value, gradients)

    def sum(self, values: list[float], failure: Failure | None) -> tuple[list[float], Failure | None]:
        """See `Ranks.sum`."""
        return values, failure

    def spread(self, value: Any) -> Any:
        """See `Ranks.spread`."""
        return value

    def settle(self, failure: Failure | None) -> Failure | None:
        """See `Ranks.settle`."""
        return failure


class Apart(Alone):
    """Each rank for itself, except that a step counts as failed on all of them or on none: so they stop together."""

    def __init__(self, device: torch.device) -> None:
        """Use the default process group, with tensors on `device`."""
        self._device = device

    def settle(self, failure: Failure | None) -> Failure | None:
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

    def agree(self, failure: Failure | None, rows: int) -> Failure | None:
        """See `Ranks.agree`."""
        said = torch.tensor([failure is not None, rows, -rows], dtype=torch.int64, device=self._device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        failed, most, fewest = said.tolist()
        if failed:
            return _first(failure)
        if most != -fewest:
            return Failure(f"the ranks have different batches, of {-fewest} to {most} rows")
        return None

    def gather(self, rows: Tensor) -> Tensor:
        """See `Ranks.gather`."""
        rows = rows.detach().contiguous().to(self._device)
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    def gather_names(self, names: list[str]) -> list[str]:
        """See `Ranks.gather_names`."""
        parts: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, names)
        return [name for part in parts for name in part]

    def share(
        self, failure: Failure | None, value: float, gradients: dict[str, Tensor], like: dict[str, Tensor]
    ) -> Shared:
        """See `Ranks.share`."""
        head = [failure is not None, bool(gradients), value if failure is None else 0.0]
        header = torch.tensor([float(h) for h in head], dtype=torch.float64, device=self._device)
        dist.broadcast(header, 0)
        failed, has_gradients, shared = header.tolist()
        if failed:
            said: list[Any] = [failure]
            dist.broadcast_object_list(said, 0)
            return Shared(said[0], 0.0, {})
        mine: dict[str, Tensor] = {}
        if has_gradients:
            for side, rows in like.items():
                mine[side] = torch.empty(rows.shape, dtype=torch.float32, device=self._device)
                parts = None
                if self.first:
                    parts = [part.contiguous() for part in gradients[side].to(self._device).chunk(self.size)]
                dist.scatter(mine[side], parts, 0)
        return Shared(None, shared, mine)

    def sum(self, values: list[float], failure: Failure | None) -> tuple[list[float], Failure | None]:
        """See `Ranks.sum`."""
        total = torch.tensor([float(failure is not None), *values], dtype=torch.float64, device=self._device)
        dist.all_reduce(total)
        failed, *summed = total.tolist()
        return summed, _first(failure) if failed else None

    def spread(self, value: Any) -> Any:
        """See `Ranks.spread`."""
        said = [value]
        dist.broadcast_object_list(said, 0)
        return said[0]

    def settle(self, failure: Failure | None) -> Failure | None:
        """See `Ranks.settle`."""
        return failure


def _first(failure: Failure | None) -> Failure:
    """Return the failure of the lowest rank that has one, or a fatal one; some rank has one."""
    reasons: list[Failure | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, failure)
    found = [(rank, f) for rank, f in enumerate(reasons) if f is not None]
    rank, first = next((at for at in found if at[1].fatal), found[0])
    return Failure(f"rank {rank}: {first.why}", first.fatal)
