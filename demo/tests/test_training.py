import shutil

import pytest
import torch

from demo import training
from demo.console import Console, DemoError
from demo.training import Plan, Progress, Trainer

LINE = (
    "2026-01-02,03:04:05 | INFO | Train Epoch: {epoch} [{seen}/8000 ({percent}%)] Data (t): 0.061 Batch (t): 0.{ms}, "
    "1098.12/s, 1098.12/s/gpu LR: 0.001000 Logit Scale: 14.235 Contrastive_loss: 4.7208 (5.3317) {more}"
    "Loss: {loss} (5.3317)"
)


def test_progress_reads_the_trainers_lines():
    progress = Progress()
    assert not progress.read("2026-01-02,03:04:05 | INFO | Start epoch 0")
    assert progress.read(LINE.format(epoch=0, seen=" 256", percent=3, ms=900, more="", loss="5.9426"))
    assert progress.read(LINE.format(epoch=0, seen=2816, percent=35, ms=180, more="", loss="4.7"))
    more = "Specalign_loss: 0.1234 (0.2345) "
    assert progress.read(LINE.format(epoch=3, seen=7936, percent=100, ms=210, more=more, loss="4.5"))
    assert progress.batch_seconds == [0.18, 0.21]  # the first step holds what every process does once
    assert progress.losses == [[1, 5.9426], [11, 4.7], [124, 4.5]]
    assert progress.done == 1


def test_progress_survives_a_diverged_run():
    progress = Progress()
    assert progress.read(LINE.format(epoch=0, seen=256, percent=3, ms=1, more="", loss="nan"))


PROGRAM = """
import os, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
for epoch in range(4):
    print(LINE.format(epoch=epoch, seen=7936, percent=100, ms=200, more="", loss="4.5"))
folder = os.path.join(arguments["--logs"], arguments["--name"], "checkpoints")
os.makedirs(folder)
import torch
torch.save({"state_dict": {"w": torch.ones(2)}, "optimizer": {}}, os.path.join(folder, "epoch_4.pt"))
"""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A trainer, and a package `open_clip_train` of the test's own in front of OpenCLIP's."""
    package = tmp_path / "path" / "open_clip_train"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))

    def make(program, **identity):
        (package / "main.py").write_text(f"LINE = {LINE!r}\n{program}")
        return Trainer(tmp_path, tmp_path / "cache", tmp_path / "runs", tmp_path / "pairs.csv", identity)

    yield make
    shutil.rmtree(package)


PLAN = Plan("none", "no penalty", None)


def test_a_run_is_kept_and_taken_from_there(trainer, tmp_path, capsys):
    first = trainer(PROGRAM).run(PLAN, 0, None, Console())
    assert first.step_seconds == 0.2
    assert torch.equal(torch.load(first.weights, weights_only=True)["w"], torch.ones(2))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["none-seed0"]
    assert not list((tmp_path / "runs" / "none-seed0").rglob("epoch_*.pt"))
    again = trainer("raise SystemExit(3)").run(PLAN, 0, None, Console())  # would fail if it were run
    assert again == first
    assert "taken from there" in capsys.readouterr().err


def test_other_data_seeds_and_damaged_weights_are_trained_anew(trainer):
    first = trainer(PROGRAM, data="a").run(PLAN, 0, None, Console())
    failing = "raise SystemExit('trained anew')"
    with pytest.raises(DemoError, match="trained anew"):
        trainer(failing, data="b").run(PLAN, 0, None, Console())
    with pytest.raises(DemoError, match="trained anew"):
        trainer(failing, data="a").run(PLAN, 1, None, Console())
    first.weights.write_bytes(first.weights.read_bytes()[:-1])
    with pytest.raises(DemoError, match="trained anew"):
        trainer(failing, data="a").run(PLAN, 0, None, Console())


def test_what_a_killed_process_left_is_swept_away(trainer, tmp_path):
    (tmp_path / "runs" / ".none-seed0-abc").mkdir(parents=True)
    (tmp_path / "runs" / ".none-seed1-abc").mkdir()
    trainer(PROGRAM).run(PLAN, 0, None, Console())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [".none-seed1-abc", "none-seed0"]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('out of cheese')", r"status 1; the last it said:\n    out of cheese"),
        ("print('fine')", r"without a checkpoint; what it printed:\n    fine"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "status -9"),
    ],
)
def test_a_failed_run_says_why_and_leaves_nothing(trainer, tmp_path, program, message):
    with pytest.raises(DemoError, match=message):
        trainer(program).run(PLAN, 0, None, Console())
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_interrupt_ends_the_training_program_too(trainer, tmp_path, monkeypatch):
    seen = []

    def interrupted(self, line):
        seen.append(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer("import time\nprint('started', flush=True)\ntime.sleep(300)").run(PLAN, 0, None, Console())
    assert seen == ["started\n"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_penalty_needs_a_reference(trainer):
    with pytest.raises(DemoError, match="needs the reference"):
        trainer(PROGRAM).run(Plan("ours", "ours", {"objective": "ky_fan"}), 0, None, Console())


def test_openclip_understands_the_arguments():
    from open_clip_train.params import parse_args

    parsed = parse_args(training.openclip_arguments("DIR", "a.csv", "logs", "name", 3))
    assert (parsed.model, parsed.seed, parsed.lr, parsed.batch_size) == ("local-dir:DIR", 3, 1e-3, training.BATCH)
