"""The rows of configs/glosses.yaml: WordNet's definitions, whose captions say only what kind of thing is defined.

16,000 definitions of nouns, 1,000 of each of sixteen topics; a caption is one of four coarse words for each topic. The
student sees the mean of GloVe's words, the reference is all-MiniLM-L6-v2. 12,000 are trained on (fit), of which 6,000 teach
the probe (probe); 4,000 are scored (test). Writes studies-out/glosses/: both embeddings, centred by the trained rows' means,
captions as columns of zeros and a one, and the topics.
"""

from __future__ import annotations

import re

import numpy as np

from . import packages
from .bert import MiniLM
from .command import OUT, lines, save

# WordNet's numbers of topics, by coarse word.
TOPICS = {
    "living": {"animal": 5, "body": 8, "person": 18, "plant": 20},
    "thing": {"artifact": 6, "food": 13, "object": 17, "substance": 27},
    "doing": {"act": 4, "event": 11},
    "idea": {
        "attribute": 7,
        "cognition": 9,
        "communication": 10,
        "group": 14,
        "location": 15,
        "state": 26,
    },
}
EACH, TRAINED, PROBED = 1_000, 12_000, 6_000


def definitions(text: str) -> dict[int, list[str]]:
    """The definitions of a file of WordNet's by topic, without their examples."""
    found: dict[int, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith("  "):  # those are the licence
            fields, _, gloss = line.partition(" | ")
            found.setdefault(int(fields.split()[1]), []).append(
                gloss.split('; "')[0].strip()
            )
    return found


def main() -> None:
    """Write the files."""
    words, vectors = packages.glove()
    index = {word: i for i, word in enumerate(words)}
    found = definitions(packages.nouns())
    rng = np.random.default_rng(0)
    texts, means, topics, coarse = [], [], [], []
    for number, fine in enumerate(TOPICS.values()):
        for topic, file in fine.items():
            taken = 0
            for at in rng.permutation(len(found[file])):
                text = found[file][at]
                known = [
                    index[w] for w in re.findall(r"[a-z]+", text.lower()) if w in index
                ]
                if known and taken < EACH:
                    taken += 1
                    texts.append(text)
                    means.append(vectors[known].mean(0))
                    topics.append(topic)
                    coarse.append(number)
    rows = {"inputs": np.stack(means), "reference": MiniLM().encode(texts)}
    order = rng.permutation(len(texts))
    parts = {
        "fit": order[:TRAINED],
        "probe": order[:PROBED],
        "test": order[TRAINED:],
    }
    for name, x in rows.items():
        x -= x[parts["fit"]].mean(0)
        for part, which in parts.items():
            save("glosses", f"{part}-{name}", x[which])
    captions = np.eye(len(TOPICS), dtype=np.float32)[coarse]
    for part, which in parts.items():
        save("glosses", f"{part}-captions", captions[which])
        lines("glosses", f"{part}-topics", [topics[i] for i in which])
    print(f"{OUT / 'glosses'}: {len(texts)} definitions of {len(set(topics))} topics")


if __name__ == "__main__":
    main()
