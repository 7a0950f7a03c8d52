"""The paper's 10,000 template sentences (section 6, B.3): which slots of the template do two text embeddings group?

"A person in [profession], [emotion], [gender] performing [action] with [object]", every combination once. GloVe's mean of
the words against all-MiniLM-L6-v2. The groups must be values of slots. AMI of 50 runs of K-means with the groups, on the
fifty strongest samples of each, in both embeddings: high in the one that sees the groups, low in the other. Writes
studies-out/sentences/: both embeddings, the sentences, and the page report.html.
"""

from __future__ import annotations

import itertools

import numpy as np

from . import packages
from .bert import MiniLM
from .command import OUT, lines, save, specalign, table
from .groups import ami, consists_of, explained

SLOTS = {
    "profession": [
        "chef",
        "doctor",
        "journalist",
        "scientist",
        "carpenter",
        "engineer",
        "pilot",
        "artist",
        "teacher",
        "firefighter",
    ],
    "emotion": [
        "excited",
        "calm",
        "angry",
        "serious",
        "curious",
        "confident",
        "focused",
        "determined",
        "happy",
        "tired",
    ],
    "gender": ["male", "female"],
    "action": [
        "designing",
        "adjusting",
        "sitting",
        "crouching",
        "climbing",
        "carrying",
        "holding",
        "standing",
        "inspecting",
        "juggling",
    ],
    "object": [
        "camera",
        "frying pan",
        "painting",
        "laptop",
        "photograph",
        "syringe",
        "golden throne",
        "desk",
        "guitar",
        "airplane",
    ],
}
TOP, SAMPLES = 10, 50


def sentences() -> tuple[list[str], dict[str, list[str]]]:
    """The sentences, and the value of each slot in each."""
    combinations = list(itertools.product(*SLOTS.values()))
    rng = np.random.default_rng(0)
    combinations = [
        combinations[i]
        for i in sorted(rng.choice(len(combinations), 10_000, replace=False))
    ]
    texts = [
        f"a person in {p}, {e}, {g} performing {a} with {o}"
        for p, e, g, a, o in combinations
    ]
    return texts, {name: [c[i] for c in combinations] for i, name in enumerate(SLOTS)}


def word_means(texts: list[str]) -> packages.Floats:
    """The mean of GloVe's vectors of a sentence's words. The package leaves out "a"."""
    words, vectors = packages.glove()
    index = {word: i for i, word in enumerate(words)}
    return np.stack(
        [
            vectors[[index[w] for w in t.replace(",", "").split() if w != "a"]].mean(0)
            for t in texts
        ]
    )


def main() -> None:
    """Print the tables."""
    texts, slots = sentences()
    # Every sentence shares most of its words, so that both embeddings are centred.
    glove, minilm = (x - x.mean(0) for x in (word_means(texts), MiniLM().encode(texts)))
    paths = save("sentences", "glove", glove), save("sentences", "minilm", minilm)
    names = lines("sentences", "texts", texts)
    kernel = ("--kernel", "gaussian", "--sigma", "match", "--approximation", "nystrom")
    asked = ("compare", *paths, *kernel, "--top", TOP)
    found = specalign(
        *asked,
        "--samples",
        len(texts),
        "--ids",
        names,
        "--koda",
        0,
    )
    page = OUT / "sentences" / "report.html"
    specalign(*asked, "--samples", SAMPLES, "--texts", names, "--report", page)
    print(
        f"{len(texts)} sentences, SPEC-diff {found['spec_diff']:.3f}, route {found['route']}, {found['seconds']:.1f} s, page {page}\n"
    )
    results = []
    for side, whose in (("positive", "GloVe"), ("negative", "MiniLM")):
        rows, members, labels = [], [], []
        for k, group in enumerate(found[side]):
            indices = [s["index"] for s in group["samples"]]
            scores = np.zeros(len(texts))
            scores[indices] = [s["score"] for s in group["samples"]]
            shares = {name: explained(scores, values) for name, values in slots.items()}
            best = max(shares, key=lambda name: shares[name])
            top = indices[:SAMPLES]
            rows.append(
                [
                    k + 1,
                    group["eigenvalue"],
                    f"{best} {shares[best]:.2f}",
                    sum(shares.values()),
                    consists_of({best: slots[best]}, top),
                ]
            )
            members += top
            labels += [k] * len(top)
        table(
            [
                f"groups of {whose}",
                "eigenvalue",
                "slot, share of the score's variance",
                "all slots",
                "its fifty strongest",
            ],
            rows,
        )
        print()
        results.append(
            [
                f"groups of {whose}",
                *(
                    "{:.3f} ± {:.3f}".format(*ami(x[members], labels))
                    for x in (glove, minilm)
                ),
            ]
        )
    table(["AMI of K-means with", "in GloVe", "in MiniLM"], results)
    metrics = specalign(
        "metrics", *paths, "--nngs-k", "10,50", "--without", "spec_diff"
    )
    near = ", ".join(
        f"{n['value']:.3f} ({n['normalised']:.3f} normalised, k = {n['k']})"
        for n in metrics["nngs"]
    )
    print(
        f"\nNNGS {near}; CKA {metrics['cka']['linear']:.3f} linear, {metrics['cka']['rbf']:.3f} Gaussian"
    )


if __name__ == "__main__":
    main()
