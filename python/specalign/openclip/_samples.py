"""The log of what the student still misses: every so many steps, the samples of the strongest such groups."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from torch import Tensor

from .._result import Result
from ._config import Samples
from ._files import JSONLines
from ._ids import sample_id
from ._loader import Window
from ._penalty import Aligned, Step
from ._ranks import Ranks

FILE = "specalign_groups.jsonl"
_log = logging.getLogger("specalign.openclip")
ROWS = 1024  # of a step's samples, evenly spread; the eigenvectors of more take longer than a log line is worth


class Groups:
    """Writes the groups that the reference sees and the student does not.

    They are the eigenvectors of the difference of the kernel matrices, L = (K1 - eta K2) / n, of its most negative
    eigenvalues (SPEC, definition 1 and theorem 1); a group's samples are the largest entries.
    """

    def __init__(self, settings: Samples, train: Any, args: Any, ranks: Ranks) -> None:
        """`train` and `args` are OpenCLIP's; the file is made with the first entry."""
        self._settings = settings
        self._dataset = getattr(train.dataloader, "dataset", None)  # of a CSV
        self._args = args
        self._ranks = ranks
        self._lines = JSONLines(os.path.join(os.path.dirname(args.log_path or ""), FILE), "entries")

    def wanted(self, step: int) -> bool:
        """Return whether there is an entry for this step."""
        return step % self._settings.every == 0

    def step(self, number: int, window: Window, aligned: list[Aligned], step: Step) -> None:
        """Write an entry for each reference. Every rank calls it, because names are gathered."""
        if step.failure is not None:
            return
        keys = self._ranks.gather(window.keys).tolist()
        names = self._ranks.gather_names(window.names)
        if not (self._ranks.first and self._args.rank == 0 and self._args.log_path):
            return
        for one in aligned:
            if one.seen is None or one.session is None or one.result is None:
                continue
            try:
                self._lines.write(self._record(number, one, keys, names))
            except Exception as e:  # a log is not worth a run of days
                _log.warning("specalign: no groups of step %d: %s: %s", number, type(e).__name__, e)
            one.seen = None

    def _record(self, number: int, one: Aligned, keys: list[int], names: list[str]) -> dict[str, Any]:
        assert one.seen is not None
        assert one.session is not None
        assert one.result is not None
        student, reference, known = one.seen
        there = range(len(student)) if known is None else known.nonzero()[0].tolist()
        found = groups(
            student, torch.as_tensor(reference), one.session.settings, one.result,
            self._settings.groups, self._settings.top,
        )  # fmt: skip
        return {
            "step": number,
            "reference": one.target.name or one.target.kind,
            "features": one.target.features,
            "rows": min(ROWS, len(student)),
            "groups": [
                {
                    "eigenvalue": value,
                    "samples": [{**self._named(there[i], keys, names), "score": score} for i, score in scores],
                }
                for value, scores in found
            ],
        }

    def _named(self, at: int, keys: list[int], names: list[str]) -> dict[str, Any]:
        if names:
            name, _, caption = names[at].partition("\n")
            return {"id": sample_id(name), "image": name, "caption": caption}
        if self._dataset is not None and hasattr(self._dataset, "images") and at < len(keys):
            row = keys[at]
            path = str(list_item(self._dataset.images, row))
            return {"id": sample_id(path), "image": path, "caption": str(list_item(self._dataset.captions, row))}
        return {"row": at}


def list_item(values: Any, row: int) -> Any:
    """Return an item of a list or of a pandas Series."""
    return values.iloc[row] if hasattr(values, "iloc") else values[row]


def groups(
    student: Tensor, reference: Tensor, settings: dict[str, Any], result: Result, count: int, top: int
) -> list[tuple[float, list[tuple[int, float]]]]:
    """Return the strongest groups of the reference that the student lacks.

    Args:
        student: (n, d1) rows.
        reference: (n, d2) rows of the same samples.
        settings: of the session: kernels, eta, center.
        result: of the step, for the bandwidths.
        count: at most so many groups.
        top: samples a group.

    Returns:
        For each group its eigenvalue, negative, the strongest first, and its samples by falling score: the row and
        its entry in the unit eigenvector.
    """
    rows = torch.linspace(0, len(student) - 1, min(ROWS, len(student))).round().long()
    one, two = student[rows.to(student.device)].float().cpu(), reference[rows.to(reference.device)].float().cpu()
    first = _kernel(one, settings.get("student_kernel") or settings["kernel"], result.student_sigma)
    second = _kernel(two, settings.get("reference_kernel") or settings["kernel"], result.reference_sigma)
    difference = (first - float(settings.get("eta", 1.0)) * second) / len(rows)
    if settings.get("center"):
        difference = (
            difference - difference.mean(0, keepdim=True) - difference.mean(1, keepdim=True) + difference.mean()
        )
    values, vectors = torch.linalg.eigh(difference)
    found = []
    for value, vector in zip(values[:count].tolist(), vectors.T[:count], strict=True):
        if value >= 0:
            break
        total = float(vector.sum())
        peak = float(vector[vector.abs().argmax()])
        vector = vector * (1.0 if (total if abs(total) > 1e-3 else peak) >= 0 else -1.0)
        scores = vector.topk(min(top, len(vector)))
        found.append(
            (value, [(int(rows[i]), s) for i, s in zip(scores.indices.tolist(), scores.values.tolist(), strict=True)])
        )
    return found


def _kernel(x: Tensor, kind: str, sigma: float | None) -> Tensor:
    if kind == "cosine":
        x = torch.nn.functional.normalize(x, dim=-1)
    if kind in ("cosine", "linear"):
        return x @ x.T
    assert sigma is not None
    if kind == "laplacian":
        return torch.exp(-torch.cdist(x, x, p=1) / sigma)
    return torch.exp(-torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square() / (2 * sigma**2))
