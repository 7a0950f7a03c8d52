"""The parts of the studies that need no package of data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from demo.console import DemoError
from studies import command, crosscheck, packages, tails
from studies.bert import MiniLM
from studies.gloss_task import definitions
from studies.groups import ami, consists_of, explained
from studies.overlay import overlaid


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "OUT", tmp_path)
    return tmp_path


@pytest.mark.skipif(
    "SPECALIGN_BINARY" not in os.environ, reason="set SPECALIGN_BINARY to the command"
)
def test_against_numpy_and_scikit_learn(out: Path) -> None:
    a, b = crosscheck.embeddings(300)
    paths = (command.save("x", "a", a), command.save("x", "b", b))
    for args in crosscheck.SETTINGS:
        _, route, worst, missed = crosscheck.compare(paths, a, b, args)
        assert float(str(worst)) < 1e-5, (args, route)
        assert missed == 0, (args, route)
    for name, deviation in crosscheck.metrics(paths, a, b):
        assert float(str(deviation)) < 1e-6, name


@pytest.mark.skipif(
    "SPECALIGN_BINARY" not in os.environ, reason="set SPECALIGN_BINARY to the command"
)
def test_validation_against_scikit_learn(out: Path) -> None:
    a, b = crosscheck.embeddings(200)
    paths = (command.save("x", "a", a), command.save("x", "b", b))
    for args in crosscheck.VALIDATED:
        (row,) = crosscheck.validation(paths, a, b, args, runs=20)
        ami, nmi, spread, *exact, members = map(float, row[1:])
        # Largest of sixteen normal deviations; K-means draws differently in the two programs.
        assert max(ami, nmi) < 4.5, row
        assert spread < 0.08, row
        assert max(exact) < 1e-5, row
        assert members == 0, row


def test_a_failing_command_is_an_error(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECALIGN_BINARY", "false")
    with pytest.raises(DemoError, match="false metrics a --json ended with status 1"):
        command.specalign("metrics", "a")


def test_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "CACHE", tmp_path)
    with pytest.raises(DemoError, match="SHA-256 is"):
        packages._checked("file", b"x", "0" * 64)


def test_groups() -> None:
    attributes = {
        "colour": ["red", "blue"] * 50,
        "shape": [str(i % 9) for i in range(100)],
    }
    assert consists_of(attributes, list(range(0, 100, 2))) == "colour: red 50"
    assert consists_of(attributes, list(range(0, 90, 9))) == "shape: 0 10"
    scores = np.where(np.arange(100) % 2, 1.0, 0.0)
    assert explained(scores, attributes["colour"]) == pytest.approx(1)
    assert explained(np.arange(100.0), ["a", "b"] * 50) < 0.01
    rows = np.eye(4)[np.arange(80) // 20] + 1e-3 * np.random.default_rng(0).normal(
        size=(80, 4)
    )
    mean, deviation = ami(rows, (np.arange(80) // 20).tolist())
    assert mean > 0.9
    assert deviation < 0.2


def test_overlay() -> None:
    rng = np.random.default_rng(0)
    garments, glyphs = (
        np.full((50, 28, 28), 0.5, np.float32),
        np.ones((50, 28, 28), np.float32),
    )
    changed = overlaid(rng, garments, glyphs) != garments
    assert (changed.sum((1, 2)) == 14 * 14).all()
    assert len({tuple(c[::27, ::27].ravel()) for c in changed}) == 4


def test_tokens() -> None:
    model = MiniLM.__new__(MiniLM)
    pieces = [
        "[CLS]",
        "[SEP]",
        "[UNK]",
        "a",
        "chef",
        "frying",
        "pan",
        ",",
        "jug",
        "##gling",
    ]
    model.vocabulary = {p: i for i, p in enumerate(pieces)}
    assert [pieces[i] for i in model.tokens("A chef, juggling xyz")] == [
        "[CLS]",
        "a",
        "chef",
        ",",
        "jug",
        "##gling",
        "[UNK]",
        "[SEP]",
    ]


def test_definitions() -> None:
    text = '  1 licence\n00001740 05 n 01 cat 0 000 | a feline; kept at home; "the cat sat"\n00001741 20 n 01 oak 0 000 | a tree\n'
    assert definitions(text) == {5: ["a feline; kept at home"], 20: ["a tree"]}


def test_tails() -> None:
    """Of a student that sees one class of two and a reference that sees both, the reference's direction tells more."""
    which = np.arange(64) % 4
    student, reference = np.eye(4)[which // 2], np.eye(4)[which]
    classes = np.eye(4)[which] - 0.25
    norm, gradient, strongest, *_ = tails.tail(student, reference, classes)
    assert norm == gradient == 0
    assert strongest > 10
