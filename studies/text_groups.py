"""Behind configs/text.yaml: does K-means find MiniLM's groups in the students, and did it in GloVe?

The groups are those of `specalign compare` on the 4,000 sentences that no student was trained on: ten that MiniLM sees and
the mean of GloVe's words does not, of fifty sentences each. AMI of 50 runs of K-means with them, in both embeddings and in
the features of each run, which runs/text (bin/specalign train configs/text.yaml) keeps.
"""

from __future__ import annotations

import json

import numpy as np

from demo.console import DemoError

from .command import OUT, specalign, table
from .groups import ami
from .packages import ROOT

TOP, SAMPLES = 10, 50


def main() -> None:
    """Print the table."""
    runs = ROOT / "runs" / "text"
    if not (runs / "results.csv").exists():
        raise DemoError(
            f"{runs} is not complete: bin/specalign train {ROOT}/configs/text.yaml"
        )
    glove, minilm = (
        OUT / "text_align" / f"test-{x}.npy" for x in ("inputs", "reference")
    )
    found = specalign(
        "compare", glove, minilm, "--top", TOP, "--samples", SAMPLES, "--koda", 0
    )
    groups = [[s["index"] for s in group["samples"]] for group in found["negative"]]
    members = np.concatenate(groups)
    labels = [k for k, group in enumerate(groups) for _ in group]

    def score(features: list[np.ndarray]) -> list[str]:
        scores = [ami(x[members], labels) for x in features]
        mean = np.mean([m for m, _ in scores])
        return [f"{mean:.3f}", f"{np.mean([s for _, s in scores]):.3f}"]

    rows = [["GloVe, before", *score([np.load(glove)])]]
    plan = json.loads((runs / "experiment.json").read_text())
    for cell in plan["experiments"]:
        seeds = cell["settings"]["seeds"]
        kept = [
            np.load(runs / cell["folder"] / f"seed-{s}" / "features.npy") for s in seeds
        ]
        rows.append([cell["name"], *score(kept)])
    rows.append(["MiniLM", *score([np.load(minilm)])])
    table(
        ["AMI of K-means with ten groups", "mean", "deviation over K-means' runs"], rows
    )


if __name__ == "__main__":
    main()
