"""The study: which runs there are, in what order, and what is measured of each."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import specalign
import torch
import yaml  # type: ignore[import-untyped]
from specalign import _binary

from . import dataset, evaluation, figure, pairs, reference, report, store
from .console import Console, DemoError
from .evaluation import Floats, Scores
from .files import digest, digest_of_sources, write_json, written
from .training import Plan, Trained, Trainer

TRAIN = 8000
HELD_OUT = 4000
SPECTRUM = 40  # eigenvalues that the picture shows

PLANS = (
    Plan("none", "no penalty", None),
    Plan("paper", "the paper's: spectral_radius", {"objective": "spectral_radius", "weight": 2.2}),
    Plan(
        "ours",
        "ours: ky_fan 30 + relational_kl",
        {
            "terms": [
                {"objective": "ky_fan", "k": 30, "weight": 1.45},
                {"objective": "relational_kl", "temperature": 0.1, "weight": 0.75},
            ],
            "weight": 1.0,
        },
    ),
)


def plans(options: argparse.Namespace) -> list[Plan]:
    """Return the runs that the options ask for, the one to compare with first."""
    chosen = list(PLANS)
    if options.control:
        chosen.append(Plan("control", "ours, reference shuffled (control)", PLANS[-1].penalty, shuffled=True))
    for path in options.penalty:
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise DemoError(f"{path}: {' '.join(str(error).split())}") from error
        if not isinstance(settings, dict):
            raise DemoError(f"{path}: not a YAML mapping of the penalty's settings")
        settings.pop("reference", None)  # the demonstration has its own
        if any(plan.name == path.stem for plan in chosen):
            raise DemoError(f"{path}: there is already a run called {path.stem}; rename the file")
        chosen.append(Plan(path.stem, path.stem, settings))
    return chosen


class Judge:
    """Scores trained models on the held-out images."""

    def __init__(self, train: pairs.Part, held_out: pairs.Part, root: Path, model: Path, of_reference: Floats) -> None:
        """`of_reference` (n, d) are the reference's features of the held-out images, centred."""
        self._train = train
        self._held_out = held_out
        self._root = root
        self._name = f"local-dir:{model}"
        self._reference = of_reference
        self._pixels: tuple[torch.Tensor, torch.Tensor] | None = None

    def judge(self, trained: Trained) -> tuple[Floats, Scores, list[float]]:
        """Return the held-out features (n, d), the scores, and the difference kernel's largest eigenvalues."""
        network, _, preprocess = open_clip.create_model_and_transforms(self._name, load_weights=False)
        network.load_state_dict(torch.load(trained.weights, map_location="cpu", weights_only=True))
        network.eval()
        if self._pixels is None:
            self._pixels = (
                evaluation.load_pixels(preprocess, self._train.csv, self._root),
                evaluation.load_pixels(preprocess, self._held_out.csv, self._root),
            )
        seen, new = (evaluation.embed(network.encode_image, pixels) for pixels in self._pixels)
        tokenize = open_clip.get_tokenizer(self._name)
        prompts = []
        with torch.inference_mode():
            for word in pairs.COARSE:
                texts = tokenize([pairs.caption(word, template) for template in pairs.TEMPLATES])
                prompts.append(evaluation.unit(network.encode_text(texts).numpy()).mean(axis=0))
        eigenvalues = spectrum(new, self._reference)
        scores = Scores(
            knn=evaluation.knn_accuracy(seen, self._train.fine, new, self._held_out.fine),
            probe=evaluation.probe_accuracy(seen, self._train.fine, new, self._held_out.fine),
            zero_shot=evaluation.zero_shot_accuracy(new, np.stack(prompts), self._held_out.coarse),
            spec_diff=abs(eigenvalues[0]),
        )
        return new, scores, eigenvalues


def spectrum(student: Floats, of_reference: Floats) -> list[float]:
    """Ask the sidecar for the largest eigenvalues, signed, by falling magnitude, of the cosine kernels' difference."""
    result = specalign.penalty(student, of_reference, kernel="cosine", objective="ky_fan", k=SPECTRUM)
    assert result.eigenvalues is not None
    return [float(value) for value in result.eigenvalues[:SPECTRUM]]


def run(options: argparse.Namespace, root: Path, console: Console) -> None:
    """Do it all; what is finished is kept, so that a second call goes on where the first one ended."""
    chosen = plans(options)
    cache, out = options.cache.resolve(), options.out.resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join(  # for the programs that this one runs
        [str(root), str(root / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    torch.set_flush_denormal(True)
    logging.getLogger().setLevel(logging.ERROR)  # OpenCLIP warns of random weights, which are loaded right after

    console.heading("Images and captions")
    arrays = dataset.obtain(cache / "fashion-mnist", console)
    train, held_out = (
        pairs.prepare(name, arrays[f"{split}-images-idx3-ubyte"][:count], arrays[f"{split}-labels-idx1-ubyte"][:count],
                      cache, root, console)
        for name, split, count in (("train", "train", TRAIN), ("held-out", "t10k", HELD_OUT))
    )  # fmt: skip

    console.heading(f"Features of the reference, {reference.NAME}, which has never seen these labels")
    made = store.obtain(train, held_out, cache, root, console)

    if options.fresh:
        shutil.rmtree(out / "runs", ignore_errors=True)
    identity = {
        "train": train.fingerprint,
        "store": made.fingerprint,
        "sidecar": digest(Path(_binary.find())),
        "specalign": digest_of_sources(Path(specalign.__file__).parent),
        "open_clip": open_clip.__version__,
        "torch": str(torch.__version__),
    }
    trainer = Trainer(root, cache, out / "runs", train.csv, identity)
    judge = Judge(train, held_out, root, trainer.model, made.held_out)
    outcomes: list[report.Outcome] = []
    features: dict[str, Floats] = {}
    total = options.seeds * len(chosen)
    for seed in range(options.seeds):
        for plan in chosen:
            console.heading(f"Run {len(outcomes) + 1} of {total}: {plan.title}, seed {seed}")
            rows = None if plan.penalty is None else made.shuffled(console) if plan.shuffled else made.train
            trained = trainer.run(plan, seed, rows, console)
            new, scores, eigenvalues = judge.judge(trained)
            features.setdefault(plan.name, new)
            with written(trained.weights.parent / "held-out.npy") as file:
                np.save(file, new)
            outcomes.append(
                report.Outcome(plan.name, plan.title, seed, scores, eigenvalues, trained.step_seconds, trained.seconds)
            )
            console.line(
                f"held-out: k-NN {scores.knn:.3f}, probe {scores.probe:.3f}, zero-shot {scores.zero_shot:.3f}, "
                f"SPEC-diff {scores.spec_diff:.3f}"
            )

    console.heading("Table and picture")
    own = Scores(
        knn=evaluation.knn_accuracy(made.of_train, train.fine, made.held_out, held_out.fine),
        probe=evaluation.probe_accuracy(made.of_train, train.fine, made.held_out, held_out.fine),
        zero_shot=None,
        spec_diff=0.0,
    )
    _show(options, out, outcomes, features, made.held_out, own, held_out, console)


def _show(
    options: argparse.Namespace,
    out: Path,
    outcomes: list[report.Outcome],
    features: dict[str, Floats],
    of_reference: Floats,
    own: Scores,
    held_out: pairs.Part,
    console: Console,
) -> None:
    title = f"the reference, {reference.NAME}"
    table = report.table(outcomes, own, title)
    legend = report.legend(options.seeds, HELD_OUT, TRAIN)
    with written(out / "table.md", "w") as file:
        file.write(f"{table}\n\n{legend}\n")
    with written(out / "reference-held-out.npy") as file:
        np.save(file, of_reference)
    results: dict[str, Any] = {
        "schema_version": 1,
        "machine": {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "versions": {
            "specalign": specalign.__version__, "open_clip": open_clip.__version__, "torch": str(torch.__version__),
        },
        "train_images": TRAIN,
        "held_out_images": HELD_OUT,
        "penalties": {plan.name: plan.penalty for plan in plans(options)},
        "runs": [asdict(outcome) for outcome in outcomes],
        "reference": {"name": reference.NAME, **own.as_dict()},
    }  # fmt: skip
    write_json(out / "results.json", results)
    figure.draw(out / "figure.png", outcomes, features, of_reference, own, held_out.fine, title)

    shown = os.path.relpath(out)
    console.heading("Done")
    print(f"\n{table}\n\n{legend}\n")
    print(f"{shown}/table.md      this table")
    print(f"{shown}/figure.png    kernel matrices, spectrum and scores")
    print(f"{shown}/results.json  every figure of every run")
    print(f"{shown}/runs/         of each run: weights, OpenCLIP's log, settings, held-out features")
    print("\nTo try next:")
    print("  make demo SEEDS=3 CONTROL=1             three seeds, and the reference handed to the wrong images")
    print("  make demo PENALTY=my.yaml               your own penalty beside these; begin with a copy of")
    print(f"                                          {shown}/runs/ours-seed0/align.yaml")
    print(f"  bin/specalign penalty {shown}/runs/none-seed0/held-out.npy {shown}/reference-held-out.npy")
    print("                                          what the sidecar computes, from the command line")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
