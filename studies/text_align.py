"""The rows of configs/text.yaml: the paper's template sentences in GloVe, a weak embedding, and in all-MiniLM-L6-v2.

10,000 of the 20,000 sentences of sentences.py, drawn again: 6,000 are trained on (train), of which 3,000 teach the probes
(probe), 4,000 are scored (test). Writes studies-out/text_align/: both embeddings, centred by the trained sentences' means,
and the values of two slots: the gender, which MiniLM groups by and GloVe does not, and the object, which GloVe groups by.
"""

from __future__ import annotations

import numpy as np

from .bert import MiniLM
from .command import OUT, lines, save
from .sentences import sentences, word_means

TRAINED, PROBED = 6_000, 3_000


def main() -> None:
    """Write the files."""
    texts, slots = sentences()
    order = np.random.default_rng(1).permutation(len(texts))
    rows = {
        "inputs": word_means(texts),
        "reference": MiniLM().encode(texts),
    }
    parts = {
        "train": order[:TRAINED],
        "probe": order[:PROBED],
        "test": order[TRAINED:],
    }
    for name, x in rows.items():
        x -= x[order[:TRAINED]].mean(0)
        for part, which in parts.items():
            save("text_align", f"{part}-{name}", x[which])
    for slot in ("gender", "object"):
        for part, which in parts.items():
            lines("text_align", f"{part}-{slot}", [slots[slot][i] for i in which])
    print(f"{OUT / 'text_align'}: {len(texts)} sentences")


if __name__ == "__main__":
    main()
