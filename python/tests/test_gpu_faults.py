"""A GPU that is not there, or fails, end to end, on the emulator: `make emu-python` builds it and runs this."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from batches import clustered
from faults import gone

import specalign

EMULATED = os.environ["SPECALIGN_BINARY"]
pytestmark = pytest.mark.skipif(
    "SPECALIGN_EMULATOR" not in os.environ, reason="the emulator of a GPU is not here: make emu-python"
)

# What the emulated machine is, and why its GPU is not used.
NONE = {
    "no GPU": ({"SIMT_DEVICES": "0"}, "the NVIDIA driver finds no GPU", "nvidia-smi -L"),
    "no driver": ({}, "there is no NVIDIA driver: libcuda.so.1 was not found", None),
    "driver too old": ({"SIMT_DRIVER": "12080"}, "the driver is too old: it knows CUDA 12.8", "580"),
    "old GPU": ({"SIMT_CAPABILITY": "75"}, "compute capability 7.5; the kernels need 8.0", "give device: cpu"),
    "no program": ({}, "there is no specalign-gpu beside it", None),
}


@pytest.fixture
def batches(rng):
    return [clustered(rng, 64, 12, 16) for _ in range(8)]


@pytest.fixture
def lose(tmp_path, monkeypatch):
    """Return what loses the GPU in a way, or mends it."""
    path = tmp_path / "lost"
    monkeypatch.setenv("SIMT_LOST", str(path))

    def lose(way):
        path.unlink(missing_ok=True)
        if way:
            path.write_text(way)

    return lose


def program(tmp_path, case):
    """Return the path of a specalign on a machine such as `case`."""
    if case not in ("no driver", "no program"):
        return EMULATED
    shutil.copy(EMULATED, tmp_path / "specalign")
    if case == "no driver":
        shutil.copy(EMULATED + "-gpu", tmp_path / "specalign-gpu")
    return str(tmp_path / "specalign")


def steps(session, batches, at=None, event=None):
    results = []
    for i, b in enumerate(batches):
        if i == at:
            event()
        results.append(session.step(*b))
    return results


def same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.value == b.value
        assert np.array_equal(a.grad, b.grad)


@pytest.fixture
def want(batches):
    with specalign.Sidecar(binary=EMULATED) as sidecar, sidecar.session(k=3) as session:
        results = steps(session, batches)
    assert {r.device for r in results} == {"cuda:0"}
    return results


@pytest.mark.parametrize("case", NONE)
def test_no_gpu_that_can_be_used(tmp_path, monkeypatch, batches, case):
    machine, reason, advice = NONE[case]
    for name, value in machine.items():
        monkeypatch.setenv(name, value)
    if case == "no driver":
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    binary = program(tmp_path, case)
    with specalign.Sidecar(binary=binary) as sidecar:
        assert sidecar.hello.device == "cpu"
        assert reason in sidecar.hello.device_note
        with sidecar.session(k=3) as session:
            assert session.step(*batches[0]).device == "cpu"
        with pytest.raises(specalign.InputError, match="device is cuda, but ") as error:
            sidecar.session(device="cuda", k=3)
        assert reason in str(error.value)

    files = [str(tmp_path / "student.npy"), str(tmp_path / "reference.npy")]
    for file, rows in zip(files, batches[0], strict=True):
        np.save(file, rows)
    auto = subprocess.run([binary, "penalty", *files, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(auto.stdout)["device"] == "cpu"
    assert reason in json.loads(auto.stdout)["device_note"]
    cuda = subprocess.run([binary, "penalty", *files, "--device", "cuda"], capture_output=True, text=True, check=False)
    assert (cuda.returncode, cuda.stdout) == (2, "")
    assert reason in cuda.stderr
    assert cuda.stderr.count("\n") == 1

    doctor = subprocess.run([binary, "doctor", "--json"], capture_output=True, text=True, check=False)
    gpu = next(c for c in json.loads(doctor.stdout)["checks"] if c["name"] == "GPU")
    assert reason in gpu["detail"]
    if advice is not None:  # else it depends on whether there is a driver here
        assert gpu["status"] == "warn"
        assert advice in gpu["advice"]


@pytest.mark.parametrize(
    ("share", "status", "says"), [("", "ok", "stay there"), ("export", "warn", "cuIpcGetMemHandle")]
)
def test_doctor_tries_rows_on_the_gpu(monkeypatch, share, status, says):
    monkeypatch.setenv("SIMT_SHARE", share)
    command = [EMULATED, "doctor", "--json", "--python", sys.executable]
    doctor = subprocess.run(command, capture_output=True, text=True, check=True)
    memory = next(c for c in json.loads(doctor.stdout)["checks"] if c["name"] == "GPU memory")
    assert memory["status"] == status
    assert says in memory["detail"]


def test_a_lost_gpu_changes_no_bit(batches, want, lose, caplog):
    with specalign.Sidecar(binary=EMULATED) as sidecar, sidecar.session(k=3) as session:
        first = sidecar.pid
        got = steps(session, batches, 4, lambda: lose("once"))
        assert sidecar.pid != first
    assert gone(first)
    same(got, want)
    assert [r.restarts for r in got] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert {r.device for r in got} == {"cuda:0"}
    assert "unspecified launch failure" in caplog.text
    assert "replacing it (1 of 5)" in caplog.text


def test_auto_goes_on_with_the_cpu(batches, want, lose, caplog):
    for way, says in (
        ("launch", "this session goes on with the CPU"),
        ("gone", "has no GPU any more: the NVIDIA driver"),
    ):
        lose("")
        caplog.clear()
        with specalign.Sidecar(binary=EMULATED) as sidecar, sidecar.session(k=3) as session:
            got = steps(session, batches, 4, lambda way=way: lose(way))
        same(got[:4], want[:4])
        assert [r.device for r in got] == ["cuda:0"] * 4 + ["cpu"] * 4
        assert says in caplog.text
        for a, b in zip(got, want, strict=True):
            assert abs(a.value / b.value - 1) < 1e-5


def test_cuda_stops_with_the_reason(batches, want, lose):
    for way, reason in (
        ("launch", "unspecified launch failure"),
        ("gone", "device is cuda, but the NVIDIA driver finds no GPU"),
    ):
        lose("")
        with (
            specalign.Sidecar(binary=EMULATED, device="cuda", max_restarts=2) as sidecar,
            sidecar.session(k=3) as session,
        ):
            got = steps(session, batches[:4])
            lose(way)
            with pytest.raises(specalign.SidecarError) as error:
                session.step(*batches[4])
            assert reason in str(error.value)
            if way == "launch":  # and where it works again, the session goes on
                lose("")
                same(got + steps(session, batches[4:]), want)


def test_the_trainer_is_never_lost(batches, lose, caplog):
    torch = pytest.importorskip("torch")
    import specalign.torch

    with specalign.Sidecar(binary=EMULATED, device="cuda", max_restarts=0) as sidecar:
        align = specalign.torch.SpecAlign(sidecar=sidecar, max_failures=3, k=3)
        student, reference = (torch.from_numpy(x) for x in batches[0])
        student.requires_grad_()
        assert align(student, reference) > 0
        lose("launch")
        for _ in range(2):
            loss = align(student, reference)
            loss.backward()
            assert loss == 0
            assert not student.grad.any()
        lose("")
        assert align(student, reference) > 0
        assert "no penalty for this step" in caplog.text
        align.close()


def test_a_daemon_begins_again(tmp_path, batches, want, lose):
    attach = tmp_path / "sidecar.json"
    log = (tmp_path / "log").open("w")
    with subprocess.Popen([EMULATED, "serve", "--daemon", "--attach", str(attach)], stderr=log) as process:
        try:
            while not attach.exists():
                assert process.poll() is None
            with specalign.Sidecar.attach(attach) as sidecar, sidecar.session(k=3) as session:
                got = steps(session, batches, 4, lambda: lose("once"))
                assert sidecar.pid == process.pid
            same(got, want)
            assert [r.restarts for r in got] == [0, 0, 0, 0, 1, 0, 0, 0]
        finally:
            process.terminate()
    assert process.returncode == 0
    assert not attach.exists()
    assert "the daemon begins again" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("verb", [("penalty", "--k=3"), ("compare", "--top=2"), ("metrics", "--without=nngs,cka_rbf")])
def test_a_command_whose_gpu_is_lost(tmp_path, batches, lose, verb):
    files = [str(tmp_path / "student.npy"), str(tmp_path / "reference.npy")]
    for file, rows in zip(files, batches[0], strict=True):
        np.save(file, rows)
    lose("launch")
    command = [EMULATED, *verb, *files]
    auto = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(auto.stdout)["device"] == "cpu"
    assert "unspecified launch failure" in json.loads(auto.stdout)["device_note"]
    cuda = subprocess.run([*command, "--device", "cuda"], capture_output=True, text=True, check=False)
    assert (cuda.returncode, cuda.stdout, cuda.stderr.count("\n")) == (1, "", 1)
    assert "unspecified launch failure" in cuda.stderr
    assert ("--device cpu" in cuda.stderr) == (verb[0] != "penalty")


def test_comparisons_on_the_gpu(tmp_path, batches, lose):
    """The passes over the rows are the GPU's, and find what the CPU finds; what is left to the CPU says so."""
    files = [str(tmp_path / "student.npy"), str(tmp_path / "reference.npy")]
    for file, rows in zip(files, batches[0], strict=True):
        np.save(file, rows)

    def compare(*arguments):
        command = [EMULATED, "compare", *files, "--top=3", "--permutations=2", "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    cpu = compare("--device=cpu")
    assert cpu["device"] == "cpu"
    for device in ("auto", "cuda"):
        gpu = compare(f"--device={device}", "--report", str(tmp_path / f"{device}.html"))
        assert (gpu["device"], gpu["isa"], gpu["route"]) == ("cuda:0", "sm_90", cpu["route"])
        assert "compute capability 9.0" in gpu["device_note"]
        assert gpu["spec_diff"] == pytest.approx(cpu["spec_diff"], rel=1e-5)
        for side in ("positive", "negative"):
            assert [[s["index"] for s in g["samples"][:3]] for g in gpu[side]] == [
                [s["index"] for s in g["samples"][:3]] for g in cpu[side]
            ]
    exact = compare("--device=cuda", "--kernel=gaussian")
    assert exact["device"] == "cpu"
    assert "exact kernels" in exact["device_note"]
    lose("memory")
    assert "out of memory" in compare()["device_note"]
    full = subprocess.run([EMULATED, "compare", *files, "--device=cuda"], capture_output=True, text=True, check=False)
    assert (full.returncode, full.stdout, full.stderr.count("\n")) == (2, "", 1)
    assert "out of memory" in full.stderr
