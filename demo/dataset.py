"""Fashion-MNIST: found or fetched without root, checked, and read.

The images are those of Xiao, Rasul and Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms* (arXiv 1708.07747), MIT licence. Debian ships them as the package ``dataset-fashion-mnist``.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .console import Console, DemoError
from .files import written

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the files as unpacked: the archives' own differ with the compressor that each source used.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def parse_idx(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Read an array of bytes in the IDX format: two zero bytes, type 0x08, the rank, big-endian sizes, the values.

    Returns a read-only array over `data`. Raises DemoError, naming the file, for anything else.
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DemoError(f"{name}: not an IDX file of unsigned bytes (it starts with {data[:4].hex(' ')!r})")
    rank = data[3]
    start = 4 + 4 * rank
    if rank == 0 or len(data) < start:
        raise DemoError(f"{name}: an IDX file of rank {rank} with a header of {len(data)} bytes")
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    size = 1
    for length in shape:
        size *= length
    if len(data) - start != size:
        raise DemoError(f"{name}: sizes {shape} need {size} bytes of values, the file has {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def unpack(archive: Path, name: str) -> bytes:
    """Read one of the four files, gzipped or not, and hold it against its pinned SHA-256."""
    try:
        data = archive.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DemoError(f"{archive}: cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != FILES[name]:
        raise DemoError(f"{archive}: SHA-256 of the unpacked file is {found}, but {FILES[name]} is pinned")
    return data


def _run(command: list[str], folder: Path) -> str | None:
    """Run a command quietly. Returns None if it worked, else what it said last."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]}"
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=600, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than ten minutes"
    if done.returncode == 0:
        return None
    lines = done.stdout.strip().splitlines()
    errors = [line for line in lines if line.startswith("E:")] or lines
    return errors[-1] if errors else f"{command[0]} ended with status {done.returncode}"


def _from_installed(_work: Path, _console: Console) -> Path:
    if not INSTALLED.is_dir():
        raise DemoError(f"the Debian package {PACKAGE} is not installed")
    return INSTALLED


def _private_apt(folder: Path) -> list[str]:
    """Options that give apt-get lists and a cache of its own, where the system's are root's or empty."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return [
        "-o", f"Dir::State={folder / 'state'}",
        "-o", "Dir::State::status=/var/lib/dpkg/status",
        "-o", f"Dir::Cache={folder / 'cache'}",
    ]  # fmt: skip


def _from_package(work: Path, console: Console) -> Path:
    """Download the Debian package with apt-get, which checks its signature chain, and unpack it. Needs no root."""
    download = ["apt-get", "download", "-q", PACKAGE]
    reason = _run(download, work)
    if reason is not None and shutil.which("apt-get"):
        console.line(f"apt-get download: {reason}; trying again with package lists of its own")
        options = _private_apt(work / "apt")
        # A source that does not answer makes `update` fail though Debian's own may be there: the download decides.
        _run(["apt-get", *options, "update", "-q"], work)
        reason = _run(["apt-get", *options, *download[1:]], work)
    if reason is not None:
        raise DemoError(f"apt-get download {PACKAGE}: {reason}")
    packages = sorted(work.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise DemoError(f"apt-get download {PACKAGE} left no file")
    reason = _run(["dpkg-deb", "-x", str(packages[-1]), str(work / "unpacked")], work)
    if reason is not None:
        raise DemoError(f"dpkg-deb -x {packages[-1].name}: {reason}")
    return work / "unpacked" / INSTALLED.relative_to("/")


def _from_torchvision(work: Path, _console: Console) -> Path:
    from torchvision.datasets import FashionMNIST  # torch is slow to load and mostly not needed here

    try:
        for train in (True, False):
            FashionMNIST(str(work), train=train, download=True)
    except Exception as error:  # whatever its network, checksum and file code raise
        raise DemoError(f"torchvision's download: {error}") from error
    return work / "FashionMNIST" / "raw"


SOURCES: tuple[tuple[str, Callable[[Path, Console], Path]], ...] = (
    ("the installed Debian package", _from_installed),
    ("the Debian package, downloaded", _from_package),
    ("torchvision's download", _from_torchvision),
)


def obtain(folder: Path, console: Console) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the four arrays by file name, from `folder` if they are there, else from the first source that has them.

    Every file is held against its pinned SHA-256, the cached ones too. Raises DemoError with every source's reason.
    """
    try:
        arrays = {name: parse_idx(unpack(folder / name, name), name) for name in FILES}
    except DemoError:
        pass
    else:
        console.line(f"Fashion-MNIST: from the cache, {folder}")
        return arrays
    reasons = []
    folder.mkdir(parents=True, exist_ok=True)
    for title, source in SOURCES:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fashion-mnist-") as work:
            try:
                found = source(Path(work), console)
                data = {name: unpack(_either(found, name), name) for name in FILES}
            except DemoError as error:
                reasons.append(str(error))
                console.line(f"not from {title}: {error}")
                continue
        for name, content in data.items():
            with written(folder / name) as file:
                file.write(content)
        console.line(f"Fashion-MNIST: from {title}; checksums agree; kept in {folder}")
        return {name: parse_idx(content, name) for name, content in data.items()}
    raise DemoError(
        f"Fashion-MNIST could not be had: {'; '.join(reasons)}. "
        f"Install the Debian package {PACKAGE}, or put the four *-ubyte.gz files into {INSTALLED}"
    )


def _either(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.exists() else folder / name
