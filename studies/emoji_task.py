"""The rows of configs/emoji.yaml: emoji of two vendors with their names, of which a small CLIP learns.

Of the subcategories with twelve emoji or more, without flags and without other colours of skin. Three quarters of the emoji
are trained on (fit) and teach the probe, a quarter is scored (test), in both vendors' drawings. The student sees 24 x 24
pixels in colour, on white; a caption is all-MiniLM-L6-v2's embedding of the name. The reference is EfficientNet-lite0.
Writes studies-out/emoji/, with the subcategories as labels.
"""

from __future__ import annotations

import io
import json

import numpy as np
import torch
from PIL import Image

from demo import evaluation
from demo.reference import efficientnet_lite0

from . import packages
from .bert import MiniLM
from .command import OUT, lines, save

VENDORS, FEWEST, CELL, EDGE, PIXELS = ("google", "twitter"), 12, 66, 64, 24


def pictures(sheet: bytes, cells: list[tuple[int, int]]) -> list[Image.Image]:
    """Cut cells out of a sheet, each with a border of a pixel, and put them on white."""
    whole = Image.open(io.BytesIO(sheet)).convert("RGBA")
    out = []
    for x, y in cells:
        left, top = x * CELL + 1, y * CELL + 1
        one = whole.crop((left, top, left + EDGE, top + EDGE))
        white = Image.new("RGBA", one.size, "white")
        out.append(Image.alpha_composite(white, one).convert("RGB"))
    return out


def main() -> None:
    """Write the files."""
    listed = [
        e
        for e in json.loads(packages.emoji(VENDORS[0], "emoji.json"))
        if e["category"] != "Flags" and all(e[f"has_img_{v}"] for v in VENDORS)
    ]
    kinds, counts = np.unique([e["subcategory"] for e in listed], return_counts=True)
    kept = set(kinds[counts >= FEWEST])
    listed = [e for e in listed if e["subcategory"] in kept]
    cells = [(e["sheet_x"], e["sheet_y"]) for e in listed]
    shown = [
        picture
        for vendor in VENDORS
        for picture in pictures(packages.emoji(vendor, "sheet"), cells)
    ]
    model, preprocess = efficientnet_lite0()
    small = [x.resize((PIXELS, PIXELS), Image.Resampling.BOX) for x in shown]
    rows = {
        "pixels": np.stack([np.asarray(x, np.float32).ravel() / 255 for x in small]),
        "reference": evaluation.embed(
            model, torch.stack([preprocess(x) for x in shown]), batch=64
        ),
        "captions": np.tile(
            MiniLM().encode([e["name"].lower() for e in listed]), (len(VENDORS), 1)
        ),
    }
    order = np.random.default_rng(0).permutation(len(listed))
    trained = 3 * len(listed) // 4
    parts = {
        part: np.concatenate([which + v * len(listed) for v in range(len(VENDORS))])
        for part, which in (("fit", order[:trained]), ("test", order[trained:]))
    }
    for name, x in rows.items():
        if name != "captions":
            x -= x[parts["fit"]].mean(0)
        for part, which in parts.items():
            save("emoji", f"{part}-{name}", x[which])
    for part, which in parts.items():
        kind = [listed[i % len(listed)]["subcategory"] for i in which]
        lines("emoji", f"{part}-kinds", kind)
    print(f"{OUT / 'emoji'}: {len(listed)} emoji of {len(kept)} subcategories")


if __name__ == "__main__":
    main()
