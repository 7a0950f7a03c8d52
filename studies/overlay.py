"""Typographic overlay: garments with a digit on top, an embedding that reads against one that looks (as in section 6).

10,000 test images of Fashion-MNIST, each with a random MNIST digit in its corner. One network was trained to name the
garment, the other one the digit, both on other images with digits on top. The groups that the reader sees and the looker
does not must be digits, the converse garments. Writes studies-out/overlay/: both embeddings, images, what is on them, and
the page report.html.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from demo.dataset import CLASSES

from . import packages
from .command import OUT, lines, save, specalign, table
from .groups import ami, consists_of
from .networks import hidden_layer

TOP, SAMPLES, TRAINED = 8, 50, 20_000


def overlaid(
    rng: np.random.Generator, garments: packages.Floats, glyphs: packages.Floats
) -> packages.Floats:
    """Put each glyph, halved to 14 x 14, into a random corner of its garment."""
    out = garments.copy()
    small = glyphs.reshape(len(glyphs), 14, 2, 14, 2).max((2, 4))
    for image, glyph, corner in zip(
        out, small, rng.integers(0, 4, len(out)), strict=True
    ):
        part = image[14 * (corner // 2) :, 14 * (corner % 2) :][:14, :14]
        part[:] = np.where(glyph > 0.2, glyph, part / 2)
    return out


def main() -> None:
    """Print the tables."""
    rng = np.random.default_rng(0)
    images, garments = packages.fashion()
    pixels, kinds = images.astype(np.float32) / 255, garments.astype(np.int64)
    glyphs, digits = packages.digits()
    order = rng.permutation(len(glyphs))
    half = len(glyphs) // 2  # of the glyphs: some to train with, others to test with

    def draw(
        of: npt.NDArray[np.int64], base: packages.Floats
    ) -> tuple[packages.Floats, npt.NDArray[np.int64]]:
        chosen = rng.choice(of, len(base))
        return overlaid(rng, base, glyphs[chosen]), digits[chosen]

    train, train_digits = draw(order[:half], pixels[:TRAINED])
    test, test_digits = draw(order[half:], pixels[60_000:])
    kinds_test = kinds[60_000:]
    reader, read = hidden_layer(train, train_digits, test, epochs=8)
    looker, seen = hidden_layer(train, kinds[:TRAINED], test, epochs=8)
    rows = {"reader": reader - reader.mean(0), "looker": looker - looker.mean(0)}
    paths = [save("overlay", name, x) for name, x in rows.items()]
    attributes = {
        "digit": [str(d) for d in test_digits],
        "garment": [CLASSES[k] for k in kinds_test],
    }
    # Texts, not labels: a group is one of digits or of garments, and the page names it by the words that tell it apart.
    texts = lines(
        "overlay",
        "texts",
        [f"{d} on {g}" for d, g in zip(*attributes.values(), strict=True)],
    )
    pictures = save("overlay", "images", (255 * test).astype(np.uint8))
    page = OUT / "overlay" / "report.html"
    found = specalign(
        "compare",
        *paths,
        "--top",
        TOP,
        "--samples",
        SAMPLES,
        "--images",
        pictures,
        "--texts",
        texts,
        "--report",
        page,
    )
    print(f"{len(test)} images; the reader names {(read == test_digits).mean():.3f} of the digits, the looker "
          f"{(seen == kinds_test).mean():.3f} of the garments; SPEC-diff {found['spec_diff']:.3f}, page {page}\n")  # fmt: skip
    scores = []
    for side, whose in (("positive", "the reader"), ("negative", "the looker")):
        listed, members, groups = [], [], []
        for k, group in enumerate(found[side]):
            indices = [s["index"] for s in group["samples"]]
            listed.append(
                [k + 1, group["eigenvalue"], consists_of(attributes, indices)]
            )
            members += indices
            groups += [k] * len(indices)
        table(
            [
                f"groups of {whose}",
                "eigenvalue",
                "its fifty strongest",
            ],
            listed,
        )
        print()
        scores.append(
            [
                f"groups of {whose}",
                *(
                    "{:.3f} ± {:.3f}".format(*ami(x[members], groups))
                    for x in rows.values()
                ),
            ]
        )
    table(["AMI of K-means with", *(f"in the {name}" for name in rows)], scores)


if __name__ == "__main__":
    main()
