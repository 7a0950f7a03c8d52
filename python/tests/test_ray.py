"""`python -m specalign.ray`: the bits of one process, on a cluster whose workers and nodes die."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sharded import comparison, run, same, sides, write

import specalign
from specalign.ray import __main__ as command
from specalign.ray import _files

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from specalign.ray import _passes, _progress  # noqa: E402

DEPTH = ["--top", 3, "--samples", 6, "--permutations", 4]
OFF = ["--validate=false", "--permutations=0"]


@pytest.fixture(scope="module")
def cluster():
    # A node is given up after a second, instead of half a minute.
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 250, "health_check_failure_threshold": 4}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def connected(cluster):
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows") / "rows", 20, 60, (12, 9))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "foo bar", "http://x", "ray://127.0.0.1:1", "nohost.invalid:6379", "127.0.0.1:99999"]
)
def test_an_address_where_nobody_answers(folder, address):
    message = on_ray(address, *sides(folder), *OFF, code=2)
    assert message.startswith(f"specalign: no Ray cluster answers at '{address}' (")
    assert message.endswith("); give the address of its head node, as in 10.0.0.1:6379\n")
    assert message.count("\n") == 1


def test_a_command_that_is_ended_leaves_no_folder(folder, tmp_path):
    """SIGTERM while it waits for a head node that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        words = [sys.executable, "-m", "specalign.ray", "compare", *sides(folder), *OFF, "--address", address]
        child = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE)
        silent.settimeout(60)
        silent.accept()[0].close()
        assert list(tmp_path.glob("specalign-ray-*"))
        child.terminate()
        child.communicate(timeout=60)
    assert child.returncode in (128 + signal.SIGTERM, signal.SIGTERM)  # the latter from Ray, once that begins
    assert not list(tmp_path.glob("specalign-ray-*"))


def on_ray(address, *arguments, code=0):
    words = [sys.executable, "-m", "specalign.ray", "compare", *map(str, arguments), "--address", address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def planned(folder, *arguments):
    run("shards", "plan", *sides(folder), *arguments, "--out", folder / "plan")
    return (folder / "plan").read_bytes()


def test_it_says_what_one_process_says(cluster, folder, tmp_path):
    page = tmp_path / "page.html"
    patterns = f"{folder}/a-*.npy", f"{folder}/b-*.npy"
    got = on_ray(cluster.address, *patterns, *DEPTH, "--json", "--report", page, "--shards-per-task", 8)
    assert same(got) == comparison(folder, *DEPTH)
    assert page.stat().st_size > 10_000


def test_object_storage(cluster, folder, tmp_path):
    away = [f"file://{folder}/{side}-*.npy" for side in "ab"]
    got = same(on_ray(cluster.address, "--student", away[0], "--reference", away[1], *OFF, "--top", 2, "--json"))
    assert got == comparison(folder, *OFF, "--top", 2)
    missing = on_ray(cluster.address, f"file://{folder}/c-*.npy", away[1], code=2)
    assert missing == f"specalign: file://{folder}/c-*.npy: no file matches\n"


def killed(cluster, folder, kill):
    """Compare on the cluster while `kill` strikes, which tells whether it did; return what was said."""
    stop = threading.Event()
    struck = []

    def strike():
        while not stop.wait(0.02) and not struck:
            if kill():
                struck.append(True)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        return same(on_ray(cluster.address, *sides(folder), *DEPTH, "--json", "--shards-per-task", 1))
    finally:
        stop.set()
        thread.join()
        assert struck


def working(cluster, name):
    """Return the cluster's processes that do a task of that name."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                said = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if said.startswith(f"ray::{name}".encode()) and parent in raylets:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("rows") / "rows", 40, 2500, (256, 192))
    return folder, comparison(folder, *DEPTH)


@pytest.mark.parametrize("task", ["_partial", "_top"])
def test_a_killed_worker_changes_no_bit(cluster, larger, task):
    def kill():
        workers = working(cluster, task)
        if workers:
            os.kill(workers[0], signal.SIGKILL)
        return workers

    folder, want = larger
    assert killed(cluster, folder, kill) == want


def test_a_killed_node_changes_no_bit(cluster, larger):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    raylet = node.all_processes["raylet"][0].process.pid

    def kill():
        both = len(working(cluster, "_partial")) > 1
        if both:
            os.kill(raylet, signal.SIGKILL)
        return both

    folder, want = larger
    try:
        assert killed(cluster, folder, kill) == want
    finally:
        cluster.remove_node(node, allow_graceful=False)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: os.truncate(path, 300), "mmap length is greater than file size"),
        (lambda path: np.save(path, np.ones((60, 8), "f4")), "has rows of 8 numbers, but the plan has 9"),
        (lambda path: np.save(path, np.ones((51, 9), "f4")), "has 51 rows, but"),
    ],
)
def test_a_shard_that_is_not_there_is_named(connected, tmp_path, harm, said):
    folder = write(tmp_path / "rows", 5, 60, (12, 9))
    plan = planned(folder)
    harm(folder / "b-003.npy")
    with pytest.raises(ray.exceptions.RayTaskError) as raised:
        _passes.run(plan, 1, 1)
    assert isinstance(raised.value.cause, specalign.InputError)
    assert re.search(rf"shard 3 \(.*-003.npy\).*{said}", str(raised.value.cause))


def test_a_shard_that_changes_between_the_passes_is_named(connected, tmp_path):
    folder = write(tmp_path / "rows", 5, 60, (12, 9))
    plan = planned(folder)
    _, directions, _ = _passes.run(plan, 1, 1)
    path = folder / "b-002.npy"
    np.save(path, np.load(path) + np.float32(1))
    with pytest.raises(ray.exceptions.RayTaskError, match=r"shard 2 \(.*a-002.npy\) changed between the passes"):
        ray.get(_passes._top.remote(plan, directions, range(1, 4), 1)[0])


def test_every_kind_of_file(tmp_path, rng):
    x = rng.standard_normal((30, 7)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x.astype(">f8")))
    np.savez(tmp_path / "x.npz", k=x, other=x[:3])
    table = {"k": pyarrow.FixedSizeListArray.from_arrays(x.ravel(), 7), "n": pyarrow.array(range(30))}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    header = b'{"k":{"dtype":"BF16","shape":[30,7],"data_offsets":[0,420]}}'
    half = x.astype(ml_dtypes.bfloat16)
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + half.tobytes())
    for name in ("x.npy", "fortran.npy", "x.npz:k", "x.parquet:k"):
        np.testing.assert_array_equal(_files.load(str(tmp_path / name)), x)
    np.testing.assert_array_equal(_files.load(str(tmp_path / "x.safetensors")), half.astype("f4"))
    with pytest.raises(ValueError, match="there is no '' in it; it has k, other"):
        _files.load(str(tmp_path / "x.npz"))
    with pytest.raises(specalign.InputError, match="unknown kind of file"):
        _files.load("x.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare a.npy b.npy --topp 3", "unrecognized arguments: --topp"),
        ("compare a.npy", "compare takes STUDENT and REFERENCE, or any number of --student and --reference"),
        ("compare --student a.npy", "no files are given"),
        ("compare a.npy b.npy --threads 0", "--threads and --shards-per-task are whole numbers, 1 or more"),
        ("compare no://x/a.npy b.npy", "no://x/a.npy: Protocol not known: no"),
        ("compare file:///nowhere/a.npy b.npy", "file:///nowhere/a.npy: no such file"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(line, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["specalign.ray", *line.split()])
    with pytest.raises(SystemExit) as ended:
        command.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("specalign: ")
    assert said in told
    assert told.count("\n") == 1


def test_flags_are_those_of_the_command():
    for step, names in (("plan", [*command.PLAN, "out", "json", "student", "reference"]), ("result", command.RESULT)):
        said = run("shards", step, "-h")
        assert set(re.findall(r"^ +(?:-h, )?--([a-z-]+)", said, re.M)) == {*names, "help"}


def test_progress_tells_rate_and_time_left():
    progress = _progress.Progress("partial", 4000)
    progress.add(1000)
    assert progress.text(progress._begin + 10) == "partial 25 %: 1,000 of 4,000 rows, 100 rows/s, 0:30 left"


def test_groups_are_powers_of_eight():
    assert [_passes.group_size(n, 2) for n in (1, 63, 64, 511, 512, 5000)] == [1, 1, 8, 8, 64, 512]
