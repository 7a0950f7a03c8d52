"""Forked children: clear errors there, no harm here. In processes of their own, as forks of pytest would keep its
threads' locks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import os, sys, threading, time
import numpy as np
import specalign
x = np.random.default_rng(0).standard_normal((64, 16)).astype("f4")
y = np.random.default_rng(1).standard_normal((64, 8)).astype("f4")
"""


FLAGS = ["-W", "error", "-W", "ignore:This process", "-W", "ignore:This DataLoader"]


def run(text, head=HEAD):
    done = subprocess.run(
        [sys.executable, *FLAGS, "-c", head + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "skipping fork() handlers" not in line]  # grpc's own
    assert not said, done.stderr
    return done.stdout


ON = "import os; os.environ['GRPC_ENABLE_FORK_SUPPORT'] = '1'\n"


@pytest.mark.parametrize(
    ("head", "persistent", "isolation"),
    [
        (HEAD, False, "process"),
        ("import grpc\n" + HEAD, False, "process"),
        (ON + HEAD, False, "process"),
        (HEAD, True, "process"),
        (HEAD, False, "none"),
    ],
    ids=["grpc after us", "grpc before us", "fork support asked for", "persistent workers", "in process"],
)
def test_four_dataloader_workers_over_two_epochs(head, persistent, isolation):
    """Workers fork while steps are under way; none hangs, and no step is lost."""
    out = run(
        f"""
        import torch
        from torch.utils.data import DataLoader, Dataset

        class Rows(Dataset):
            def __len__(self):
                return 512

            def __getitem__(self, i):
                try:
                    session.step(x, y)
                except specalign.ProcessError as e:
                    assert "DataLoader" in str(e)
                    return torch.from_numpy(x[i % 64])
                raise AssertionError("a worker used the parent's session")

        sidecar = specalign.Sidecar(device="cpu", isolation="{isolation}")
        session = sidecar.session()
        pid = sidecar.pid
        first = session.step(x, y).value
        count = 0
        options = dict(num_workers=4, multiprocessing_context="fork", persistent_workers={persistent})
        loader = DataLoader(Rows(), batch_size=64, **options)
        for epoch in range(2):
            futures = [session.submit(x, y) for _ in range(8)]
            for rows in loader:
                assert abs(session.step(rows.numpy(), y).value - first) < 1e-5
                count += 1
            assert all(abs(f.result(30).value - first) < 1e-5 for f in futures)
        assert sidecar.pid == pid and session.steps == 1 + count + 16, session.steps
        sidecar.close()
        print("ok", count)
        """,
        head,
    )
    assert out == "ok 16\n"


@pytest.mark.parametrize(
    ("end", "isolation"), [("os._exit(0)", "process"), ("sys.exit(0)", "process"), ("sys.exit(0)", "none")]
)
def test_everything_raises_in_a_child_and_nothing_closes(end, isolation):
    out = run(
        f"""
        sidecar = specalign.Sidecar(device="cpu", isolation="{isolation}")
        session = sidecar.session()
        specalign.penalty(x, y, isolation="{isolation}")
        first = session.step(x, y)
        future = session.submit(x, y)
        child = os.fork()
        if child == 0:
            for use in (lambda: session.step(x, y), lambda: session.submit(x, y), lambda: sidecar.session(),
                        lambda: sidecar.status(), lambda: sidecar.pid, lambda: future.result(),
                        lambda: specalign.penalty(x, y, isolation="{isolation}")):
                try:
                    use()
                except specalign.ProcessError:
                    pass
                else:
                    os._exit(1)
            session.close()
            sidecar.close()
            repr(sidecar), repr(session)
            del session, sidecar, future
            import gc
            gc.collect()
            {end}
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert future.result(30).seq == 2
        assert session.step(x, y).restarts == 0
        assert sidecar.status().mode in ("launched", "in process")
        print("ok")
        """
    )
    assert out == "ok\n"


@pytest.mark.parametrize(
    "use",
    [
        "specalign.Sidecar()",
        "specalign.penalty(x, y)",
        "specalign.Sidecar.attach('x')",
        "specalign.Sidecar(isolation='none')",
    ],
)
def test_a_fork_gets_no_sidecar_of_its_own_if_its_parent_had_one(use):
    """gRPC does not survive a fork: it would hang. A child that is spawned has none of this."""
    out = run(
        f"""
        specalign.Sidecar(device="cpu").close()
        child = os.fork()
        if child == 0:
            try:
                {use}
            except specalign.ProcessError as e:
                os._exit(0 if "spawn" in str(e) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("ok")
        """
    )
    assert out == "ok\n"


def test_a_fork_may_have_a_sidecar_if_its_parent_had_none():
    out = run(
        """
        child = os.fork()
        if child == 0:
            with specalign.Sidecar(device="cpu") as mine:
                ok = mine.session().step(x, y).converged
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("ok")
        """
    )
    assert out == "ok\n"


def test_forks_while_steps_run_all_the_time():
    out = run(
        """
        sidecar = specalign.Sidecar(device="cpu")
        session = sidecar.session()
        stop = threading.Event()
        done = []

        def work():
            while not stop.is_set():
                done.append(session.step(x, y).restarts)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            time.sleep(0.01)
        before = len(done)
        time.sleep(0.3)
        stop.set()
        thread.join(30)
        assert len(done) > before and not any(done), done
        sidecar.close()
        print("ok")
        """
    )
    assert out == "ok\n"


def test_no_torch_unless_asked():
    out = run("assert 'torch' not in sys.modules; specalign.penalty(x, y); print('torch' in sys.modules)")
    assert out == "False\n"


def test_the_import_elsewhere_says_why():
    out = run(
        """
        import platform
        platform.machine = lambda: "riscv64"
        try:
            import specalign
        except ImportError as e:
            print(e)
        """,
        head="import sys\n",
    )
    assert "Linux on x86-64 and arm64" in out
    assert "riscv64" in out


def test_grpc_with_fork_support_is_warned_of():
    text = ON + "import grpc, warnings\nwith warnings.catch_warnings(record=True) as said:\n"
    text += "    warnings.simplefilter('always')\n    import specalign\nprint(said[0].message)\n"
    assert "import specalign first" in run(text, "")
