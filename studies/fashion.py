"""All 70,000 images of Fashion-MNIST: principal components of the pixels against a trained network's features.

The network has seen the labels of 30,000 images; what it groups and pixels do not should be classes, and the converse
pixels: brightness, outline. Writes studies-out/fashion/: both embeddings, labels, images, and the page report.html.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from demo.dataset import CLASSES

from . import packages
from .command import OUT, lines, save, specalign, table
from .groups import ami, consists_of
from .networks import hidden_layer

TOP, SAMPLES, COMPONENTS, TRAINED = 10, 50, 64, 30_000


def main() -> None:
    """Print the tables."""
    images, labels = packages.fashion()
    pixels = images.astype(np.float32) / 255
    pca = PCA(COMPONENTS, svd_solver="covariance_eigh").fit_transform(
        pixels.reshape(len(pixels), -1)
    )
    layer, answers = hidden_layer(
        pixels[:TRAINED], labels[:TRAINED].astype(np.int64), pixels
    )
    right = (answers == labels)[TRAINED:].mean()
    layer -= layer[:TRAINED].mean(0)
    rows = {"network": layer, "PCA": pca.astype(np.float32)}
    paths = [save("fashion", name.lower(), x) for name, x in rows.items()]
    names = [CLASSES[y] for y in labels]
    label_file = lines("fashion", "labels", names)
    image_file, page = (
        save("fashion", "images", images),
        OUT / "fashion" / "report.html",
    )
    found = specalign(
        "compare",
        *paths,
        "--top",
        TOP,
        "--samples",
        SAMPLES,
        "--labels",
        label_file,
        "--images",
        image_file,
        "--report",
        page,
    )
    print(
        f"{len(images)} images, PCA to {COMPONENTS} dimensions, a network of test accuracy {right:.3f}"
    )
    print(
        f"SPEC-diff {found['spec_diff']:.3f} ({found['permutation_null']['chance']:.3f} for shuffled images), route {found['route']}, {found['seconds']:.1f} s, page {page}\n"
    )
    scores = []
    for side, whose in (("positive", "the network"), ("negative", "PCA")):
        listed, members, groups = [], [], []
        for k, group in enumerate(found[side]):
            indices = [s["index"] for s in group["samples"]]
            listed.append(
                [k + 1, group["eigenvalue"], consists_of({"class": names}, indices)]
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
    table(["AMI of K-means with", *(f"in {name}" for name in rows)], scores)


if __name__ == "__main__":
    main()
