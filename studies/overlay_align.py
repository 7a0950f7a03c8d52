"""The rows of configs/anchor.yaml: garments with a digit on top, for a student that reads and a reference that looks.

The networks of overlay.py are trained on images 0 to 20,000. Images 20,000 to 40,000 are trained on (train), of which the
first 10,000 teach the probes (probe); the 10,000 test images, with digits of their own, are scored (test). Writes
studies-out/overlay_align/: the reader's hidden layer (inputs) and the looker's (reference), centred, with the garments and
the digits.
"""

from __future__ import annotations

import numpy as np

from demo.dataset import CLASSES

from . import packages
from .command import OUT, lines, save
from .networks import hidden_layer
from .overlay import overlaid

TRAINED, ALIGNED, PROBED, TEST = 20_000, 40_000, 10_000, 60_000


def main() -> None:
    """Write the files."""
    rng = np.random.default_rng(0)
    images, garments = packages.fashion()
    pixels, kinds = images.astype(np.float32) / 255, garments.astype(np.int64)
    glyphs, digits = packages.digits()
    order = rng.permutation(len(glyphs))
    half = len(glyphs) // 2
    chosen = rng.choice(order[:half], len(pixels))
    chosen[TEST:] = rng.choice(order[half:], len(pixels) - TEST)
    shown, named = overlaid(rng, pixels, glyphs[chosen]), digits[chosen]
    first = slice(0, TRAINED)
    parts = {
        "train": slice(TRAINED, ALIGNED),
        "probe": slice(TRAINED, TRAINED + PROBED),
        "test": slice(TEST, None),
    }
    wanted = {"inputs": named, "reference": kinds}
    for name, labels in wanted.items():
        layer, answers = hidden_layer(shown[first], labels[first], shown, epochs=8)
        layer -= layer[parts["train"]].mean(0)
        for part, which in parts.items():
            save("overlay_align", f"{part}-{name}", layer[which])
        right = (answers == labels)[TEST:].mean()
        print(f"the network of the {name}: {right:.3f} right")
    for part, which in parts.items():
        lines("overlay_align", f"{part}-garment", [CLASSES[y] for y in kinds[which]])
        lines("overlay_align", f"{part}-digit", named[which].tolist())
    print(OUT / "overlay_align")


if __name__ == "__main__":
    main()
