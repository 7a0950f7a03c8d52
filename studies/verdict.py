"""How often the page calls a group clear, where the truth is known: `make study STUDY=verdict`.

3,000 samples in eight classes. Two embeddings place the classes alike, up to a rotation, each with noise of its own. In the
planted case B mixes three of the classes up, which takes two directions on each side.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

BINARY = Path(__file__).parents[1] / "bin" / "specalign"
SAMPLES, DIM, TOP, SEEDS = 3000, 16, 5, 3


def clear_groups(folder: Path, seed: int, planted: bool, noise: float) -> list[int]:
    """The number of clear groups of A and of B on the page of one pair of embeddings."""
    r = np.random.default_rng(seed)
    classes, centres = r.integers(0, 8, SAMPLES), r.normal(size=(8, DIM))
    rotation = np.linalg.qr(r.normal(size=(DIM, DIM)))[0]
    seen = (
        np.where(classes < 3, r.integers(0, 3, SAMPLES), classes)
        if planted
        else classes
    )
    a = centres[classes] + noise * r.normal(size=(SAMPLES, DIM))
    b = (centres[seen] + noise * r.normal(size=(SAMPLES, DIM))) @ rotation
    names = [str(folder / name) for name in ("a.npy", "b.npy", "page.html")]
    np.save(names[0], a.astype("f4"))
    np.save(names[1], b.astype("f4"))
    subprocess.run(
        [
            BINARY,
            "compare",
            *names[:2],
            "--report",
            names[2],
            "--top",
            str(TOP),
            "--samples",
            "48",
        ],
        check=True,
        capture_output=True,
    )
    rows = re.findall(
        r'<a class="row( unclear)?" href="#group-([AB])', Path(names[2]).read_text()
    )
    return [sum(not pale and side == own for pale, side in rows) for own in "AB"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for noise in (0.3, 1.0):
            for planted in (False, True):
                found = [
                    clear_groups(Path(folder), seed, planted, noise)
                    for seed in range(SEEDS)
                ]
                print(
                    f"noise {noise}, {'planted' if planted else 'alike':8} clear groups (A, B): {found}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
