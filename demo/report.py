"""The table: gains and costs of every run, over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .evaluation import Scores


@dataclass(frozen=True)
class Outcome:
    """One run's scores and what it cost.

    Attributes:
        name: of the plan, without the seed.
        title: as the table and the picture show it.
        seed: of initial weights and batches.
        scores: on the held-out images.
        eigenvalues: signed, by falling magnitude, of the difference kernel on the held-out images.
        step_seconds: median of a training step.
        seconds: the whole training program.
    """

    name: str
    title: str
    seed: int
    scores: Scores
    eigenvalues: list[float]
    step_seconds: float
    seconds: float


COLUMNS = (
    ("knn", "k-NN, fine"),
    ("probe", "linear probe, fine"),
    ("zero_shot", "zero-shot, coarse"),
    ("spec_diff", "SPEC-diff"),
)


def by_name(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Group outcomes by the run's name, in order of first appearance; seeds ascending in each."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.name, []).append(outcome)
    return {name: sorted(group, key=lambda outcome: outcome.seed) for name, group in groups.items()}


def _cell(group: Sequence[Outcome], base: Sequence[Outcome], key: str) -> str:
    values = [getattr(outcome.scores, key) for outcome in group]
    mean = statistics.fmean(values)
    text = f"{mean:.3f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.3f}"
    if key != "spec_diff" and group is not base:
        before = {outcome.seed: getattr(outcome.scores, key) for outcome in base}
        gains = [100 * (getattr(o.scores, key) - before[o.seed]) for o in group if o.seed in before]
        if gains:
            text += f" ({statistics.fmean(gains):+.1f})"
    return text


def table(outcomes: Sequence[Outcome], reference: Scores, reference_title: str) -> str:
    """Return the Markdown table; the first run of `outcomes` is what the others are compared with."""
    groups = by_name(outcomes)
    base = next(iter(groups.values()))
    rows = [["run", *(title for _, title in COLUMNS), "s a step"]]
    for group in groups.values():
        cells = [_cell(group, base, key) for key, _ in COLUMNS]
        rows.append([group[0].title, *cells, f"{statistics.median(o.step_seconds for o in group):.3f}"])
    own = [getattr(reference, key) for key, _ in COLUMNS]
    rows.append([reference_title, *("-" if value is None else f"{value:.3f}" for value in own), "-"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def legend(seeds: int, held_out: int, train: int) -> str:
    """Return the sentences that say what the table's figures are."""
    over = "one seed" if seeds == 1 else f"mean and standard deviation over {seeds} seeds"
    return (
        f"{held_out:,} held-out test images, {over}; in brackets: points more or less than without the penalty, "
        f"from the same initial weights and batches. k-NN (k = 10, cosine) and probe know the fine labels of the "
        f"{train:,} training images, which no run was trained on. SPEC-diff: the distance to the reference, 0 to 1, "
        "lower is nearer. Seconds a step: median, all of a step, on this machine."
    )
