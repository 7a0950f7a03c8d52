import contextlib
import gzip
import hashlib
import struct

import numpy as np
import pytest

from demo import dataset
from demo.console import Console, DemoError


def idx(array):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("shape", [(0,), (5,), (3, 4, 2), (2, 28, 28)])
def test_idx_round_trip(shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    read = dataset.parse_idx(idx(array), "file")
    assert read.dtype == np.uint8
    assert read.shape == shape
    np.testing.assert_array_equal(read, array)


GOOD = idx(np.ones((3, 4)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\0\0\x0d\x02" + GOOD[4:], "not an IDX file"),  # floats
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (b"\0\0\x08\x00", "rank 0"),
        (GOOD[:9], "header of 9 bytes"),
        (b"\0\0\x08\xff" + bytes(100), "rank 255"),
        (GOOD[:-1], "need 12 bytes of values, the file has 11"),
        (GOOD + b"\0", "need 12 bytes of values, the file has 13"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "need 79228162458924105385300197375 bytes"),  # sizes that overflow 64 bits
    ],
)
def test_bad_idx_is_named(data, message):
    with pytest.raises(DemoError, match=message) as raised:
        dataset.parse_idx(data, "labels")
    assert str(raised.value).startswith("labels: ")


def test_every_truncation_and_flip_is_an_error_or_an_array():
    for cut in range(len(GOOD)):
        with pytest.raises(DemoError):
            dataset.parse_idx(GOOD[:cut], "file")
    rng = np.random.default_rng(0)
    for _ in range(500):
        bad = bytearray(GOOD)
        bad[rng.integers(12)] = rng.integers(256)
        with contextlib.suppress(DemoError):
            assert dataset.parse_idx(bytes(bad), "file").nbytes == 12


@pytest.fixture
def tiny(monkeypatch):
    """A data set of the right form with other contents, and its checksums."""
    content = {name: idx(np.full((4, 28, 28) if "images" in name else (4,), i)) for i, name in enumerate(dataset.FILES)}
    monkeypatch.setattr(dataset, "FILES", {name: hashlib.sha256(data).hexdigest() for name, data in content.items()})
    return content


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))


def test_obtain_takes_the_installed_package_and_then_the_cache(tiny, tmp_path, monkeypatch, capsys):
    installed, cache = tmp_path / "installed", tmp_path / "cache" / "fashion-mnist"
    write(installed, tiny)
    monkeypatch.setattr(dataset, "INSTALLED", installed)
    first = dataset.obtain(cache, Console())
    assert sorted(path.name for path in cache.iterdir()) == sorted(tiny)
    assert [path.name for path in cache.parent.iterdir()] == ["fashion-mnist"]
    monkeypatch.setattr(dataset, "SOURCES", ())
    second = dataset.obtain(cache, Console())
    for name in tiny:
        np.testing.assert_array_equal(first[name], second[name])
    assert "from the installed Debian package" in capsys.readouterr().err


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    installed, cache = tmp_path / "installed", tmp_path / "cache" / "fashion-mnist"
    bad = dict(tiny)
    bad["train-labels-idx1-ubyte"] = idx(np.full(4, 9))
    write(installed, bad)
    monkeypatch.setattr(dataset, "INSTALLED", installed)
    monkeypatch.setattr(dataset, "SOURCES", dataset.SOURCES[:1])
    with pytest.raises(DemoError, match=r"train-labels-idx1-ubyte\.gz: SHA-256 of the unpacked file is .* is pinned"):
        dataset.obtain(cache, Console())
    assert list(cache.iterdir()) == []


def test_a_damaged_cache_is_made_anew(tiny, tmp_path, monkeypatch):
    installed, cache = tmp_path / "installed", tmp_path / "cache" / "fashion-mnist"
    write(installed, tiny)
    monkeypatch.setattr(dataset, "INSTALLED", installed)
    dataset.obtain(cache, Console())
    damaged = cache / "t10k-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    dataset.obtain(cache, Console())
    assert damaged.read_bytes() == tiny[damaged.name]


def test_every_source_says_why_it_failed(tmp_path, monkeypatch):
    def broken(reason):
        def source(_work, _console):
            raise DemoError(reason)

        return source

    monkeypatch.setattr(dataset, "SOURCES", (("one", broken("no disk")), ("two", broken("no network"))))
    with pytest.raises(DemoError, match=r"could not be had: no disk; no network\. Install"):
        dataset.obtain(tmp_path / "fashion-mnist", Console())


@pytest.mark.parametrize("data", [b"\x1f\x8bjunk", gzip.compress(b"x" * 1000)[:40], b""])
def test_unreadable_archives(data, tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(data)
    with pytest.raises(DemoError, match=r"file\.gz: (cannot be read|SHA-256)"):
        dataset.unpack(path, "train-labels-idx1-ubyte")
