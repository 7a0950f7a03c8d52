"""Whole runs of OpenCLIP's own training program, in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch

from specalign import InputError
from specalign.openclip import __main__, _config, _loop, _run

SETTINGS = "objective: ky_fan\nk: 4\n"


def launch(arguments, config=None, *extra):
    folder = Path(arguments[arguments.index("--logs") + 1])
    if config is None:
        return processes.Child(processes.openclip, (arguments,), folder / "output.txt")
    return processes.Child(
        processes.aligned, (["--config", str(config), *extra, "--", *arguments],), folder / "output.txt"
    )


def finish(process):
    return process.finish()


@pytest.fixture
def config(tmp_path, store):
    def write(text, reference=None):
        path = tmp_path / "align.yaml"
        path.write_text(f"reference: {reference or store}\n{text}")
        return path

    return write


def weights(folder):
    return torch.load(folder / "run/checkpoints/epoch_2.pt", weights_only=True)["state_dict"]


def records(folder):
    return [json.loads(line) for line in (folder / "run/specalign.jsonl").read_text().splitlines()]


def elsewhere(arguments, folder):
    folder.mkdir()
    return [*arguments[: arguments.index("--logs") + 1], str(folder), *arguments[arguments.index("--logs") + 2 :]]


@pytest.mark.parametrize("extra", [[], ["--accum-freq", "3", "--workers", "2"]], ids=["plain", "accumulated"])
def test_weight_zero_is_bit_identical(arguments, config, tmp_path, extra):
    """The accumulated run is one rank under torchrun."""
    plain = launch([*elsewhere(arguments, tmp_path / "plain"), *extra])
    path, watched = config(SETTINGS + "weight: 0\n"), [*elsewhere(arguments, tmp_path / "watched"), *extra]
    if extra:
        started = processes.torchrun(1, ["--config", str(path), "--", *watched], tmp_path)
    else:
        started = launch(watched, path)
    for process in (plain, started):
        status, output = finish(process)
        assert status == 0, output
    a, b = weights(tmp_path / "plain"), weights(tmp_path / "watched")
    assert list(a) == list(b)
    assert all(torch.equal(a[k], b[k]) for k in a)
    steps = records(tmp_path / "watched")
    assert [s["step"] for s in steps] == list(range(6 // (3 if extra else 1)))
    assert all(s["penalty"] > 0 and s["failure"] is None and s["weight"] == 0 for s in steps)


def test_penalty_falls_and_is_logged(arguments, config, tmp_path):
    pytest.importorskip("tensorboard")
    path = config(SETTINGS + "weight: 3\nschedule: {kind: warmup, warmup: 2}\n")
    process = launch([*arguments, "--epochs", "6", "--report-to", "tensorboard"], path)
    status, output = finish(process)
    assert status == 0, output
    steps = records(tmp_path)
    assert len(steps) == 18
    assert [s["weight"] for s in steps[:3]] == [1.5, 3, 3]
    assert steps[-1]["penalty"] < 0.8 * steps[0]["penalty"]
    assert steps[0]["route"]
    assert steps[0]["isa"]
    log = (tmp_path / "run/out.log").read_text()
    assert "Specalign_loss:" in log
    assert "specalign: reference: python:openclip_reference:blocks, 48 images" in log
    assert "specalign: epoch 5: penalty" in log

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    curve = events.Scalars("train/specalign_penalty")
    assert [e.step for e in curve] == list(range(18))
    assert curve[3].value == pytest.approx(steps[3]["penalty"], rel=1e-6)


def test_live_reference_in_process(arguments, tmp_path):
    path = tmp_path / "align.yaml"
    path.write_text('reference: {live: "python:openclip_reference:blocks"}\nisolation: none\n' + SETTINGS)
    status, output = finish(launch([*arguments, "--workers", "2"], path))
    assert status == 0, output
    assert output.count("isolation is none: a fault in a kernel ends the run") == 1
    assert all(s["penalty"] > 0 for s in records(tmp_path))
    assert "live at 32 x 32" in output


@pytest.mark.parametrize("scope", ["global", "local"])
def test_two_ranks(arguments, config, tmp_path, scope):
    path = config(SETTINGS + f"weight: 0.5\nscope: {scope}\n")
    command = ["--config", str(path), "--", *arguments, "--batch-size", "8"]
    command += ["--dist-backend", "gloo", "--local-loss", "--gather-with-grad"]
    if scope == "global":  # by torchrun itself; the other one as it would
        started = [processes.torchrun(2, command, tmp_path)]
    else:
        started = processes.ranks(2, processes.on_cpu, (command,), tmp_path)
    for process in started:
        status, output = process.finish()
        assert status == 0, output
    steps = records(tmp_path)
    assert [s["step"] for s in steps] == list(range(6))
    assert all(s["penalty"] > 0 and s["failure"] is None for s in steps)
    assert len(steps[0]["eigenvalues"]) == 5
    assert f"2 ranks, scope {scope}, grad_scale exact" in (tmp_path / "run/out.log").read_text()
    assert weights(tmp_path)


def sidecar_of(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        if Path(f"/proc/{child}/comm").read_text().startswith("specalign"):
            return int(child)
    return None


def wait_for(what, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_killing_the_sidecar_changes_nothing(arguments, config, tmp_path):
    path = config(SETTINGS)
    whole = launch(elsewhere(arguments, tmp_path / "whole"), path)
    killed = launch(elsewhere(arguments, tmp_path / "killed"), path)
    jsonl = tmp_path / "killed/run/specalign.jsonl"
    wait_for(lambda: jsonl.exists() and jsonl.read_text().count("\n") >= 2)
    os.kill(sidecar_of(killed.pid), signal.SIGKILL)
    for process in (whole, killed):
        status, output = finish(process)
        assert status == 0, output
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(s["failure"] is None for s in records(tmp_path / "killed"))
    assert records(tmp_path / "killed")[-1]["penalty"] == records(tmp_path / "whole")[-1]["penalty"]


def test_killing_the_trainer_ends_the_sidecar(arguments, config, tmp_path):
    process = launch([*arguments, "--epochs", "500"], config(SETTINGS))
    jsonl = tmp_path / "run/specalign.jsonl"
    wait_for(jsonl.exists)
    sidecar = sidecar_of(process.pid)
    process.kill()

    wait_for(lambda: processes.gone(sidecar), 5)


@pytest.mark.parametrize(
    ("settings", "extra", "message"),
    [
        ("k: 0\n", [], r"align.yaml:2:1: k is 0; give 1 or more"),
        ("kk: 3\n", [], r"align.yaml:2:1: there is no setting kk"),
        (SETTINGS, ["--lock-image"], "nothing in the image tower is trainable"),
        (SETTINGS, ["--csv-img-key", "image"], "train.csv has no column image; it has filepath, title"),
        (SETTINGS, ["--train-data", "shards-{0..9}.tar", "--dataset-type", "webdataset"], "shards"),
    ],
)
def test_refusals(arguments, config, settings, extra, message, tmp_path, capsys):
    status = _run.main(["--config", str(config(settings)), "--", *arguments, *extra])
    line = capsys.readouterr().err.strip()
    assert status == 2, line
    assert line.startswith("specalign: ")
    assert "\n" not in line
    assert message.replace("align.yaml", str(tmp_path / "align.yaml")) in line
    assert not (tmp_path / "run").exists()


def test_a_store_of_other_images_is_refused(arguments, config, data, tmp_path, capsys):
    csv = tmp_path / "other.csv"
    csv.write_text((data / "train.csv").read_text().replace("005.png", "../x.png"))
    status = _run.main(["--config", str(config(SETTINGS)), "--", *arguments, "--train-data", str(csv)])
    assert status == 2
    assert "does not fit this run: 1 of 48 training images are not in it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("loop", "found"),
    [
        (lambda model, data, loss: None, r"train_one_epoch\(model, data, loss\)"),
        (
            lambda state, data, args, extra, tb_writer=None: None,
            r"train_one_epoch\(state, data, args, extra, tb_writer\)",
        ),
        (None, "no train_one_epoch"),
    ],
)
def test_unknown_loops_are_refused(loop, found):
    with pytest.raises(InputError, match=rf"is not one that is known here: it has {found}\. Known to work: .*3\.3\.0"):
        _loop.reader(loop)


def test_a_run_without_a_csv(arguments, config, capsys):
    at = arguments.index("--train-data")
    rest = [*arguments[:at], *arguments[at + 2 :], "--dataset-type", "synthetic", "--train-num-samples", "32"]
    assert _run.main(["--config", str(config(SETTINGS)), "--", *rest]) == 2
    assert "--train-data is not given (--dataset-type synthetic)" in capsys.readouterr().err


def test_help_names_every_setting_of_a_run(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["--help"])
    text = capsys.readouterr().out
    assert [name for name in _config.RUN if f"\n  {name}:" not in text] == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--help"], 0, "settings of align.yaml"),
        ([], 2, "--config"),
        (["--config", "x"], 2, "they come after --"),
        (["features"], 2, "--model"),
        (["features", "--help"], 0, "timm:NAME"),
        (["--config", "none.yaml", "--", "--train-data", "x"], 2, "none.yaml: No such file"),
    ],
)
def test_usage(arguments, status, message, capsys):
    try:
        ended = __main__.main(arguments)
    except SystemExit as e:  # argparse
        ended = e.code
    assert ended == status
    out, err = capsys.readouterr()
    assert message in (err if status else out)


@pytest.mark.parametrize("arguments", [["--config", "align.yaml", "--", "--model", "ViT-B-32"], ["features"]])
def test_without_openclip(arguments):
    absent = "import sys; sys.modules.update(yaml=None, torch=None, open_clip=None)"
    program = f"{absent}; from specalign.openclip.__main__ import main; sys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"specalign: there is no \w+ in .*; pip install 'open_clip_torch\[training\]'\n", done.stderr)
