"""The second reference of configs/rivals.yaml: EfficientNet-lite0, which has seen ImageNet and not one label of these images.

Its pooled features, centred, in their first 256 principal components, for the parts that studies/weak_student.py makes.
Writes studies-out/weak_student/*-imagenet.npy and prints the effective rank of both references.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.decomposition import PCA

from demo import evaluation
from demo.reference import efficientnet_lite0

from . import packages
from .command import OUT, save
from .weak_student import PROBED, TEST, TRAINED, VALIDATED

COMPONENTS, BLOCK = 256, 500
PARTS = {
    "fit": slice(TRAINED, VALIDATED),
    "validation": slice(VALIDATED, TEST),
    "probe": slice(TRAINED, TRAINED + PROBED),
    "test": slice(TEST, None),
}


def rank(rows: npt.NDArray[np.float32]) -> float:
    """Return exp of the entropy of the eigenvalues of the cosine kernel of rows (n, d), as shares."""
    unit = evaluation.unit(rows).astype(np.float64)
    shares = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    shares = shares[shares > 1e-12] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def main() -> None:
    """Write the files."""
    images, _ = packages.fashion()
    model, preprocess = efficientnet_lite0()
    blocks = []
    for at in range(TRAINED, len(images), BLOCK):
        pixels = [preprocess(Image.fromarray(x)) for x in images[at : at + BLOCK]]
        blocks.append(evaluation.embed(model, torch.stack(pixels), batch=64))
    layer = np.concatenate(blocks)
    pca = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(
        layer[: VALIDATED - TRAINED]
    )
    kept = pca.transform(layer).astype(np.float32)
    for name, part in PARTS.items():
        stop = None if part.stop is None else part.stop - TRAINED
        save("weak_student", f"{name}-imagenet", kept[part.start - TRAINED : stop])
    first = np.load(OUT / "weak_student" / "fit-reference.npy")
    print(
        f"{OUT / 'weak_student'}: {COMPONENTS} components with {pca.explained_variance_ratio_.sum():.3f} of the variance; "
        f"effective rank {rank(kept[: VALIDATED - TRAINED]):.1f}, of the network that has seen labels {rank(first):.1f}"
    )


if __name__ == "__main__":
    main()
