"""What a caller gives that cannot be: one `InputError` each, which names the argument."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import specalign
from specalign import InputError, SidecarError
from specalign.torch import SpecAlign, penalty

X = np.random.default_rng(1).standard_normal((32, 8)).astype(np.float32)
Y = np.random.default_rng(2).standard_normal((32, 6)).astype(np.float32)
NO_SECONDS = [float("nan"), float("inf"), 0, -1, 1e10, 10**400, "3", None, True, np.array([1, 2]), [1]]
HUGE = 10**5000  # which Python refuses to write


@pytest.fixture(scope="module", params=["process", "none"])
def sidecar(request: pytest.FixtureRequest) -> Iterator[specalign.Sidecar]:
    with specalign.Sidecar(device="cpu", isolation=request.param) as s:
        yield s


def error(call: Any, *parts: str) -> None:
    with pytest.raises(InputError) as e:
        call()
    text = str(e.value)
    assert text.startswith("specalign: ")
    assert "\n" not in text
    assert len(text) < 300
    for part in parts:
        assert part in text


@pytest.mark.parametrize("value", [*NO_SECONDS[:-4], True, np.array([1, 2]), [1], HUGE], ids=lambda v: type(v).__name__)
def test_timeout_of_a_step(sidecar: specalign.Sidecar, value: Any) -> None:
    with sidecar.session() as session:
        error(lambda: session.step(X, Y, timeout=value), "timeout is ", "a positive number of seconds")
        error(lambda: session.submit(X, Y, timeout=value), "timeout is ")
        assert session.step(X, Y, timeout=np.float32(9)).seq == 1


@pytest.mark.parametrize("name", ["timeout", "launch_timeout"])
@pytest.mark.parametrize("value", [*NO_SECONDS, HUGE], ids=lambda v: type(v).__name__)
def test_timeouts_of_a_sidecar(name: str, value: Any) -> None:
    error(lambda: specalign.Sidecar(device="cpu", **{name: value}), f"{name} is ")


def test_arguments_of_a_sidecar(sidecar: specalign.Sidecar, tmp_path: Any) -> None:
    for value in ("thread", None, 1, []):
        error(lambda value=value: specalign.Sidecar(isolation=value), "isolation is ", 'give "process" or "none"')
        error(lambda value=value: specalign.penalty(X, Y, isolation=value), "isolation is ")
        error(lambda value=value: SpecAlign(isolation=value), "isolation is ")
    error(lambda: SpecAlign(sidecar=sidecar, isolation="none"), "isolation is given beside a sidecar")
    for value in (float("nan"), "x", -1, True, 2.5, None):
        error(lambda value=value: specalign.Sidecar(max_restarts=value), "max_restarts is ")
    for value in (5, "", "a\0b", [], {}):
        error(lambda value=value: specalign.Sidecar(binary=value), "binary is ")
        error(lambda value=value: specalign.Sidecar.attach(value), "file is ")
    for value in (5, "", object(), "a\0b"):
        error(lambda value=value: specalign.Sidecar(log=value), "log is ")
    error(lambda: specalign.Sidecar(log=tmp_path), "cannot be written to")
    error(lambda: specalign.Sidecar(log=tmp_path / "no" / "log"), "cannot be written to")
    os.mkfifo(tmp_path / "pipe")  # of which nobody reads
    error(lambda: specalign.Sidecar(log=tmp_path / "pipe"), "cannot be written to")
    error(lambda: specalign.Sidecar.attach(tmp_path / "a", connect_timeout="x"), "connect_timeout is ")
    error(lambda: sidecar.status(timeout="x"), "timeout is ")
    with pytest.raises(SidecarError, match="is no file"):
        specalign.Sidecar.attach(tmp_path)


def test_settings(sidecar: specalign.Sidecar) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for settings in (
        {"terms": [{(1, 2): 2}]}, {"terms": deep}, {"terms": cyclic}, {"kernel": b"x"}, {"terms": {1}}, {"k": HUGE},
        {"eta": float("nan")}, {"kernel": "x" * 2_000_000}, {"kernel": "\x1b[31m"}, {"k": 0}, {"unknown": 1},
    ):  # fmt: skip
        error(lambda settings=settings: sidecar.session(**settings), "settings")
    error(lambda: sidecar.session(eta=np.float32("inf")), "eta is ", "finite")
    error(lambda: sidecar.session(terms=cyclic), "terms is [[")


def test_numbers_of_numpy_are_numbers(sidecar: specalign.Sidecar) -> None:
    settings = {"kernel": "gaussian", "sigma": 3, "approximation": "rff", "num_features": 9000, "k": 2, "center": True}
    numpy = {name: v if isinstance(v, str) else np.array(v)[()] for name, v in settings.items()}
    assert isinstance(numpy["num_features"], np.int64)
    with sidecar.session(**settings) as session, sidecar.session(**numpy) as same:
        assert session.settings == same.settings
        assert session.step(X, Y).value == same.step(X, Y).value


def test_rows(sidecar: specalign.Sidecar) -> None:
    x, y = torch.tensor(X), torch.tensor(Y)
    with sidecar.session() as session, SpecAlignOf(sidecar) as loss_fn:
        for s, r in ((x[:0], y[:0]), (x[:, :0], y)):
            error(lambda s=s, r=r: session.step(s, r), "at least one of each")
            error(lambda s=s, r=r: loss_fn(s, r), "at least one of each")
        error(lambda: loss_fn(torch.nested.nested_tensor([x[0], x[0]]), y), "nested")
        for transform in (torch.func.grad, torch.func.vmap):
            error(lambda t=transform: t(lambda z: loss_fn(z, y))(x.expand(3, 32, 8) if t is torch.func.vmap else x))
        for out in (torch.zeros(1, 8).expand(32, 8), np.broadcast_to(np.zeros(8), (32, 8)).copy().T):
            error(lambda out=out: session.step(X, Y, out=out), "out")
        sliding = np.lib.stride_tricks.as_strided(np.zeros(64, np.float32), (32, 8), (4, 4))
        error(lambda: session.step(X, Y, out=sliding), "share memory")
        for out in (torch.zeros(8, 32).T, torch.zeros(64, 16)[::2, ::2], np.zeros((32, 8))[::-1, ::-1]):
            session.step(X, Y, out=out)
            assert np.any(np.asarray(out))
        one = sidecar.session()
        assert one.step(X[:1], Y[:1], out=np.broadcast_to(np.zeros(8, np.float32), (1, 8)).copy()).value == 0


class SpecAlignOf(SpecAlign):
    """One that closes at the end of a block."""

    def __init__(self, sidecar: specalign.Sidecar) -> None:
        super().__init__(sidecar=sidecar)

    def __enter__(self) -> SpecAlignOf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_arguments_of_the_loss(sidecar: specalign.Sidecar) -> None:
    x, y = torch.tensor(X), torch.tensor(Y)
    for value in (1e300, 1e16, "x", None, True, float("nan"), 10**400, torch.tensor([1.0, 2.0])):
        error(lambda value=value: SpecAlign(value), "weight is ")
        error(lambda value=value: penalty(x, y, weight=value), "weight is ")
    error(lambda: SpecAlign(sidecar=5), "sidecar is 5")  # type: ignore[arg-type]
    error(lambda: penalty(x, y, session=5), "session is 5")  # type: ignore[arg-type]
    error(lambda: SpecAlign(max_failures=0), "max_failures is 0")
    with SpecAlignOf(sidecar) as loss_fn:
        loss_fn.weight = torch.tensor(2.0)  # type: ignore[assignment]
        assert loss_fn(x, y) == 2 * loss_fn.last.value  # type: ignore[union-attr]
        learned = torch.nn.Parameter(torch.tensor(2.0))
        error(lambda: SpecAlign(learned), "weight is a tensor that wants a gradient")  # type: ignore[arg-type]
        loss_fn.weight = "x"  # type: ignore[assignment]
        error(lambda: loss_fn(x, y), "weight is 'x'")


def test_state(sidecar: specalign.Sidecar) -> None:
    for value, part in ((None, "None"), ("x", "'x'"), (b"x", "cut off"), (b"x" * 100, "no state")):
        with sidecar.session() as session:
            error(lambda session=session, value=value: session.restore(value), part)
            assert session.step(X, Y).seq == 1
