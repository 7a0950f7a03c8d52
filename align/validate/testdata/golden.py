"""Writes golden.json: labellings with scikit-learn's AMI and NMI, for the tests of this folder's package."""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

rng = np.random.default_rng(5)
pairs = [
    ([0], [0]),
    ([0, 0, 0], [0, 1, 2]),
    ([0, 0, 0], [1, 1, 1]),
    ([0, 1, 2], [2, 0, 1]),
    ([0, 0, 1, 1], [0, 1, 0, 1]),
    ([0, 0, 1, 1], [5, 5, 3, 3]),
    ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]),
]
for n, a, b in [(10, 2, 3), (50, 5, 5), (300, 10, 7), (1000, 10, 10), (2000, 40, 3)]:
    x = rng.integers(0, a, n)
    pairs.append((x.tolist(), rng.integers(0, b, n).tolist()))  # by chance
    pairs.append((x.tolist(), np.where(rng.random(n) < 0.7, x, rng.integers(0, b, n)).tolist()))
    pairs.append((np.sort(x).tolist(), np.sort(rng.zipf(1.7, n) % b).tolist()))
golden = [
    {"a": a, "b": b, "ami": adjusted_mutual_info_score(a, b), "nmi": normalized_mutual_info_score(a, b)} for a, b in pairs
]
(Path(__file__).parent / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
