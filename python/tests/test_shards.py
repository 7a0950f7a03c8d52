"""`specalign.shards`, the C library's steps, against the command and NumPy in float64."""

from __future__ import annotations

import os
import random
import signal

import ml_dtypes
import numpy as np
import pytest
from sharded import comparison, run, same, sides, spectrum, write

import specalign
import specalign.shards as steps

DEPTH = ["--top", 3, "--samples", 6, "--permutations", 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("rows") / "rows", 11, 50, (12, 9))
    run("shards", "plan", *sides(folder), *DEPTH, "--out", folder / "plan")
    return folder


@pytest.fixture(scope="module")
def plan(folder):
    return (folder / "plan").read_bytes()


def shard(plan, i):
    student, reference, _ = steps.names(plan)[i]
    return i, np.load(student, mmap_mode="r"), np.load(reference, mmap_mode="r")


def scattered(make, count, seed):
    """Share shards out at random, and merge what is made of them at random."""
    shuffle = random.Random(seed)
    groups = {}
    for i in range(count):
        groups.setdefault(shuffle.randrange(4), []).append(i)
    files = [make(ids) for ids in groups.values()]
    while len(files) > 1:
        shuffle.shuffle(files)
        files[:2] = [steps.merge(files[:2])]
    return files[0]


def test_the_steps_give_the_bits_of_one_process(folder, plan, tmp_path):
    count = len(steps.names(plan))
    moments = [scattered(lambda ids: steps.partial(plan, [shard(plan, i) for i in ids]), count, s) for s in (1, 2)]
    assert moments[0] == moments[1]
    directions = steps.spectrum(plan, moments[0])
    scores = scattered(lambda ids: steps.top(plan, directions, [shard(plan, i) for i in ids], threads=2), count, 3)
    files = {"moments": moments[0], "directions": directions, "scores": scores}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    got = same(run("shards", "result", folder / "plan", *(tmp_path / name for name in files), "--json"))
    assert got == comparison(folder, *DEPTH)
    values = spectrum(folder)
    assert [g["eigenvalue"] for g in got["positive"]] == pytest.approx(values[::-1][:3], rel=1e-6)
    assert [g["eigenvalue"] for g in got["negative"]] == pytest.approx(values[:3], rel=1e-6)


def test_every_type_of_numbers(tmp_path, rng):
    exact = [rng.integers(-8, 9, (40, d)).astype("f4") for d in (6, 5)]  # exact in all types
    for name, x in zip("ab", exact, strict=True):
        np.save(tmp_path / f"{name}-0.npy", x)
    run("shards", "plan", *sides(tmp_path), "--out", tmp_path / "plan")
    plan = (tmp_path / "plan").read_bytes()
    want = steps.partial(plan, [(0, *exact)])
    for kind in ("f2", "f8", ml_dtypes.bfloat16):
        assert steps.partial(plan, [(0, exact[0].astype(kind), exact[1])]) == want


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, b: (a[:-1], b), r"has 56 rows, but 57 when the plan was made"),
        (lambda a, b: (a, np.ascontiguousarray(b[:, :-1])), "has rows of 8 numbers, but the plan has 9"),
        (lambda a, b: (a, b + np.float32(1)), "changed between the passes: the reference's rows are others"),
        (lambda a, b: (a[:, ::2], b), "give a C-contiguous matrix"),
        (lambda a, b: (a.astype("i4"), b), "are int32 of shape"),
        (lambda a, b: (np.where(a == a[7, 3], np.nan, a).astype("f4"), b), r"row 7 of .*a-002.npy .*not finite"),
    ],
)
def test_a_shard_that_is_another_one_is_named(plan, change, said):
    directions = steps.spectrum(plan, steps.partial(plan, [shard(plan, i) for i in range(11)]))
    _, a, b = shard(plan, 2)
    with pytest.raises(specalign.InputError, match=said):
        steps.top(plan, directions, [(2, *change(a, b))])


def test_no_shard_is_lost_or_counted_twice(plan):
    some = steps.partial(plan, [shard(plan, i) for i in (0, 2)])
    other = steps.partial(plan, [shard(plan, i) for i in (1, 2)])
    with pytest.raises(specalign.InputError, match=r"shard 2 \(.*a-002.npy\) is in both file 0 and file 1"):
        steps.merge([some, other])
    with pytest.raises(specalign.InputError, match=r"the moments lacks shard 1 \("):
        steps.spectrum(plan, some)
    with pytest.raises(specalign.InputError, match=r"shard 2 \(.*\) is given twice"):
        steps.partial(plan, [shard(plan, 2), shard(plan, 2)])
    with pytest.raises(specalign.InputError, match="there is no shard 11; the plan has 0 to 10"):
        steps.partial(plan, [(11, *shard(plan, 2)[1:])])
    with pytest.raises(specalign.InputError, match="no shard is given"):
        steps.partial(plan, [])
    with pytest.raises(specalign.InputError, match="no file is given"):
        steps.merge([])
    with pytest.raises(specalign.InputError, match="file 1 is damaged"):
        steps.merge([some, some[:-1] + bytes([some[-1] ^ 1])])
    with pytest.raises(specalign.InputError, match="the plan holds moments, not a plan"):
        steps.partial(some, [shard(plan, 0)])
    with pytest.raises(specalign.InputError, match="threads is -1"):
        steps.partial(plan, [shard(plan, 0)], threads=-1)
    with pytest.raises(specalign.InputError, match="the plan is str; give bytes"):
        steps.spectrum("plan", some)
    with pytest.raises(specalign.InputError, match="no plan"):
        steps.names(some)


def test_a_mapped_file_that_becomes_shorter_is_an_error(tmp_path, rng):
    for name in "ab":
        np.save(tmp_path / f"{name}-0.npy", rng.standard_normal((5000, 8)).astype("f4"))
    run("shards", "plan", *sides(tmp_path), "--out", tmp_path / "plan")
    plan = (tmp_path / "plan").read_bytes()
    given = shard(plan, 0)
    os.truncate(tmp_path / "a-0.npy", 4096)
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # the program's own, as Ray has one, whatever the library would do
    with pytest.raises(specalign.InputError, match=r"a-0.npy: the file cannot be read to its end any more"):
        steps.partial(plan, [given])


def test_a_library_that_is_missing_is_told(tmp_path, monkeypatch):
    program = tmp_path / "specalign"
    program.touch(mode=0o755)
    monkeypatch.setenv("SPECALIGN_BINARY", str(program))
    with pytest.raises(specalign.Error, match=r"libspecalign\.so cannot be loaded"):
        steps.merge([])


def test_what_is_no_shard() -> None:
    """A number that no shard has, and rows that are no array, are told by name."""
    rows = np.zeros((2, 3), np.float32)
    for number in (-1, 1 << 64, "0"):
        with pytest.raises(specalign.InputError, match="there is no shard"):
            steps.partial(b"", [(number, rows, rows)])  # type: ignore[list-item]
    with pytest.raises(specalign.InputError, match="give a NumPy array"):
        steps.partial(b"", [(0, None, rows)])  # type: ignore[list-item]
