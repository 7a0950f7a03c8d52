"""The picture: kernel matrices, spectrum, and scores."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from .dataset import CLASSES
from .evaluation import Floats, Scores, unit
from .files import written
from .pairs import COARSE, WORD_OF_CLASS
from .report import Outcome, by_name

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

PER_CLASS = 25  # images of each class in a kernel matrix
_COLOURS = ("#7a7a7a", "#e08214", "#1b7837", "#762a83", "#2166ac", "#b2182b")

# Fine classes side by side that share a coarse word.
ORDER = sorted(range(len(CLASSES)), key=lambda fine: (COARSE.index(WORD_OF_CLASS[CLASSES[fine]]), fine))


def sorted_sample(fine: npt.NDArray[np.integer], per_class: int = PER_CLASS) -> npt.NDArray[np.intp]:
    """Return indices of the first `per_class` images of every class, in ORDER."""
    return np.concatenate([np.flatnonzero(fine == label)[:per_class] for label in ORDER])


def _kernel(axes: Axes, features: Floats, title: str, counts: Sequence[int]) -> None:
    rows = unit(features)
    axes.imshow(rows @ rows.T, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    edges = np.cumsum(counts)
    axes.set_xticks([])
    axes.set_yticks(edges - np.array(counts) / 2 - 0.5, [CLASSES[label] for label in ORDER], fontsize=6)
    axes.tick_params(length=0)
    for i, edge in enumerate(edges[:-1]):
        here, after = (WORD_OF_CLASS[CLASSES[ORDER[j]]] for j in (i, i + 1))
        if here != after:  # the only borders that a caption knows of
            axes.axhline(edge - 0.5, color="white", linewidth=0.7)
            axes.axvline(edge - 0.5, color="white", linewidth=0.7)


def _spectrum(axes: Axes, groups: dict[str, list[Outcome]]) -> None:
    for (_, group), colour in zip(groups.items(), _COLOURS, strict=False):
        magnitudes = np.abs(np.array(group[0].eigenvalues))
        axes.plot(np.arange(1, len(magnitudes) + 1), magnitudes, ".-", color=colour, markersize=4, linewidth=1,
                  label=group[0].title)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("rank", fontsize=8)
    axes.set_title("|eigenvalues| of student minus reference kernel", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)


def _bars(axes: Axes, groups: dict[str, list[Outcome]], key: str, title: str, reference: float | None) -> None:
    low = 1.0
    for i, (group, colour) in enumerate(zip(groups.values(), _COLOURS, strict=False)):
        values = [getattr(outcome.scores, key) for outcome in group]
        axes.bar(i, statistics.fmean(values), color=colour, width=0.7)
        axes.plot([i] * len(values), values, "o", color="black", markersize=3, markerfacecolor="white")
        low = min(low, *values)
    if reference is not None:
        axes.axhline(reference, color="black", linewidth=0.8, linestyle=":")
        axes.text(-0.45, reference, "reference", fontsize=6, va="bottom")
        low = min(low, reference)
    if key == "spec_diff":
        axes.set_ylim(0, None)
    else:
        axes.set_ylim(np.floor(low * 20 - 0.5) / 20, min(1.0, axes.get_ylim()[1]))  # not from 0, and it says so
        axes.set_xlabel("axis starts above 0", fontsize=6)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(labelsize=7)


def draw(
    path: Path,
    outcomes: Sequence[Outcome],
    features: dict[str, Floats],
    reference: Floats,
    reference_scores: Scores,
    fine: npt.NDArray[np.integer],
    reference_title: str,
) -> None:
    """Write the picture as a PNG of at most 256 colours.

    Args:
        path: where to.
        outcomes: all runs of all seeds; the picture shows their names' first three as kernel matrices.
        features: (n, d) held-out features of each name's first seed.
        reference: (n, d) held-out features of the reference, centred.
        reference_scores: the reference's own scores.
        fine: (n,) the classes of the held-out images.
        reference_title: how to call the reference.
    """
    groups = by_name(outcomes)
    chosen = sorted_sample(fine)
    counts = [int((fine[chosen] == label).sum()) for label in ORDER]
    figure = plt.figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.05, 1])
    panels = [(features[name][chosen], groups[name][0].title) for name in list(groups)[:3]]
    panels.append((reference[chosen], reference_title))
    for axes, (rows, title) in zip(above.subplots(1, len(panels)), panels, strict=True):
        _kernel(axes, rows, title, counts)
    spectrum, *bars = below.subplots(1, 5, width_ratios=[2.2, 1, 1, 1, 1])
    _spectrum(spectrum, groups)
    for axes, (key, title) in zip(
        bars,
        (
            ("knn", "k-NN, fine"),
            ("probe", "probe, fine"),
            ("zero_shot", "zero-shot, coarse"),
            ("spec_diff", "SPEC-diff"),
        ),
        strict=True,
    ):
        _bars(axes, groups, key, title, getattr(reference_scores, key) if key != "spec_diff" else None)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    small = Image.open(drawn).convert("RGB").quantize(128, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with written(path) as file:
        small.save(file, "PNG", optimize=True)
