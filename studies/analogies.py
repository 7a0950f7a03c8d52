"""Does the overlap of neighbourhoods say how well analogies work? (section on word analogies of arXiv 2411.08687)

For every category of the analogy questions ("capital - country", "adjective - adverb", ...) the first words of its pairs
are one embedding, the second words the other one, row for row. Where the two sets of words lie alike, NNGS is high, and
b - a + c should find d. The table holds NNGS beside the accuracy of the questions, and their correlation.
"""

from __future__ import annotations

import numpy as np

from . import packages
from .command import save, specalign, table

VOCABULARY = 341_479  # all words, among which answers are looked for
SHARES = (0.05, 0.1, 0.2, 0.3)  # neighbours, as a share of the pairs of a category


def accuracy(
    unit: packages.Floats, questions: list[tuple[int, int, int, int]]
) -> float:
    """3CosAdd: the share of questions whose answer is the word nearest to b - a + c, beside a, b and c."""
    right = 0
    for at in range(0, len(questions), 256):
        q = np.array(questions[at : at + 256])
        scores = (unit[q[:, 1]] - unit[q[:, 0]] + unit[q[:, 2]]) @ unit.T
        np.put_along_axis(scores, q[:, :3], -np.inf, axis=1)
        right += int((scores.argmax(axis=1) == q[:, 3]).sum())
    return right / len(questions)


def main() -> None:
    """Print the table."""
    words, vectors = packages.glove()
    index = {word: i for i, word in enumerate(words[:VOCABULARY])}
    unit = vectors[:VOCABULARY] / np.linalg.norm(
        vectors[:VOCABULARY], axis=1, keepdims=True
    )
    rows, scores, accuracies = [], [], []
    for category, asked in packages.questions().items():
        known = [
            tuple(index[w] for w in q) for q in asked if all(w in index for w in q)
        ]
        pairs = sorted({q[:2] for q in known} | {q[2:] for q in known})
        if len(pairs) < 20:
            print(f"{category}: left out, only {len(pairs)} pairs of known words")
            continue
        sides = [
            save("analogies", f"{category}-{s}", vectors[[p[s] for p in pairs]])
            for s in (0, 1)
        ]
        ks = ",".join(str(round(share * len(pairs))) for share in SHARES)
        result = specalign(
            "metrics", *sides, "--nngs-k", ks, "--without", "spec_diff,cka"
        )
        scores.append(
            [n["value"] for n in result["nngs"]]
            + [n["normalised"] for n in result["nngs"]]
        )
        accuracies.append(accuracy(unit, known))
        rows.append(
            [
                category,
                len(pairs),
                len(known),
                accuracies[-1],
                *scores[-1][: len(SHARES)],
            ]
        )
    table(
        [
            "category",
            "pairs",
            "questions",
            "accuracy",
            *(f"NNGS, {s:.0%}" for s in SHARES),
        ],
        rows,
    )
    print()
    correlation = [
        float(np.corrcoef(column, accuracies)[0, 1]) for column in np.array(scores).T
    ]
    table(["Pearson correlation with the accuracy, k a share of the pairs", *(f"{s:.0%}" for s in SHARES)],
          [["NNGS", *correlation[: len(SHARES)]], ["NNGS, normalised", *correlation[len(SHARES) :]]])  # fmt: skip


if __name__ == "__main__":
    main()
