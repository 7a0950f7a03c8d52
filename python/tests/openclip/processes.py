"""Processes of their own for whole runs and for ranks, forked from one that has imported everything already.

An interpreter that imports OpenCLIP takes seconds, a fork takes none. The processes have threads, descriptors and a
sidecar of their own, as ones from a shell have.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["preloaded"])


class Child:
    """A process, and what it writes."""

    def __init__(self, target, arguments, output, environment=None):
        self._output = output
        self._process = _context.Process(target=_begin, args=(target, arguments, str(output), environment or {}))
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{FOLDER}:{before or ''}"  # the server's, when this starts it
        try:
            self._process.start()
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before
        self.pid = self._process.pid

    def finish(self, timeout=1000):
        """Wait; return exit code and output."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"still running after {timeout} s; it said\n{self._output.read_text()[-3000:]}")
        return self._process.exitcode, self._output.read_text()

    def kill(self):
        self._process.kill()
        self._process.join()


def _begin(target, arguments, output, environment):
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loaders' workers, as it is from a shell
    sys.exit(target(*arguments))


def openclip(arguments):
    """Run OpenCLIP as it is."""
    from open_clip_train.main import main

    return main(arguments)


def aligned(arguments):
    """Run ``python -m specalign.openclip``."""
    from specalign.openclip import __main__

    return __main__.main(arguments)


def features(arguments):
    """Run ``python -m specalign.openclip features``."""
    from specalign.openclip import _features

    return _features.main(arguments)


def compiled(arguments):
    """Run it with torch.compile's tracing and graphs, but without its C++ compiler, which takes minutes."""
    compiler = torch.compile
    torch.compile = lambda model: compiler(model, backend="aot_eager")
    return aligned(arguments)


def few_classes(target, arguments):
    """Run `target` with zero-shot evaluation on the first eight of ImageNet's classes.

    OpenCLIP 3.3.0 takes an array of one number for a number, which NumPy 2.4 refuses.
    """
    from open_clip_train import zero_shot

    def accuracy(output, target, topk):
        best = output.topk(max(topk), 1)[1].T
        return [float((best[:k] == target).sum()) for k in topk]

    zero_shot.IMAGENET_CLASSNAMES = zero_shot.IMAGENET_CLASSNAMES[:8]
    zero_shot.accuracy = accuracy
    return target(arguments)


def on_cpu(arguments):
    """Run it as a rank on a CPU, which DistributedDataParallel refuses as the device that OpenCLIP 3.3.0 hands it."""
    wrapped = torch.nn.parallel.DistributedDataParallel
    torch.nn.parallel.DistributedDataParallel = lambda module, device_ids=None, **rest: wrapped(module, **rest)
    return aligned(arguments)


def ranks(size, target, arguments, folder, environment=None):
    """Start `size` processes as torchrun would."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **(environment or {}),
    }
    return [
        Child(target, arguments, folder / f"rank{r}.txt", {**shared, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(size)
    ]


def torchrun(size, arguments, folder):
    """Start torchrun's agent, which forks the ranks; what they say is in files of `folder`."""
    return Child(_agent, (size, arguments, str(folder)), folder / "torchrun.txt")


def _agent(size, arguments, folder):
    from torch.distributed import run

    run.main(
        ["--standalone", "--nproc-per-node", str(size), "--start-method", "fork", "--run-path",
         "--redirects", "3", "--log-dir", folder, __file__, *arguments]
    )  # fmt: skip


def gone(pid):
    """Return whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


if __name__ == "__main__":  # a rank of torchrun
    torch.set_num_threads(1)
    sys.exit(on_cpu(sys.argv[1:]))
