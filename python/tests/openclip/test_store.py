import errno
import json
import os
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from specalign import InputError
from specalign.openclip import Store, StoreError, _folder, sample_id, sample_ids

PATHS = [f"images/{i}.png" for i in range(20)]
META = {"model": "m", "model_fingerprint": "f", "preprocessing": "p", "data": {}}


@pytest.fixture
def features(rng):
    return rng.standard_normal((20, 7)).astype(np.float32) + 3


def make(features, *, center=False):
    return Store.make(META, sample_ids(PATHS), features, np.arange(20), center=center)


def test_ids():
    # Kept for ever: stores on disk hold them.
    assert sample_id("images/0.png") == sample_ids(["images/0.png"])[0]
    assert sample_id("a") == 3405396810240292928
    assert sample_id("é\udcff") != sample_id("é")


@pytest.mark.parametrize("center", [False, True])
def test_round_trip(tmp_path, features, center):
    store = make(features, center=center)
    store.save(tmp_path / "s")
    again = Store.open(tmp_path / "s")
    at = [3, 3, 19, 0]
    want = features - features.mean(0, dtype=np.float64).astype(np.float32) if center else features
    for s in (store, again):
        np.testing.assert_array_equal(s.rows(sample_ids(PATHS[i] for i in at)), want[at])
    assert again.fingerprint == store.fingerprint
    assert again.dim == 7
    assert isinstance(again.features, np.memmap)


def test_rows_of_csv(tmp_path, features):
    csv = tmp_path / "a.csv"
    csv.write_text("filepath,title\n" + "".join(f"{p},x\n" for p in reversed(PATHS)))
    np.testing.assert_array_equal(make(features).rows_of_csv(csv), features[::-1])
    with pytest.raises(InputError, match="no column image; it has filepath, title"):
        make(features).rows_of_csv(csv, "image")


def test_unknown_ids(features):
    with pytest.raises(StoreError, match=r"2 of 3 samples are not in the store .* first has the id 5"):
        make(features).rows(np.array([sample_id(PATHS[0]), 5, -6]))


def test_permuted(tmp_path, features):
    store = make(features, center=True)
    shuffled = store.permuted(7)
    assert shuffled.fingerprint != store.fingerprint
    a, b = (s.rows(sample_ids(PATHS)) for s in (store, shuffled))
    assert (np.abs(a - b).max(1) > 0).sum() > 10
    np.testing.assert_array_equal(np.sort(a, 0), np.sort(b, 0))
    shuffled.save(tmp_path / "p")
    np.testing.assert_array_equal(Store.open(tmp_path / "p").rows(sample_ids(PATHS)), b)
    np.testing.assert_array_equal(store.permuted(7).features, shuffled.features)


def test_refuses_what_cannot_be(features):
    twice = sample_ids([*PATHS[:-1], PATHS[0]])
    with pytest.raises(StoreError, match="the same 64-bit id"):
        Store.make(META, twice, features, np.arange(20), center=False)


def test_save_replaces_stores_only(tmp_path, features):
    store = make(features)
    store.save(tmp_path / "s")
    make(features + 1).save(tmp_path / "s")
    assert Store.open(tmp_path / "s").fingerprint != store.fingerprint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="is no store; choose another place"):
        store.save(tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        store.save(tmp_path / "file/s")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine", "s"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_failed_replacement_leaves_the_store(tmp_path, features, monkeypatch, exchanges):
    old, new = make(features), make(features + 1)
    old.save(tmp_path / "s")
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda fd, sync=os.fsync: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or sync(fd)
    )
    if not exchanges:

        def cannot(a, b):
            raise OSError(errno.EINVAL, "no exchange")

        monkeypatch.setattr(_folder, "_renameat2", cannot)
    rename = os.rename

    def fails(a, b):
        # The store is never without its files before the new one stands ready on the disk.
        assert any(p.endswith("features.npy") for p in synced)
        if str(b) == str(tmp_path / "s") and not str(a).endswith("-old"):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        if exchanges:
            patch.setattr(_folder, "_renameat2", fails)
        with pytest.raises(StoreError, match="cannot be written: No space left"):
            new.save(tmp_path / "s")
    assert Store.open(tmp_path / "s").fingerprint == old.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    new.save(tmp_path / "s")
    assert Store.open(tmp_path / "s").fingerprint == new.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_reader_always_finds_a_store(tmp_path, features):
    stores = [make(features), make(features + 1)]
    stores[0].save(tmp_path / "s")
    done = threading.Event()
    looks = []

    def look():
        while not done.is_set():
            looks.append((tmp_path / "s/meta.json").exists())

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(60):
        stores[i % 2].save(tmp_path / "s")
    done.set()
    reader.join()
    assert len(looks) > 100
    assert all(looks)


def test_files_that_changed(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for i, p in enumerate(paths):
        with open(p, "wb") as file:
            file.write(b"x" * i)
    store = Store.make(META, sample_ids(paths), np.ones((5, 2), np.float32), np.arange(5), center=False)
    store.check_files(paths)
    with open(paths[3], "wb") as file:
        file.write(b"longer than before")
    with pytest.raises(StoreError, match=r"3.png has 18 bytes and had 3"):
        store.check_files(paths)


def test_no_more_files_are_looked_at_than_said(tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{i}.png") for i in range(1999)]
    store = Store.make(META, sample_ids(paths), np.ones((1999, 2), np.float32), np.zeros(1999, int), center=False)
    looked = []
    monkeypatch.setattr(os, "stat", lambda path: looked.append(path) or SimpleNamespace(st_size=0))
    store.check_files(paths)
    assert 900 < len(looked) <= 1000
    assert looked[0] == paths[0]


def damage(name, how):
    def do(folder):
        file = folder / name
        how(file)

    return do


def rewrite(change):
    def how(file):
        np.save(file, change(np.load(file)))

    return how


def meta(**changes):
    def how(file):
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return how


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (shutil.rmtree, "is no store of reference features"),
        (damage("meta.json", lambda f: f.unlink()), "is no store of reference features"),
        (damage("meta.json", lambda f: f.write_text("{")), "not JSON"),
        (damage("meta.json", lambda f: f.write_text("[" * 100_000)), "not JSON"),
        (damage("meta.json", lambda f: f.write_text("[]")), "of schema None"),
        (damage("meta.json", meta(schema_version=9)), "of schema 9, this version reads 1"),
        (damage("meta.json", meta(model=3)), "has no model"),
        (damage("ids.npy", lambda f: f.unlink()), "ids.npy"),
        (damage("ids.npy", lambda f: f.write_bytes(b"")), "ids.npy"),
        (damage("ids.npy", lambda f: f.write_bytes(b"\x93NUMPY\x01\x00\x20\x00{'descr': '<i8', 'foo': 1}")), "ids.npy"),
        (damage("ids.npy", rewrite(lambda a: a[::-1])), "not in ascending order"),
        (damage("ids.npy", rewrite(lambda a: a[:-1])), r"ids.npy is int64 \(19,\)"),
        (damage("ids.npy", rewrite(lambda a: a.astype(np.float64))), "ids.npy is float64"),
        (damage("features.npy", lambda f: f.write_bytes(f.read_bytes()[:-4])), "features.npy"),
        (damage("features.npy", rewrite(lambda a: a.astype(np.float16))), "features.npy is float16"),
        (damage("features.npy", rewrite(lambda a: a[0])), r"features.npy is float32 \(7,\)"),
        (damage("mean.npy", rewrite(lambda a: a[1:])), "mean.npy"),
        (damage("sizes.npy", rewrite(lambda a: np.array([object()]))), "sizes.npy"),
    ],
)
def test_damage(tmp_path, features, do, message):
    make(features).save(tmp_path / "s")
    do(tmp_path / "s")
    with pytest.raises(StoreError, match=message) as error:
        Store.open(tmp_path / "s")
    assert "\n" not in str(error.value)
