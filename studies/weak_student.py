"""The rows of configs/weak_student.yaml: Fashion-MNIST, with a reference that has seen labels and a student that has not.

The reference is the hidden layer of a network trained on the labels of the images 0 to 30,000; the student's inputs are
64 principal components of the pixels, or the pixels. Both are centred; raw is the reference without that. Images 30,000 to 60,000 are trained on (train); of those the first
10,000, with their labels, teach the probe (probe); the 10,000 test images are scored (test). Settings are chosen with the
images 30,000 to 55,000 (fit) by what they are worth on 55,000 to 60,000 (validation). Captions are one of four coarse
words for each image, as columns of zeros and a one. Writes studies-out/weak_student/, then run

    bin/specalign train configs/weak_student_choice.yaml
    bin/specalign train configs/weak_student.yaml
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from demo.dataset import CLASSES

from . import packages
from .command import OUT, lines, save
from .networks import hidden_layer

COARSE = ("top", "trousers", "footwear", "bag")
WORDS = (0, 1, 0, 0, 0, 2, 0, 2, 3, 2)  # by class

COMPONENTS, TRAINED, PROBED, VALIDATED, TEST = 64, 30_000, 10_000, 55_000, 60_000


def main() -> None:
    """Write the files."""
    images, labels = packages.fashion()
    pixels = images.astype(np.float32) / 255
    layer, answers = hidden_layer(
        pixels[:TRAINED], labels[:TRAINED].astype(np.int64), pixels
    )
    flat = pixels.reshape(len(pixels), -1)
    pca = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(flat[:TEST])
    parts = {
        "train": slice(TRAINED, TEST),
        "fit": slice(TRAINED, VALIDATED),
        "validation": slice(VALIDATED, TEST),
        "probe": slice(TRAINED, TRAINED + PROBED),
        "test": slice(TEST, None),
    }
    center = layer[TRAINED:TEST].mean(0)
    for name, part in parts.items():
        save(
            "weak_student",
            f"{name}-inputs",
            pca.transform(flat[part]).astype(np.float32),
        )
        save("weak_student", f"{name}-pixels", flat[part].astype(np.float16))
        save("weak_student", f"{name}-reference", layer[part] - center)
        save("weak_student", f"{name}-raw", layer[part])
        lines("weak_student", f"{name}-labels", [CLASSES[y] for y in labels[part]])
        words = np.array(WORDS)[labels[part]]
        save(
            "weak_student",
            f"{name}-captions",
            np.eye(len(COARSE), dtype=np.float32)[words],
        )
    right = (answers == labels)[TEST:].mean()
    print(
        f"{OUT / 'weak_student'}: a reference of test accuracy {right:.3f}, {COMPONENTS} components"
    )


if __name__ == "__main__":
    main()
