import json

import numpy as np
import pytest
from PIL import Image

from demo import figure, report
from demo.dataset import CLASSES
from demo.evaluation import Scores
from demo.files import fingerprint, read_json, write_json, written


def outcome(name, seed, knn, spec_diff=0.5):
    return report.Outcome(name, name.upper(), seed, Scores(knn, 0.8, 0.97, spec_diff), [0.5, -0.2, 0.1], 0.25, 40.0)


RUNS = [
    outcome("none", 0, 0.75),
    outcome("ours", 0, 0.80, 0.1),
    outcome("none", 1, 0.77),
    outcome("ours", 1, 0.84, 0.2),
]
REFERENCE = Scores(0.82, 0.83, None, 0.0)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_of_one_seed():
    lines = report.table([RUNS[0], RUNS[1]], REFERENCE, "reference").splitlines()
    assert cells(lines[2]) == ["NONE", "0.750", "0.800", "0.970", "0.500", "0.250"]
    assert cells(lines[3]) == ["OURS", "0.800 (+5.0)", "0.800 (+0.0)", "0.970 (+0.0)", "0.100", "0.250"]
    assert cells(lines[4]) == ["reference", "0.820", "0.830", "-", "0.000", "-"]
    assert len({len(line) for line in lines}) == 1


def test_table_of_seeds_compares_within_each():
    lines = report.table(RUNS, REFERENCE, "reference").splitlines()
    assert cells(lines[2])[1] == "0.760 ± 0.014"
    assert cells(lines[3])[1] == "0.820 ± 0.028 (+6.0)"
    assert cells(lines[3])[4] == "0.150 ± 0.071"


def test_figure_is_small_and_whole(tmp_path):
    rng = np.random.default_rng(0)
    fine = np.arange(300) % 10
    features = {name: rng.normal(size=(300, 8)).astype(np.float32) for name in ("none", "ours")}
    path = tmp_path / "figure.png"
    figure.draw(path, RUNS, features, rng.normal(size=(300, 5)).astype(np.float32), REFERENCE, fine, "reference")
    Image.open(path).verify()
    assert path.stat().st_size < 200_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["figure.png"]


def test_kernel_matrices_are_sorted_by_class():
    fine = np.random.default_rng(0).permutation(np.arange(200) % 10)
    chosen = figure.sorted_sample(fine, per_class=7)
    assert len(set(chosen.tolist())) == 70
    names = [CLASSES[label] for label in fine[chosen]]
    assert names[:14] == ["T-shirt/top"] * 7 + ["Pullover"] * 7
    assert names[-7:] == ["Bag"] * 7


def interrupted(path):
    with written(path, "w") as file:
        file.write("half")
        raise KeyboardInterrupt


def test_an_interrupted_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_reading_what_is_no_json(tmp_path):
    assert read_json(tmp_path / "absent") is None
    (tmp_path / "bad").write_text("{")
    assert read_json(tmp_path / "bad") is None


def test_fingerprints_ignore_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
