"""Training runs by OpenCLIP's own program, with and without the penalty."""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from .console import Console, DemoError
from .files import digest, fingerprint, read_json, write_json
from .pairs import SIZE

EPOCHS = 4  # of 31 batches each: 124 steps
BATCH = 256
CONTEXT = 16  # tokens of a caption

MODEL = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
}

# What OpenCLIP's trainer prints; `Batch (t)` is the mean of the seconds a step since the last such line.
_STEP = re.compile(
    r"Train Epoch: (?P<epoch>\d+) \[\s*(?P<seen>\d+)/(?P<all>\d+) .*?Batch \(t\): (?P<seconds>[0-9.]+)"
    r".* Loss: (?P<loss>[-0-9.naif]+)"
)


@dataclass(frozen=True)
class Plan:
    """One run to make.

    Attributes:
        name: its key in the results and the name of its folder, without the seed.
        title: how the table and the picture call it.
        penalty: the settings of ``python -m specalign.openclip``, without the reference; None for OpenCLIP alone.
        shuffled: whether the reference's rows are handed to the wrong images, as a control.
    """

    name: str
    title: str
    penalty: dict[str, Any] | None
    shuffled: bool = False


@dataclass(frozen=True)
class Trained:
    """What a run left.

    Attributes:
        weights: the trained state dict.
        log: everything that OpenCLIP printed.
        step_seconds: median over the log's lines of the seconds a step.
        seconds: of the whole program, start-up and data loading included.
        losses: (step, total loss) as logged.
    """

    weights: Path
    log: Path
    step_seconds: float
    seconds: float
    losses: list[list[float]]


@dataclass
class Progress:
    """Reads OpenCLIP's log lines as they come."""

    steps: int = 0
    done: float = 0.0
    batch_seconds: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)

    def read(self, line: str) -> bool:
        """Take in one line; True if it told of a step."""
        found = _STEP.search(line)
        if found is None:
            return False
        epoch, seen, size = int(found["epoch"]), int(found["seen"]), int(found["all"])
        self.steps = epoch * (size // BATCH) + seen // BATCH
        self.done = self.steps / max(1, EPOCHS * (size // BATCH))
        if self.losses:  # the first line's step holds what every process does once
            self.batch_seconds.append(float(found["seconds"]))
        self.losses.append([self.steps, float(found["loss"])])
        return True


def model_folder(cache: Path) -> Path:
    """Write the small CLIP's configuration as a folder for OpenCLIP's ``--model local-dir:``, and return it."""
    folder = cache / "model"
    if read_json(folder / "open_clip_config.json") != MODEL:
        write_json(folder / "open_clip_config.json", MODEL)
    return folder


def openclip_arguments(model: str, pairs: str, logs: str, name: str, seed: int) -> list[str]:
    """Return the arguments of ``open_clip_train``, the same for every run but for seed and names."""
    return [
        "--model", f"local-dir:{model}",
        "--train-data", pairs, "--dataset-type", "csv", "--csv-separator", ",",
        "--batch-size", str(BATCH), "--epochs", str(EPOCHS),
        "--lr", "1e-3", "--warmup", "10",  # then a cosine to 0, OpenCLIP's default
        "--device", "cpu", "--precision", "fp32",  # the default, amp, is seventy times slower on a CPU
        "--workers", "0",  # the images are tiny: a worker takes more from two cores than it gives
        "--seed", str(seed),  # weights and order of the batches: the same in every run of this seed
        "--log-every-n-steps", "5", "--save-frequency", "0",
        "--logs", logs, "--name", name,
    ]  # fmt: skip


class Trainer:
    """Makes runs, each once: a run whose settings, data and programs are unchanged is taken from the last time."""

    def __init__(self, root: Path, cache: Path, runs: Path, pairs: Path, identity: dict[str, str]) -> None:
        """`identity` holds fingerprints of what the settings do not show: data, programs."""
        self._root = root
        self._runs = runs
        self._pairs = pairs
        self.model = model_folder(cache)  # for OpenCLIP's `local-dir:`
        self._identity = identity

    def run(self, plan: Plan, seed: int, store: Path | None, console: Console) -> Trained:
        """Train, or return what the same run left earlier. `store` has the reference's features."""
        folder = self._runs / f"{plan.name}-seed{seed}"
        made = fingerprint(
            {
                "identity": self._identity, "penalty": plan.penalty, "shuffled": plan.shuffled, "seed": seed,
                "model": MODEL, "arguments": openclip_arguments("", "", "", "", seed),
            }
        )  # fmt: skip
        record = read_json(folder / "run.json")
        weights = folder / "weights.pt"
        if record and record.get("fingerprint") == made and weights.exists() and digest(weights) == record["weights"]:
            console.line("trained before with the same settings, data and programs: taken from there")
        else:
            record = self._train(plan, seed, store, folder, made, console)
        return Trained(weights, folder / "out.log", record["step_seconds"], record["seconds"], record["losses"])

    def _train(
        self, plan: Plan, seed: int, store: Path | None, folder: Path, made: str, console: Console
    ) -> dict[str, Any]:
        self._runs.mkdir(parents=True, exist_ok=True)
        for stale in self._runs.glob(f".{folder.name}-*"):  # of a process that was killed outright
            shutil.rmtree(stale, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(dir=self._runs, prefix=f".{folder.name}-"))
        try:
            command = [sys.executable, "-u", "-m"]
            if plan.penalty is None:
                command += ["open_clip_train.main"]
            else:
                if store is None:
                    raise DemoError(f"the run {plan.name} needs the reference's features")
                config = draft / "align.yaml"
                settings = {**plan.penalty, "reference": str(store)}
                config.write_text(f"# {plan.title}\n{yaml.safe_dump(settings, sort_keys=False)}", encoding="utf-8")
                command += ["specalign.openclip", "--config", str(config), "--"]
            command += openclip_arguments(str(self.model), str(self._pairs), str(draft), "openclip", seed)
            started = time.monotonic()
            progress = self._watch(command, draft / "out.log", console)
            seconds = time.monotonic() - started
            checkpoint = draft / "openclip" / "checkpoints" / f"epoch_{EPOCHS}.pt"
            if not checkpoint.exists() or not progress.batch_seconds:
                raise DemoError(f"OpenCLIP ended without a checkpoint; what it printed:\n{_tail(draft / 'out.log')}")
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
            torch.save(state, draft / "weights.pt")
            shutil.rmtree(checkpoint.parent)  # with the optimiser's state it is three times the size
            record = {
                "fingerprint": made,
                "weights": digest(draft / "weights.pt"),
                "step_seconds": statistics.median(progress.batch_seconds),
                "seconds": seconds,
                "losses": progress.losses,
                "command": command,
            }
            write_json(draft / "run.json", record)
            if folder.exists():
                shutil.rmtree(folder)
            draft.chmod(0o755)
            os.replace(draft, folder)
            console.progress(
                f"{progress.steps} steps in {seconds:.0f} s, {record['step_seconds']:.3f} s a step", final=True
            )
            return record
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _watch(self, command: list[str], log: Path, console: Console) -> Progress:
        progress = Progress()
        with log.open("w", encoding="utf-8") as copy:
            process = subprocess.Popen(
                command, cwd=self._root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace",
            )  # fmt: skip
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    copy.write(line)
                    if progress.read(line):
                        first, loss = progress.losses[0][1], progress.losses[-1][1]
                        console.progress(f"step {progress.steps} ({progress.done:.0%}), loss {first:.2f} -> {loss:.2f}")
            except BaseException:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
            finally:
                process.wait()
        if process.returncode != 0:
            raise DemoError(
                f"the training program ended with status {process.returncode}; the last it said:\n{_tail(log)}"
            )
        return progress


def _tail(log: Path, lines: int = 12) -> str:
    with log.open(encoding="utf-8") as file:
        return "".join(f"    {line}" for line in deque(file, lines)).rstrip()
