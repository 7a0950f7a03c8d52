"""What `specalign compare` and `metrics` cost, and how exact they are, each against its rival in the same run.

::

    python python/bench/compare.py speed      # 117,000 rows of 512 and 768: against NumPy and PyTorch, same route
    python python/bench/compare.py nngs       # 35,000 rows of 512 on both sides: neighbours against PyTorch
    python python/bench/compare.py memory     # peak memory at 100,000 and 1,000,000 rows
    python python/bench/compare.py nystrom    # Fashion-MNIST, 70,000 rows: Nyström and random features against exact

The rivals of `speed` read the same files, normalise the rows, form the joint covariance in float32, solve the symmetric
form of Algorithm 1 in float64 for the whole spectrum, and map the top directions back to samples.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SPECALIGN_BINARY", str(ROOT / "bin/specalign"))
TOP = 10
Matrix = npt.NDArray[np.float32]


def compare(student: Path, reference: Path, *arguments: str) -> dict[str, Any]:
    """Run the command and return its JSON document, with the peak memory of the process in bytes."""
    command = [BINARY, "compare", str(student), str(reference), "--json", "--top", str(TOP), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    document: dict[str, Any] = json.loads(text)
    document["peak"] = usage.ru_maxrss * 1024
    return document


PLAIN = ("--permutations", "0", "--koda", "0", "--certify=false")


def write_clusters(folder: Path, rows: int, d1: int, d2: int) -> tuple[Path, Path]:
    """Write two embeddings of `rows` samples in 40 and 25 groups, block by block."""
    rng = np.random.default_rng(3)
    paths = folder / f"student-{rows}.npy", folder / f"reference-{rows}.npy"
    if all(path.exists() for path in paths):
        return paths
    first, second = rng.standard_normal((40, d1)), rng.standard_normal((25, d2))
    files = [
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, d))
        for path, d in zip(paths, (d1, d2), strict=True)
    ]
    for at in range(0, rows, 10_000):
        count = min(10_000, rows - at)
        group = rng.integers(0, 40, count)
        files[0][at : at + count] = first[group] + 1.5 * rng.standard_normal((count, d1), dtype=np.float32)
        files[1][at : at + count] = second[group % 25] + 1.5 * rng.standard_normal((count, d2), dtype=np.float32)
    for file in files:
        file.flush()
    return paths


def solve(c: npt.NDArray[np.float64], d1: int, eigh: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Return the eigenvalues of L and the directions of the top ones: C = Zᵀ Z, Θ = Z J Zᵀ, u = J Zᵀ w / λ."""
    s, q = eigh(c)
    z = (q * np.sqrt(np.maximum(s, 0))).T
    sign = np.ones(len(c))
    sign[d1:] = -1
    values, w = eigh((z * sign) @ z.T)
    top = np.r_[np.arange(TOP), np.arange(len(values) - TOP, len(values))]
    return values, (sign[:, None] * (z.T @ w[:, top])).astype(np.float32)


def with_numpy(paths: tuple[Path, Path]) -> float:
    """Return SPEC-diff."""
    phi = []
    for path in paths:
        x = np.load(path)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        phi.append(x)
    joint = np.concatenate(phi, axis=1)
    c = (joint.T @ joint).astype(np.float64) / len(joint)
    values, u = solve(c, phi[0].shape[1], np.linalg.eigh)
    v = joint @ u
    np.argpartition(-v, 20, axis=0)[:20]
    return float(np.abs(values).max())


def with_torch(paths: tuple[Path, Path]) -> float:
    """Return SPEC-diff."""
    import torch

    phi = [torch.nn.functional.normalize(torch.from_numpy(np.load(path)), dim=1) for path in paths]
    joint = torch.cat(phi, dim=1)
    c = (joint.T @ joint).double() / len(joint)
    values, u = solve(c.numpy(), phi[0].shape[1], lambda a: [p.numpy() for p in torch.linalg.eigh(torch.from_numpy(a))])
    v = joint @ torch.from_numpy(u)
    torch.topk(v, 20, dim=0)
    return float(np.abs(values).max())


def speed(folder: Path, rounds: int) -> None:
    """Time the three, in turn."""
    paths = write_clusters(folder, 117_000, 512, 768)
    runs: dict[str, Callable[[], float]] = {
        "specalign": lambda: float(compare(*paths, *PLAIN)["spec_diff"]),
        "NumPy": lambda: with_numpy(paths),
        "PyTorch": lambda: with_torch(paths),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    value: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            value[name] = run()
            seconds[name].append(time.perf_counter() - begin)
    ours = statistics.median(seconds["specalign"])
    print(f"117,000 rows, 512-d against 768-d, cosine, {TOP} groups a side, {rounds} rounds in turn, files to samples;")
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for name, all_of in seconds.items():
        median, least = statistics.median(all_of), min(all_of)
        print(
            f"  {name:10} {median:6.2f} s, at best {least:6.2f} s  {median / ours:5.2f}x  SPEC-diff {value[name]:.7f}"
        )


def nngs_with_torch(paths: tuple[Path, Path], k: int, block: int = 1024) -> float:
    """Return NNGS by the cosine, from products of blocks of rows with all."""
    import torch

    near = []
    for path in paths:
        x = torch.nn.functional.normalize(torch.from_numpy(np.load(path)), dim=1)
        found = []
        for at in range(0, len(x), block):
            similar = x[at : at + block] @ x.T
            similar[torch.arange(len(similar)), torch.arange(at, at + len(similar))] = -2  # not itself
            found.append(similar.topk(k, sorted=False).indices)
        near.append(torch.cat(found))
    common = (near[0][:, :, None] == near[1][:, None, :]).sum((1, 2))
    return float((common / (2 * k - common)).mean())


def nngs(folder: Path, rounds: int) -> None:
    """Time both, in turn."""
    k = 10
    paths = write_clusters(folder, 35_000, 512, 512)
    command = [BINARY, "metrics", *map(str, paths), "--without", "spec_diff,cka", "--nngs-k", str(k), "--json"]

    def ours() -> float:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return float(json.loads(done.stdout)["nngs"][0]["value"])

    runs: dict[str, Callable[[], float]] = {"specalign": ours, "PyTorch": lambda: nngs_with_torch(paths, k)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            value = run()
            seconds[name].append(time.perf_counter() - begin)
            print(f"  {name:10} {seconds[name][-1]:6.2f} s, NNGS {value:.7f}", flush=True)
    ratio = statistics.median(seconds["PyTorch"]) / statistics.median(seconds["specalign"])
    print(f"  PyTorch takes {ratio:.2f} times as long; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")


def memory(folder: Path) -> None:
    """Compare the peaks of a tenth and of all rows."""
    peaks = []
    for rows in (100_000, 1_000_000):
        # In a process of its own: the peak of a child counts what its parent held when it was started.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            paths = pool.submit(write_clusters, folder, rows, 128, 192).result()
        document = compare(*paths)
        peaks.append(document["peak"])
        peak, seconds = document["peak"] / 2**20, document["seconds"]
        print(f"  {rows:9,} rows: peak {peak:6.0f} MiB, {seconds:6.1f} s, {document['route']}")
    print(f"  ratio of the peaks {peaks[1] / peaks[0]:.3f}")


def fashion(folder: Path) -> tuple[Path, Path]:
    """Write 70,000 images in 64 principal components, and in the hidden layer of a network trained on their labels."""
    sys.path.insert(0, str(ROOT))
    import torch
    from demo.console import Console
    from demo.dataset import FILES, obtain

    paths = folder / "pca.npy", folder / "network.npy"
    if all(path.exists() for path in paths):
        return paths
    arrays = obtain(folder / "fashion-mnist", Console())
    images = np.concatenate([arrays[name] for name in FILES if "images" in name])
    labels = np.concatenate([arrays[name] for name in FILES if "labels" in name])
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    torch.manual_seed(0)
    hidden = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64), torch.nn.ReLU())
    network = torch.nn.Sequential(hidden, torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x, y = torch.from_numpy(pixels[:30_000]), torch.from_numpy(labels[:30_000].astype(np.int64))
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(256):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        right = (network(torch.from_numpy(pixels[60_000:])).argmax(1).numpy() == labels[60_000:]).mean()
        features = hidden(torch.from_numpy(pixels)).numpy()
    print(f"  the network is right on {right:.3f} of the test images")
    pixels -= pixels.mean(axis=0)
    _, components = np.linalg.eigh(pixels.T @ pixels)
    np.save(paths[0], pixels @ components[:, -64:])
    np.save(paths[1], features)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    return paths


def nystrom(folder: Path) -> None:
    """Compare the top eigenvalues with the exact kernel's, which takes minutes."""
    paths = fashion(folder)
    exact: dict[str, Any] = {}
    for name, arguments in (
        ("exact", ("--approximation", "exact")),
        ("Nyström, 512 landmarks", ("--approximation", "nystrom", "--num-features", "512")),
        ("SORF, 3,000 frequencies", ("--approximation", "sorf", "--num-features", "3000")),
        ("RFF, 3,000 frequencies", ("--approximation", "rff", "--num-features", "3000")),
    ):
        document = compare(*paths, "--kernel", "gaussian", "--permutations", "0", "--koda", "0", *arguments)
        exact = exact or document
        ends = [document[side][0]["eigenvalue"] for side in ("positive", "negative")]
        errors = [
            end / exact[side][0]["eigenvalue"] - 1 for end, side in zip(ends, ("positive", "negative"), strict=True)
        ]
        certificate = ""
        if document["approximation"]:
            residuals = document["approximation"]["residuals"]
            worst = max((residuals[0], residuals[len(document["positive"])]), key=lambda r: r["interval"][1])
            certificate = f"  certified within {worst['estimate']:.2g} (up to {worst['interval'][1]:.2g})"
        print(
            f"  {name:24} {ends[0]:+.6f} ({errors[0]:+.2%})  {ends[1]:+.6f} ({errors[1]:+.2%})"
            f"  {document['seconds']:6.1f} s  {document['route']}{certificate}",
            flush=True,
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "nngs", "memory", "nystrom"))
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench", help="where the data is written and kept")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.what == "speed":
        speed(arguments.folder, arguments.rounds)
    elif arguments.what == "nngs":
        nngs(arguments.folder, arguments.rounds)
    elif arguments.what == "memory":
        memory(arguments.folder)
    else:
        nystrom(arguments.folder)


if __name__ == "__main__":
    main()
