"""What is told of each step: a JSON line beside OpenCLIP's log, and lines and curves through OpenCLIP's own logging."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import statistics
from array import array
from typing import Any, BinaryIO

from .._result import Result

FILE = "specalign.jsonl"
_log = logging.getLogger("specalign.openclip")


class _Epoch:
    """What the sum of an epoch needs to know of its steps."""

    def __init__(self) -> None:
        self.milliseconds = array("d")  # of those that succeeded
        self.spent = 0.0
        self.failed = 0
        self.first = self.last = math.nan

    def add(self, milliseconds: float, penalty: float | None) -> None:
        self.spent += milliseconds
        if penalty is None:
            self.failed += 1
            return
        self.milliseconds.append(milliseconds)
        self.first = penalty if len(self.milliseconds) == 1 else self.first
        self.last = penalty


class Metrics:
    """Tells of steps. Everything it writes is of the process that OpenCLIP lets write."""

    def __init__(self, args: Any) -> None:
        """`args` are OpenCLIP's; the file is made with the first step."""
        self._args = args
        self._file: BinaryIO | None = None
        self._warned = False
        self._epoch = _Epoch()

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
        self._epoch.add(milliseconds, None if result is None else result.value)
        if log and result is not None:
            self._tell(record, result, writer)

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

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: dict[str, Any]) -> None:
        if not getattr(self._args, "log_path", None):  # this rank writes nothing
            return
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        path = os.path.join(os.path.dirname(self._args.log_path), FILE)
        try:
            if self._file is None:
                self._file = open(path, "ab", buffering=0)  # noqa: SIM115 for the whole run
            end = self._file.seek(0, os.SEEK_END)
            if self._file.write(line) != len(line):  # half a line is on a disk that is full
                self._file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as e:  # a run of days does not end for this
            if not self._warned:
                _log.warning("specalign: %s misses steps: %s; the run goes on", path, e.strerror or e)
            self._warned = True

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
