"""Image-caption pairs as OpenCLIP's CSV loader reads them, with captions that keep only the coarse word."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from .console import Console, DemoError
from .dataset import CLASSES, FILES
from .files import fingerprint, read_json, write_json

# The word that is left of each of the ten classes.
COARSE = ("top", "trousers", "footwear", "bag")
WORD_OF_CLASS = {
    "T-shirt/top": "top",
    "Trouser": "trousers",
    "Pullover": "top",
    "Dress": "top",
    "Coat": "top",
    "Sandal": "footwear",
    "Shirt": "top",
    "Sneaker": "footwear",
    "Bag": "bag",
    "Ankle boot": "footwear",
}
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "this is a {}", "a {} on a black background")
ARTICLE_FREE = frozenset({"trousers", "footwear"})

SIZE = 32  # pixels a side: the 28 of the data set in a black frame of two, so that nothing is blurred
_FORMAT = 1  # of what this module writes; another number makes every cache be written anew


def coarse_labels(fine: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Map fine classes (0 to 9) to indices into COARSE. Same shape."""
    if fine.size and not 0 <= int(fine.min()) <= int(fine.max()) < len(CLASSES):
        raise DemoError(f"a label outside 0 to {len(CLASSES) - 1}: {int(fine.min())} to {int(fine.max())}")
    table = np.array([COARSE.index(WORD_OF_CLASS[name]) for name in CLASSES])
    return table[fine]


def caption(word: str, template: str) -> str:
    """Fill a coarse word into a template: "a photo of a top", "a photo of trousers"."""
    return template.format(word) if word not in ARTICLE_FREE else template.replace("a {}", "{}").format(word)


@dataclass(frozen=True)
class Part:
    """One part of the pairs: the CSV that OpenCLIP reads, and the labels that only the evaluation reads.

    Attributes:
        csv: columns filepath (relative to the repository's root) and title.
        fine: (n,) classes 0 to 9 in the CSV's order.
        fingerprint: changes whenever an image, caption or the order does.
    """

    csv: Path
    fine: npt.NDArray[np.uint8]
    fingerprint: str

    @property
    def coarse(self) -> npt.NDArray[np.int64]:
        """(n,) indices into COARSE."""
        return coarse_labels(self.fine)


def prepare(
    name: str,
    images: npt.NDArray[np.uint8],
    fine: npt.NDArray[np.uint8],
    cache: Path,
    root: Path,
    console: Console,
) -> Part:
    """Write images (n, 28, 28) as PNG files and their captions as a CSV, or find both already written.

    The templates go round in a fixed shuffled order, so that the captions carry no more than the coarse word.
    """
    if len(images) != len(fine):
        raise DemoError(f"{name}: {len(images)} images but {len(fine)} labels")
    folder = cache / name
    made = fingerprint(
        {
            "format": _FORMAT, "name": name, "count": len(images), "data": FILES, "size": SIZE, "words": WORD_OF_CLASS,
            "templates": TEMPLATES, "folder": os.path.relpath(folder, root),
        }
    )  # fmt: skip
    part = Part(folder / "pairs.csv", fine, made)
    if read_json(folder / "made.json") == {"fingerprint": made}:
        console.line(f"{name}: {len(images):,} pairs, from the cache")
        return part
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=cache, prefix=f".{name}-"))
    try:
        _write(draft, folder, images, fine, root, name, console)
        write_json(draft / "made.json", {"fingerprint": made})
        if folder.exists():
            shutil.rmtree(folder)
        draft.chmod(0o755)
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return part


def _write(
    draft: Path,
    folder: Path,
    images: npt.NDArray[np.uint8],
    fine: npt.NDArray[np.uint8],
    root: Path,
    name: str,
    console: Console,
) -> None:
    frame = (SIZE - images.shape[1]) // 2
    framed = np.pad(images, ((0, 0), (frame, frame), (frame, frame)))
    templates = np.random.default_rng(0).integers(len(TEMPLATES), size=len(images))
    words = coarse_labels(fine)
    final = Path(os.path.relpath(folder, root))
    with (draft / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("filepath", "title"))
        for i, image in enumerate(framed):
            Image.fromarray(image).save(draft / f"{i:05d}.png", compress_level=1)
            rows.writerow((final / f"{i:05d}.png", caption(COARSE[words[i]], TEMPLATES[templates[i]])))
            if i % 500 == 499 or i + 1 == len(framed):
                console.progress(f"{name}: {i + 1:,} of {len(framed):,} pairs written", final=i + 1 == len(framed))
