"""Making things go wrong: what the tests of docs/faults.md share."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

BINARY = os.environ["SPECALIGN_BINARY"]
NOBODY = 65534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, or mount")

HEAD = """
import os, signal, sys, threading, time
import numpy as np
import specalign
x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
y = np.random.default_rng(1).standard_normal((64, 8)).astype("f4")
"""


def same(a, b):
    return a.value == b.value and np.array_equal(a.eigenvalues, b.eigenvalues) and np.array_equal(a.grad, b.grad)


def crash(pid, number):
    """Send a signal that ends a process, and wait for its end: it first says much."""
    os.kill(pid, number)
    fd = os.pidfd_open(pid)
    select.select([fd], [], [], 10)
    os.close(fd)


def program(path, text):
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def trainer(text, prefix=(), **options):
    """Start a Python that runs `text` after HEAD."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", HEAD + textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def compile_c(folder, text):
    """Compile a shared library to be loaded before libc."""
    (folder / "shim.c").write_text(textwrap.dedent(text))
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


@contextlib.contextmanager
def daemon(folder, *flags, binary=BINARY):
    attach = folder / "attach.json"
    process = subprocess.Popen([binary, "serve", "--daemon", "--attach", attach, *flags], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not attach.exists() or json.loads(attach.read_text())["pid"] != process.pid:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield attach, process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie is gone: its reaper is not ours.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_gone(pid, seconds):
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop(pid):
    """Stop a process and wait until every thread of it stands: before that, one may still answer."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not all(_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, "the process does not stop"
        time.sleep(0.001)


def _stopped(thread):
    try:
        state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return True
    return state in "TtZX"
