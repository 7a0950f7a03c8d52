import csv

import numpy as np
import pytest
from PIL import Image

from demo import pairs
from demo.console import Console, DemoError
from demo.dataset import CLASSES


def test_every_class_has_one_of_the_four_words():
    assert set(pairs.WORD_OF_CLASS) == set(CLASSES)
    assert set(pairs.WORD_OF_CLASS.values()) == set(pairs.COARSE)
    words = [pairs.COARSE[i] for i in pairs.coarse_labels(np.arange(10))]
    assert words == ["top", "trousers", "top", "top", "top", "footwear", "top", "footwear", "bag", "footwear"]


@pytest.mark.parametrize("labels", [[-1], [10], [0, 255]])
def test_labels_outside_are_refused(labels):
    with pytest.raises(DemoError, match="outside 0 to 9"):
        pairs.coarse_labels(np.array(labels))


def test_captions():
    assert pairs.caption("top", "a photo of a {}") == "a photo of a top"
    assert pairs.caption("trousers", "a photo of a {}") == "a photo of trousers"
    assert pairs.caption("footwear", "a {} on a black background") == "footwear on a black background"


def test_no_caption_names_a_fine_class():
    fine_words = {word for name in CLASSES for word in name.lower().replace("/", " ").split()} - {"top", "bag"}
    for word in pairs.COARSE:
        for template in pairs.TEMPLATES:
            assert not fine_words & set(pairs.caption(word, template).split())


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(12, 28, 28), dtype=np.uint8), np.arange(12, dtype=np.uint8) % 10


def test_prepare_writes_what_openclip_reads(data, tmp_path):
    images, fine = data
    part = pairs.prepare("train", images, fine, tmp_path / "cache", tmp_path, Console())
    with part.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row, image, label in zip(rows, images, fine, strict=True):
        assert pairs.WORD_OF_CLASS[CLASSES[label]] in row["title"].split()
        read = np.array(Image.open(tmp_path / row["filepath"]))
        assert read.shape == (pairs.SIZE, pairs.SIZE)
        np.testing.assert_array_equal(read[2:-2, 2:-2], image)
        assert read.sum() == image.sum()  # the frame is black


def test_prepare_again_uses_what_is_there_and_other_counts_do_not(data, tmp_path):
    images, fine = data
    cache = tmp_path / "cache"
    first = pairs.prepare("train", images, fine, cache, tmp_path, Console())
    stamp = first.csv.stat().st_mtime_ns
    again = pairs.prepare("train", images, fine, cache, tmp_path, Console())
    assert again.csv.stat().st_mtime_ns == stamp
    assert again.fingerprint == first.fingerprint
    fewer = pairs.prepare("train", images[:5], fine[:5], cache, tmp_path, Console())
    assert fewer.fingerprint != first.fingerprint
    assert len(list((cache / "train").glob("*.png"))) == 5


def test_an_interrupted_preparation_leaves_nothing(data, tmp_path, monkeypatch):
    images, fine = data
    made = []

    def interrupted(self, path, **options):
        made.append(path)
        if len(made) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pairs.prepare("train", images, fine, tmp_path / "cache", tmp_path, Console())
    assert list((tmp_path / "cache").iterdir()) == []


def test_images_and_labels_must_agree(data, tmp_path):
    images, fine = data
    with pytest.raises(DemoError, match="12 images but 11 labels"):
        pairs.prepare("train", images, fine[:11], tmp_path, tmp_path, Console())
