"""Comparing over shards on Ray: the bits of one process while workers and nodes are killed, overhead, cost of rows.

::

    python python/bench/shards.py bits       # 200,000 x (512 + 512) and 50,000 x (1024 + 1024)
    python python/bench/shards.py overhead   # the same sizes, beside one process on the same cores
    python python/bench/shards.py cost       # 100,000, 1,000,000 and 10,000,000 rows of 32 + 32
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from ray.cluster_utils import Cluster

import specalign.shards as steps

PROGRAM = os.environ.get("SPECALIGN_BINARY", "specalign")
DEPTH = ["--top", "5", "--samples", "20", "--permutations", "5"]
BARE = ["--permutations", "0", "--validate=false", "--koda", "0"]


def write(folder, rows, dims, shards):
    """Write rows of clustered samples."""
    rng = np.random.default_rng(rows)
    centres = [rng.standard_normal((20 + 10 * side, d), "f4") for side, d in enumerate(dims)]
    for shard, part in enumerate(np.array_split(np.arange(rows), shards)):
        for side, d in enumerate(dims):
            x = centres[side][part % len(centres[side])] + rng.standard_normal((len(part), d), "f4")
            np.save(folder / f"{'ab'[side]}-{shard:05}.npy", x)


def sides(folder):
    return ["--student", f"{folder}/a-*.npy", "--reference", f"{folder}/b-*.npy"]


def one_process(folder, *flags):
    begin = time.monotonic()
    command = [PROGRAM, "compare", *sides(folder), "--certify=false", "--json", *flags]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    return json.loads(said), time.monotonic() - begin


def on_ray(folder, address, *flags):
    begin = time.monotonic()
    command = [sys.executable, "-m", "specalign.ray", "compare", *sides(folder), "--json", "--address", address, *flags]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr.decode())
    return json.loads(done.stdout), time.monotonic() - begin


def facts(document):
    """Return what must be the same in both."""
    document = {k: v for k, v in document.items() if k not in ("seconds", "stages", "warnings")}
    document["settings"] = {k: v for k, v in document["settings"].items() if k != "threads"}
    return document


def spectrum(folder):
    """Return the eigenvalues in NumPy, float64."""
    sums, n = 0.0, 0
    for a, b in zip(sorted(folder.glob("a-*")), sorted(folder.glob("b-*")), strict=True):
        x, y = (np.load(f).astype("f8") for f in (a, b))
        phi = np.hstack([x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)])
        sums, n = sums + phi.T @ phi, n + len(x)
    values, vectors = np.linalg.eigh(sums / n)
    root, d = vectors * np.sqrt(np.maximum(values, 0)), x.shape[1]
    return np.linalg.eigvalsh(root[:d].T @ root[:d] - root[d:].T @ root[d:])


def processes(cluster, name):
    """Return the cluster's processes that do a task of that name."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (entry / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                yield int(entry.name)
        except (OSError, ValueError):
            continue


@contextlib.contextmanager
def watched(look):
    """Look at the cluster's workers again and again meanwhile."""
    stopped = threading.Event()

    def watch():
        while not stopped.wait(0.05):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def cluster(nodes=1, cpus=2):
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": cpus, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes - 1):
        made.add_node(num_cpus=cpus)
    return made


def bits(folder, rows, dims, shards):
    write(folder, rows, dims, shards)
    want, _ = one_process(folder, *DEPTH)
    values = spectrum(folder)
    found = [g["eigenvalue"] for g in want["positive"] + want["negative"]]
    exact = np.concatenate([values[::-1][:5], values[:5]])
    print(f"{rows:,} x ({dims[0]} + {dims[1]}), {shards} shards")
    print(f"  eigenvalues beside NumPy in float64: within {np.abs(found / exact - 1).max():.1e}")
    for victim in ("nobody", "worker in the first pass", "worker in the second pass", "raylet of the second node"):
        ray = cluster(nodes=2, cpus=1)
        second = ray.list_all_nodes()[-1].all_processes["raylet"][0].process.pid
        struck = []

        def strike(victim=victim, ray=ray, second=second, struck=struck):
            task = "_top" if "second pass" in victim else "_partial"
            workers = [] if victim == "nobody" or struck else list(processes(ray, task))
            if len(workers) > ("raylet" in victim):
                time.sleep(0.3)  # into the middle
                os.kill(second if "raylet" in victim else workers[0], signal.SIGKILL)
                struck.append(victim)

        try:
            with watched(strike):
                got, seconds = on_ray(folder, ray.address, *DEPTH, "--shards-per-task", "1")
        finally:
            ray.shutdown()
        if bool(struck) != (victim != "nobody"):
            sys.exit(f"nothing was there to kill: {victim}")
        print(f"  killed: {victim}: {'the same bits' if facts(got) == facts(want) else 'OTHER BITS'}, {seconds:.1f} s")


def overhead(folder, rows, dims, shards):
    write(folder, rows, dims, shards)
    ray = cluster()
    try:
        times = [(one_process(folder, *BARE)[1], on_ray(folder, ray.address, *BARE)[1]) for _ in range(4)][1:]
    finally:
        ray.shutdown()
    one, many = np.median(times, axis=0)
    print(f"{rows:,} x ({dims[0]} + {dims[1]}): one process {one:.1f} s, Ray {many:.1f} s, {many - one:+.1f} s")


def cost(folder, rows, dims, shards):
    write(folder, rows, dims, shards)
    command = [PROGRAM, "shards", "plan", *sides(folder), *BARE, "--out", str(folder / "plan")]
    subprocess.run(command, check=True, capture_output=True)
    plan = (folder / "plan").read_bytes()
    a, b, _ = steps.names(plan)[0]
    part = steps.partial(plan, [(0, np.load(a), np.load(b))])
    most = [0, 0]
    ray = cluster()

    def look():
        for pid in [*processes(ray, "_partial"), *processes(ray, "_top")]:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for i, key in enumerate(("RssAnon", "RssFile")):
                most[i] = max(most[i], int(status.split(f"{key}:")[1].split()[0]) // 1024)

    try:
        on_ray(folder, ray.address, *BARE)  # what was written is in memory now, and workers are there
        with watched(look):
            _, seconds = on_ray(folder, ray.address, *BARE)
        _, one = one_process(folder, *BARE)
    finally:
        ray.shutdown()
    size = sum(f.stat().st_size for f in folder.glob("?-*.npy"))
    print(
        f"{rows:,} rows, {shards} shards: Ray {seconds:.1f} s, one process {one:.1f} s; read {2 * size / 1e9:.2f} GB; "
        f"a partial {len(part):,} bytes; a worker {most[0]} MiB of its own and {most[1]} MiB of mapped files",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bits", "overhead", "cost"])
    what = parser.parse_args().what
    large = [(200_000, (512, 512), 64), (50_000, (1024, 1024), 64)]
    small = [(10**5, (32, 32), 64), (10**6, (32, 32), 64), (10**7, (32, 32), 512)]
    for size in small if what == "cost" else large:
        with tempfile.TemporaryDirectory() as name:
            {"bits": bits, "overhead": overhead, "cost": cost}[what](Path(name), *size)


if __name__ == "__main__":
    main()
