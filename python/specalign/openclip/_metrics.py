"""What is told of each step: a JSON line beside OpenCLIP's log, and lines and curves through OpenCLIP's own logging."""

from __future__ import annotations

import importlib
import logging
import math
import os
import statistics
from array import array
from typing import Any

from .._result import Result
from ._files import JSONLines
from ._penalty import Aligned, Step

FILE = "specalign.jsonl"
_log = logging.getLogger("specalign.openclip")


class _Epoch:
    """What the sum of an epoch needs to know of its steps."""

    def __init__(self) -> None:
        self.milliseconds = array("d")  # of those that succeeded
        self.spent = 0.0
        self.failed = 0
        self.skipped = 0
        self.first = self.last = math.nan

    def add(self, step: Step) -> None:
        self.spent += step.milliseconds
        self.skipped += step.skipped
        if step.failure is not None:
            self.failed += 1
            return
        self.milliseconds.append(step.milliseconds)
        self.first = step.value if len(self.milliseconds) == 1 else self.first
        self.last = step.value


class Metrics:
    """Tells of steps. Everything it writes is of the process that OpenCLIP lets write."""

    def __init__(self, args: Any) -> None:
        """`args` are OpenCLIP's; the file is made with the first step."""
        self._args = args
        path = getattr(args, "log_path", None)  # None where this rank writes nothing
        self._lines = JSONLines(os.path.join(os.path.dirname(path), FILE), "steps") if path else None
        self._epoch = _Epoch()

    def step(self, number: int, epoch: int, step: Step, aligned: list[Aligned], *, log: bool, writer: Any) -> None:
        """Tell of one optimizer step.

        Args:
            number: in the run, from 0, as OpenCLIP counts.
            epoch: from 0.
            step: how it went.
            aligned: the penalties that `step.results` are of.
            log: whether OpenCLIP logs this step.
            writer: OpenCLIP's TensorBoard writer, or None.
        """
        record: dict[str, Any] = {
            "step": number,
            "epoch": epoch,
            "weight": step.weight,
            "milliseconds": round(step.milliseconds, 4),
        }
        if step.norms is not None:
            record |= {"task_gradient_norm": _finite(step.norms[0]), "penalty_gradient_norm": _finite(step.norms[1])}
        if step.skipped:
            record["skipped"] = step.skipped
        if len(step.results) == 1:
            record |= _figures(step.results[0])
        elif step.results:
            record["penalty"] = step.value
            record["references"] = [
                {"reference": a.target.name or a.target.kind, "features": a.target.features, "weight": a.target.weight}
                | _figures(result)
                for a, result in zip(aligned, step.results, strict=True)
            ]
        record["failure"] = step.failure
        if self._lines is not None:
            self._lines.write(record)
        self._epoch.add(step)
        if log and step.results:
            self._tell(record, step, aligned, writer)

    def epoch(self, epoch: int, seconds: float) -> None:
        """Sum up an epoch that took `seconds`."""
        done, self._epoch = self._epoch, _Epoch()
        if done.milliseconds:
            steps = len(done.milliseconds) + done.failed
            _log.info(
                "specalign: epoch %d: penalty %.5g -> %.5g over %d steps, median %.2f ms a step, %.1f %% of the time%s",
                epoch, done.first, done.last, steps,
                statistics.median(done.milliseconds), done.spent / max(1e-9, seconds) / 10,
                f"; {done.failed} failed and counted as zero" if done.failed else "",
            )  # fmt: skip
        if done.skipped:
            _log.info("specalign: epoch %d: %d rows were skipped: the store does not have them", epoch, done.skipped)

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()

    def _tell(self, record: dict[str, Any], step: Step, aligned: list[Aligned], writer: Any) -> None:
        several = len(step.results) > 1
        weight = f"weight {step.weight:#.4g}"
        if step.norms is not None:
            weight += f" (gradients {step.norms[0]:.3g} task, {step.norms[1]:.3g} penalty)"
        spent = f"{step.milliseconds:.2f} ms (engine {sum(r.seconds for r in step.results) * 1e3:.2f})"
        curves: dict[str, float | None] = {
            "penalty": step.value, "weight": step.weight, "milliseconds": record["milliseconds"],
            "task_gradient_norm": record.get("task_gradient_norm"),
        }  # fmt: skip
        if several:
            _log.info("specalign: step %d: penalty %#.5g, %s, %s", record["step"], step.value, weight, spent)
        for i, (one, result) in enumerate(zip(aligned, step.results, strict=True)):
            text = _spectrum(result) + ("" if result.converged else ", NOT CONVERGED")
            if several:
                _log.info("specalign:   %s: %#.5g%s", one.target, result.value, text)
            else:
                _log.info(
                    "specalign: step %d: penalty %#.5g, %s%s, %s", record["step"], result.value, weight, text, spent
                )
            curves |= {f"{i}_{k}" if several else k: v for k, v in _curves(result).items()}
        told = {f"train/specalign_{name}": value for name, value in curves.items() if value is not None}
        if writer is not None:
            for name, value in told.items():
                writer.add_scalar(name, value, record["step"])
        backend = "trackio" if getattr(self._args, "trackio", False) else "wandb"
        if getattr(self._args, backend, False):
            importlib.import_module(backend).log({**told, "step": record["step"]}, step=record["step"])


def _figures(result: Result) -> dict[str, Any]:
    return {
        "penalty": result.value,
        "parts": list(result.parts),
        "eigenvalues": None if result.eigenvalues is None else result.eigenvalues.tolist(),
        "gap": result.gap,
        "residual": result.residual,
        "gradient_error": result.gradient_error,
        "gradient_norm": result.gradient_norm,
        "products": result.products,
        "converged": result.converged,
        "zero_rows": result.zero_rows,
        "sigma": list(result.sigma),
        "route": result.route,
        "approximation": result.approximation,
        "device": result.device,
        "isa": result.isa,
        "engine_milliseconds": round(result.seconds * 1e3, 4),
        "restarts": result.restarts,
        "warnings": list(result.warnings),
    }


def _spectrum(result: Result) -> str:
    if result.eigenvalues is None or not len(result.eigenvalues):
        return ""
    shown = " ".join(f"{v:+.4f}" for v in result.eigenvalues[:3])
    return (
        f", eigenvalues {shown} .. ({len(result.eigenvalues)}), gap {result.gap:.2g}, residual {result.residual:.1e}, "
        f"gradient error {result.gradient_error:.1e}"
    )


def _curves(result: Result) -> dict[str, float | None]:
    curves: dict[str, float | None] = {
        "penalty": result.value,
        "gap": result.gap,
        "residual": result.residual,
        "gradient_error": result.gradient_error,
        "gradient_norm": result.gradient_norm,
    }
    if result.eigenvalues is not None:
        curves["lambda_max"] = max(0.0, float(result.eigenvalues.max(initial=0.0)))
        curves["lambda_min"] = min(0.0, float(result.eigenvalues.min(initial=0.0)))
    return curves


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
