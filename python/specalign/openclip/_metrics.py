"""What is told of each step: a JSON line beside OpenCLIP's log, and lines and curves through OpenCLIP's own logging."""

from __future__ import annotations

import json
import logging
import os
import statistics
from typing import Any, TextIO

from .._result import Result

FILE = "specalign.jsonl"
_log = logging.getLogger("specalign.openclip")


class Metrics:
    """Tells of steps. Everything it writes is of the process that OpenCLIP lets write."""

    def __init__(self, args: Any) -> None:
        """`args` are OpenCLIP's; the file is made with the first step."""
        self._args = args
        self._file: TextIO | None = None
        self._steps: list[dict[str, Any]] = []

    def step(self, *, step: int, epoch: int, log: bool, writer: Any, weight: float, milliseconds: float,
             result: Result | None, failure: str | None) -> None:  # fmt: skip
        """Tell of one optimizer step.

        Args:
            step: its number in the run, from 0, as OpenCLIP counts.
            epoch: from 0.
            log: whether OpenCLIP logs this step.
            writer: OpenCLIP's TensorBoard writer, or None.
            weight: by the schedule, at this step.
            milliseconds: of the whole penalty, with the reference's rows and the way to the sidecar and back.
            result: what the sidecar returned.
            failure: why there is none.
        """
        record: dict[str, Any] = {
            "step": step,
            "epoch": epoch,
            "weight": weight,
            "milliseconds": round(milliseconds, 4),
        }
        if result is not None:
            record |= {
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
        record["failure"] = failure
        self._write(record)
        self._steps.append(record)
        if log and result is not None:
            self._tell(record, result, writer)

    def epoch(self, epoch: int, seconds: float) -> None:
        """Sum up an epoch that took `seconds`."""
        good = [s for s in self._steps if s["failure"] is None]
        failed = len(self._steps) - len(good)
        spent = sum(s["milliseconds"] for s in self._steps)
        if good:
            _log.info(
                "specalign: epoch %d: penalty %.5g -> %.5g over %d steps, median %.2f ms a step, %.1f %% of the time%s",
                epoch, good[0]["penalty"], good[-1]["penalty"], len(self._steps),
                statistics.median(s["milliseconds"] for s in good), spent / max(1e-9, seconds) / 10,
                f"; {failed} failed and counted as zero" if failed else "",
            )  # fmt: skip
        self._steps = []

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: dict[str, Any]) -> None:
        if not getattr(self._args, "log_path", None):  # this rank writes nothing
            return
        if self._file is None:
            path = os.path.join(os.path.dirname(self._args.log_path), FILE)
            self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 for the whole run
        self._file.write(json.dumps(record, allow_nan=False) + "\n")

    def _tell(self, record: dict[str, Any], result: Result, writer: Any) -> None:
        text = f"penalty {result.value:#.5g}, weight {record['weight']:#.4g}"
        if result.eigenvalues is not None and len(result.eigenvalues):
            shown = " ".join(f"{v:+.4f}" for v in result.eigenvalues[:3])
            text += f", eigenvalues {shown} .. ({len(result.eigenvalues)})"
            text += (
                f", gap {result.gap:.2g}, residual {result.residual:.1e}, gradient error {result.gradient_error:.1e}"
            )
        text += f", {record['milliseconds']:.2f} ms (engine {record['engine_milliseconds']:.2f})"
        text += "" if result.converged else ", NOT CONVERGED"
        _log.info("specalign: step %d: %s", record["step"], text)
        curves = {
            "penalty": result.value,
            "weight": record["weight"],
            "gap": result.gap,
            "residual": result.residual,
            "gradient_error": result.gradient_error,
            "gradient_norm": result.gradient_norm,
            "milliseconds": record["milliseconds"],
        }
        if result.eigenvalues is not None:
            curves["lambda_max"] = max(0.0, float(result.eigenvalues.max(initial=0.0)))
            curves["lambda_min"] = min(0.0, float(result.eigenvalues.min(initial=0.0)))
        curves = {f"train/specalign_{name}": value for name, value in curves.items() if value is not None}
        if writer is not None:
            for name, value in curves.items():
                writer.add_scalar(name, value, record["step"])
        if getattr(self._args, "wandb", False):
            import wandb

            wandb.log({**curves, "step": record["step"]}, step=record["step"])
