import csv

import numpy as np
import pytest
import torch
from PIL import Image

from demo import evaluation


def clusters(seed, n=60, d=8, classes=4, spread=0.05):
    rng = np.random.default_rng(seed)
    centres = np.eye(classes, d)
    labels = rng.integers(classes, size=n)
    return (centres[labels] + spread * rng.normal(size=(n, d))).astype(np.float32), labels


def test_knn_by_hand():
    gallery = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0]], np.float32)
    known = np.array([0, 0, 1, 1, 2])
    queries = np.array([[5, 0.2], [0.1, 3], [-2, 0.1], [1, 0]], np.float32)
    assert evaluation.knn_accuracy(gallery, known, queries, np.array([0, 1, 2, 2]), k=1) == 0.75


def test_knn_is_the_slow_loop():
    gallery, known = clusters(1, spread=0.8)
    queries, truth = clusters(2, spread=0.8)
    right = 0
    for query, label in zip(evaluation.unit(queries), truth, strict=True):
        similarity = evaluation.unit(gallery) @ query
        nearest = sorted(range(len(gallery)), key=lambda i: -similarity[i])[:7]
        votes = [(sum(known[i] == c for i in nearest), sum(similarity[i] for i in nearest if known[i] == c), c)
                 for c in range(4)]  # fmt: skip
        right += max(votes)[2] == label
    assert evaluation.knn_accuracy(gallery, known, queries, truth, k=7) == right / len(queries)


def test_knn_ties_go_to_the_nearer():
    gallery = np.array([[1, 0], [1, 0.3]], np.float32)
    query = np.array([[1, 0.29]], np.float32)
    assert evaluation.knn_accuracy(gallery, np.array([0, 1]), query, np.array([1]), k=2) == 1
    assert evaluation.knn_accuracy(gallery, np.array([1, 0]), query, np.array([0]), k=2) == 1


def test_knn_more_neighbours_than_rows():
    x, y = clusters(3, n=5)
    assert 0 <= evaluation.knn_accuracy(x, y, x, y, k=100) <= 1


def test_probe_finds_what_is_linear():
    x, y = clusters(4, n=200)
    z, truth = clusters(5, n=200)
    assert evaluation.probe_accuracy(x, y, z, truth) == 1.0
    assert evaluation.probe_accuracy(100 * x + 7, y, 100 * z + 7, truth) == 1.0  # neither scale nor shift matter


def test_probe_is_deterministic_and_survives_constant_columns():
    x, y = clusters(6, spread=1)
    x[:, 3] = 2.5
    x[:, 4] = 0
    assert evaluation.probe_accuracy(x, y, x, y) == evaluation.probe_accuracy(x, y, x, y)


def test_probe_on_noise_is_chance():
    rng = np.random.default_rng(7)
    x, z = rng.normal(size=(2, 2000, 5)).astype(np.float32)
    y, truth = rng.integers(4, size=(2, 2000))
    assert evaluation.probe_accuracy(x, y, z, truth) == pytest.approx(0.25, abs=0.05)


def test_zero_shot():
    prompts = np.eye(3, dtype=np.float32) * [[1], [20], [300]]  # lengths do not matter
    images = np.array([[2, 1, 0], [0, 1, 0.5], [0, 1, 2]], np.float32)
    assert evaluation.zero_shot_accuracy(images, prompts, np.array([0, 1, 2])) == 1.0
    assert evaluation.zero_shot_accuracy(images, prompts, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_unit_keeps_zero_rows():
    np.testing.assert_allclose(evaluation.unit(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]])


def test_embedding_keeps_the_order(tmp_path):
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("filepath", "title"))
        for value in (9, 3, 200, 41, 5):
            Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / f"{value}.png")
            rows.writerow((f"{value}.png", "x"))
    pixels = evaluation.load_pixels(
        lambda image: torch.tensor(np.array(image), dtype=torch.float32)[None], tmp_path / "pairs.csv", tmp_path
    )
    features = evaluation.embed(lambda batch: batch.mean((2, 3)), pixels, batch=2)
    assert features[:, 0].tolist() == [9, 3, 200, 41, 5]
