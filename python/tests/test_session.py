"""Steps: figures against float64, types, memory, errors of the caller, order."""

from __future__ import annotations

import pickle
import threading

import ml_dtypes
import numpy as np
import pytest
import reference as ref
import torch
import torch.masked
from batches import SLOW, clustered
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._functional_collectives import AsyncCollectiveTensor

import specalign
import specalign.torch


def test_value_and_gradient_are_those_of_float64(sidecar, batch):
    student, reference = batch
    value, grad, eigenvalues = ref.ky_fan(student, reference, 3)
    assert 1 - abs(eigenvalues[3] / eigenvalues[2]) > 1e-2  # well determined
    with sidecar.session(k=3, tolerance=1e-6) as session:
        r = session.step(student, reference)
    assert abs(r.value - value) <= 1e-5 * value
    assert ref.relative(r.grad, grad) <= 1e-4
    assert np.allclose(r.eigenvalues, eigenvalues[:4], atol=1e-6)
    assert r.gap == pytest.approx(abs(eigenvalues[2]) - abs(eigenvalues[3]), abs=1e-6)
    assert r.gradient_norm == pytest.approx(np.linalg.norm(grad), rel=1e-3)
    assert r.grad.dtype == np.float32
    assert r.converged
    assert r.products > 0
    assert r.parts == (pytest.approx(r.value),)
    assert (r.zero_rows, r.warnings, r.seq, r.restarts) == (0, (), 1, 0)
    assert r.device == "cpu"
    assert r.isa
    assert r.route
    assert 0 < r.seconds < 60
    assert r.sigma == (None, None)


def test_gaussian_with_given_bandwidth(sidecar, batch):
    student, reference = batch
    value, grad, _ = ref.ky_fan(student, reference, 2, "gaussian", 6.0)
    with sidecar.session(kernel="gaussian", sigma=6, k=2, tolerance=1e-6, approximation="exact") as session:
        r = session.step(student, reference)
    assert abs(r.value - value) <= 1e-5 * value
    assert ref.relative(r.grad, grad) <= 1e-4
    assert r.sigma == (6.0, 6.0)
    assert r.approximation == "exact"


def test_terms(sidecar, batch):
    terms = [{"objective": "ky_fan", "k": 2, "weight": 1.0}, {"objective": "relational_kl", "weight": 0.5}]
    with sidecar.session(terms=terms) as session:
        r = session.step(*batch)
    assert len(r.parts) == 2
    assert r.value == pytest.approx(r.parts[0] + 0.5 * r.parts[1])


def test_an_objective_without_spectrum(sidecar, batch):
    with sidecar.session(objective="frobenius") as session:
        r = session.step(*batch)
    assert r.eigenvalues is r.gap is r.residual is r.gradient_error is None
    assert "frobenius" in session.settings.values()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_every_type_goes_in_and_comes_back(sidecar, batch, dtype, kind):
    if kind == "torch":
        student, reference = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in batch)
        exact = [x.double().numpy() for x in (student, reference)]
    else:
        student, reference = (x.astype(getattr(ml_dtypes, dtype, dtype)) for x in batch)
        exact = [x.astype(np.float64) for x in (student, reference)]
    value, grad, _ = ref.ky_fan(*exact, 3)
    with sidecar.session(k=3, tolerance=1e-6) as session:
        r = session.step(student, reference)
        full = np.empty(grad.shape, np.float32)
        again = session.step(student, reference, out=full)
    assert type(r.grad) is type(student)
    assert r.grad.dtype == student.dtype
    assert abs(r.value - value) <= 1e-5 * value
    got = r.grad.double().numpy() if kind == "torch" else r.grad.astype(np.float64)
    rounding = {"float16": 2e-3, "bfloat16": 4e-3}.get(dtype, 0)
    assert ref.relative(got, grad) <= 1e-4 + rounding
    assert again.grad is full
    assert ref.relative(full, grad) <= 1e-4


def test_any_strides_go_in(sidecar, batch):
    student, reference = batch
    with sidecar.session() as session:
        plain = session.step(student, reference)
    wide = np.zeros((96, 80), np.float32)
    wide[:, ::2] = student
    variants = [
        (wide[:, ::2], np.asfortranarray(reference)),
        (student[::-1][::-1], reference.astype(">f4")),
        (torch.from_numpy(wide)[:, ::2], torch.from_numpy(reference).T.contiguous().T),
        (student.tolist(), reference.tolist()),
    ]
    for s, t in variants:
        with sidecar.session() as session:
            r = session.step(s, t)
        assert r.value == plain.value
        assert np.array_equal(np.asarray(r.grad, np.float32), plain.grad)


def test_out_takes_strides_and_types(sidecar, batch):
    with sidecar.session() as session:
        plain = session.step(*batch)
    for out in (
        np.zeros((40, 96), np.float64).T,
        torch.zeros(96, 80)[:, ::2],
        torch.zeros(96, 40, dtype=torch.float64),
    ):
        with sidecar.session() as session:
            r = session.step(*batch, out=out)
        assert r.grad is out
        assert np.array_equal(np.asarray(out), plain.grad)


def test_the_gradient_belongs_to_the_caller(sidecar, batch):
    with sidecar.session() as session:
        first = session.step(*batch)
        kept = first.grad.copy()
        session.step(batch[0][::-1], batch[1])
        assert np.array_equal(first.grad, kept)


def test_grad_false_gives_the_value_only(sidecar, batch):
    with sidecar.session() as session:
        r = session.step(*batch, grad=False)
        assert r.grad is None
        assert r.value == pytest.approx(session.step(*batch).value, rel=1e-6)


def test_equal_inputs_give_zero(sidecar, batch):
    with sidecar.session() as session:
        r = session.step(batch[0], batch[0])
    assert r.value == pytest.approx(0, abs=1e-6)
    assert np.all(np.isfinite(r.grad))


def test_batches_of_any_size_in_turn(sidecar, rng):
    with sidecar.session(k=2, tolerance=1e-6) as session:
        for n, d1, d2 in ((1, 3, 4), (7, 5, 3), (300, 64, 96), (2, 1, 1), (128, 200, 10), (300, 64, 96)):
            student, reference = clustered(rng, n, d1, d2)
            value, _, _ = ref.ky_fan(student, reference, 2)
            assert session.step(student, reference).value == pytest.approx(value, abs=2e-6)


def test_growing_keeps_the_bandwidth(sidecar, rng):
    """The state moves along into the larger arena."""
    small, large = clustered(rng, 32, 20, 24), clustered(rng, 512, 20, 24)
    with sidecar.session(kernel="gaussian", objective="frobenius") as session:
        first = session.step(*small)
        assert session.step(*large).sigma == first.sigma
    with sidecar.session(kernel="gaussian", objective="frobenius") as session:
        assert session.step(*large).sigma != first.sigma


def test_steps_are_deterministic(sidecar, rng):
    batches = [clustered(rng, 64, 24, 32) for _ in range(4)]
    runs = []
    for _ in range(2):
        with sidecar.session(k=5) as session:
            runs.append([session.step(*b) for b in batches])
    for a, b in zip(*runs, strict=True):
        assert a.value == b.value
        assert np.array_equal(a.grad, b.grad)


def test_zero_rows_are_counted(sidecar, batch):
    student, reference = batch
    student[5] = 0
    with sidecar.session() as session:
        r = session.step(student, reference)
    assert r.zero_rows == 1
    assert not r.grad[5].any()
    assert "zero_rows=1" in repr(r)


def test_repr_is_short_and_says_it(sidecar, batch):
    with sidecar.session(k=5) as session:
        text = repr(session.step(*batch))
        assert "1 steps" in repr(session)
    assert len(text) < 500
    for word in ("value=", "eigenvalues=", "gap=", "converged in", "(96, 40) float32", "cpu"):
        assert word in text


class TestBadInput:
    """One clear InputError, and the session goes on."""

    @pytest.fixture(autouse=True)
    def _session(self, sidecar, batch):
        self.student, self.reference = (x.copy() for x in batch)
        self.sidecar = sidecar
        with sidecar.session() as self.session:
            before = self.session.step(*batch)
            yield
            assert self.session.step(*batch).value == pytest.approx(before.value, rel=1e-6)

    def refused(self, student, reference, match, **kw):
        for call in (self.session.step, lambda *a, **k: self.session.submit(*a, **k).result(30)):
            with pytest.raises(specalign.InputError, match=match) as e:
                call(student, reference, **kw)
            assert isinstance(e.value, ValueError)
            assert "\n" not in str(e.value)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("side", ["student", "reference"])
    def test_a_row_that_is_not_finite(self, bad, side):
        getattr(self, side)[17, 3] = bad
        self.refused(self.student, self.reference, f"row 17 of the {side}.* not finite")

    def test_shapes(self):
        self.refused(self.student[:-1], self.reference, "student has 95 rows, reference 96")
        self.refused(self.student[0], self.reference, r"student has shape \(40,\)")
        self.refused(self.student, self.reference[None], r"reference has shape \(1, 96, 56\)")
        self.refused(self.student[:0], self.reference[:0], "row|empty")
        self.refused(self.student[:, :0], self.reference, "column|dim|empty")

    def test_types(self):
        self.refused(self.student.astype(np.int32), self.reference, "student has dtype int32")
        self.refused(self.student, self.reference.astype(complex), "reference has dtype complex128")
        self.refused(self.student, [[1.0], [2.0, 3.0]], "reference is no array")
        self.refused(torch.zeros(96, 40, dtype=torch.int64), self.reference, "student has dtype int64")
        self.refused(torch.zeros(96, 40).to_sparse(), self.reference, "sparse")
        self.refused(torch.zeros(96, 40, device="meta"), self.reference, "meta")
        self.refused(np.ma.masked_array(self.student), self.reference, "masked")

    @pytest.mark.filterwarnings("ignore")  # of prototypes
    def test_tensors_whose_data_are_elsewhere(self):
        x = torch.from_numpy(self.student)
        fake = FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x)
        freed = x.clone()
        freed.untyped_storage().resize_(0)
        for bad, match in (
            (torch.masked.masked_tensor(x, x > 0), "MaskedTensor"),
            (fake, "FakeTensor"),
            (torch.zeros(96, 40).to_sparse_csr(), "sparse_csr"),
            (torch.nn.UninitializedParameter(), "not initialized"),
            (freed, "no data of its own"),
            (torch._efficientzerotensor((96, 40)), "no data of its own"),
            (torch._to_functional_tensor(x), "no data of its own"),
        ):
            self.refused(bad, self.reference, f"student .*{match}")
            self.refused(self.reference, bad, f"reference .*{match}")
            with pytest.raises(specalign.InputError, match=f"reference .*{match}"):
                specalign.torch.SpecAlign(sidecar=self.sidecar)(x, bad)
        gathered = AsyncCollectiveTensor(x)
        right = self.session.step(x, self.reference).value
        assert self.session.step(gathered, self.reference).value == pytest.approx(right, rel=1e-6)

    def test_objects_that_say_how_to_be_arrays(self):
        class Says:
            def __init__(self, how):
                self.how = how

            def __array__(self, dtype=None, copy=None):
                return self.how()

        def fails():
            raise OSError("the disk\nis gone")

        class Endless:
            def __len__(self):
                return 9

            def __getitem__(self, i):
                return self

        right = self.session.step(self.student, self.reference).value
        said = self.session.step(Says(lambda: self.student), Says(lambda: self.reference))
        assert said.value == pytest.approx(right, rel=1e-6)
        masked = np.ma.masked_array(self.student, self.student > 1)
        for bad, match in (
            (Says(fails), "no array: the disk$"),
            (Says(lambda: None), "no array"),
            (Says(lambda: masked), "masked"),
            (list(masked), "masked"),
            (Endless(), "Endless; give a NumPy array"),
            ({}, "dict; give a NumPy array"),
            (None, "NoneType; give a NumPy array"),
        ):
            self.refused(bad, self.reference, f"student is .*{match}")
            self.refused(self.student, bad, f"reference is .*{match}")

    def test_out(self):
        self.refused(self.student, self.reference, "out has shape", out=np.zeros((96, 41), np.float32))
        self.refused(self.student, self.reference, "out has dtype int64", out=np.zeros((96, 40), np.int64))
        self.refused(self.student, self.reference, "out is a list", out=[])
        frozen = np.zeros((96, 40))
        frozen.flags.writeable = False
        self.refused(self.student, self.reference, "read-only", out=frozen)

    def test_timeout(self):
        self.refused(self.student, self.reference, "timeout is 0", timeout=0)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kernell": "cosine"}, "kernell"),
        ({"kernel": "cubic"}, "kernel"),
        ({"k": 0.5}, "k"),
        ({"k": -3}, "k is -3"),
        ({"sigma": 3}, "sigma"),
        ({"tolerance": float("nan")}, "settings"),
        ({"objective": "ky_fan", "terms": [{"objective": "ky_fan", "weight": 1}]}, "terms"),
        ({"k": object()}, "object"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_settings_are_refused_at_once(sidecar, settings, match):
    with pytest.raises(specalign.InputError, match=match) as e:
        sidecar.session(**settings)
    assert "\n" not in str(e.value)


def test_numpy_scalars_and_none_are_settings(sidecar):
    with sidecar.session(k=np.int64(4), eta=np.float32(0.5), sigma=None) as session:
        assert session.settings["eta"] == 0.5


class TestSubmit:
    def test_it_is_a_future_of_the_same(self, sidecar, batch):
        with sidecar.session() as a, sidecar.session() as b:
            want, future = a.step(*batch), b.submit(*batch)
            got = future.result(30)
        assert got.value == want.value
        assert np.array_equal(got.grad, want.grad)

    def test_rows_may_be_overwritten_at_once(self, sidecar, rng):
        batches = [clustered(rng, 64, 24, 32) for _ in range(6)]
        with sidecar.session(k=5) as session:
            want = [session.step(*b) for b in batches]
        with sidecar.session(k=5) as session:
            futures = []
            for i, (student, reference) in enumerate(batches):
                s, t = student.copy(), torch.from_numpy(reference.copy())
                futures.append(session.submit(s, t))
                s[:] = np.nan
                t[:] = float("nan")
                if i == 3:
                    middle = session.step(*batches[0])
            got = [f.result(30) for f in futures]
        assert [r.seq for r in got] == [1, 2, 3, 4, 6, 7]
        assert middle.seq == 5
        for a, b in zip(want[:4], got[:4], strict=True):
            assert a.value == b.value
            assert np.array_equal(a.grad, b.grad)

    def test_sizes_may_change_in_flight(self, sidecar, rng):
        batches = [clustered(rng, n, 24, 32) for n in (16, 700, 5, 256)]
        with sidecar.session(k=2, tolerance=1e-6) as session:
            futures = [session.submit(*b) for b in batches]
            for b, f in zip(batches, futures, strict=True):
                assert f.result(30).value == pytest.approx(ref.ky_fan(*b, 2)[0], abs=2e-6)

    def test_an_error_stays_with_its_step(self, sidecar, batch):
        bad = batch[0].copy()
        bad[2] = np.nan
        with sidecar.session() as session:
            futures = [session.submit(s, batch[1]) for s in (batch[0], bad, batch[0])]
            assert futures[0].result(30).seq == 1
            with pytest.raises(specalign.InputError, match="row 2"):
                futures[1].result(30)
            assert futures[2].result(30).value == pytest.approx(futures[0].result().value, rel=1e-6)

    def test_callbacks_may_use_the_session(self, sidecar, batch, rng):
        seen, told = [], threading.Event()

        def callback(_):
            seen.append(session.step(*batch).seq)
            seen.append(len(session.state()) > 0)
            told.set()
            raise SystemExit  # it ends a thread

        with sidecar.session(**SLOW) as session:
            first, second = session.submit(*clustered(rng, 1500, 64, 64)), session.submit(*batch)
            first.add_done_callback(callback)
            assert [f.result(30).seq for f in (first, second)] == [1, 2]
            assert told.wait(30)
            assert seen == [3, True]
            assert session.submit(*batch).result(30).seq == 4

    def test_threads_may_share_a_session(self, sidecar, batch):
        with sidecar.session() as session:
            values = []

            def work():
                for i in range(5):
                    r = session.step(*batch) if i % 2 else session.submit(*batch).result(30)
                    values.append(r.value)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join(60)
            assert session.steps == 20
        assert np.allclose(values, values[0], rtol=1e-5)

    def test_closing_ends_what_waits(self, sidecar, rng):
        big = clustered(rng, 1500, 64, 64)
        session = sidecar.session(**SLOW)
        futures = [session.submit(*big) for _ in range(4)]
        session.close()
        session.close()
        assert futures[0].done()
        assert all(isinstance(f.exception(), specalign.ClosedError) for f in futures[2:])
        with pytest.raises(specalign.ClosedError):
            session.step(*big)
        with pytest.raises(specalign.ClosedError):
            session.submit(*big)


def test_pickling_is_refused(sidecar, batch):
    with sidecar.session() as session:
        for thing in (sidecar, session):
            with pytest.raises(specalign.ProcessError, match="cannot be pickled"):
                pickle.dumps(thing)


def test_penalty_stands_for_itself(batch):
    a, b = specalign.penalty(*batch, k=3), specalign.penalty(*batch, k=3)
    assert a.value == b.value == pytest.approx(ref.ky_fan(*batch, 3)[0], rel=1e-5)
    assert a.seq == b.seq == 1


def test_sessions_that_nobody_holds_are_closed(sidecar, batch):
    before = sidecar.status().sessions
    for _ in range(5):
        sidecar.session().step(*batch)
    with sidecar.session() as session:
        session.step(*batch)
        assert sidecar.status().sessions <= before + 2


def test_state_moves_to_another_session(sidecar, batch, rng):
    settings = {"kernel": "gaussian", "objective": "ky_fan", "k": 4}
    other = [x + 0.1 * rng.standard_normal(x.shape).astype(x.dtype) for x in batch]
    with sidecar.session(**settings) as first, sidecar.session(**settings) as second:
        first.step(*batch)
        state = first.state()
        want = first.step(*other)
        second.restore(state)
        assert second.steps == 1
        got = second.step(*other)
        assert (got.value, got.sigma, got.products) == (want.value, want.sigma, want.products)
        assert np.array_equal(got.grad, want.grad)
        with pytest.raises(specalign.InputError, match="before its first step, not after 2"):
            second.restore(state)


def test_a_restored_session_is_one(batch):
    with specalign.Sidecar(device="cpu") as sidecar:
        with sidecar.session() as first:
            first.step(*batch)
            state = first.state()
        with sidecar.session(objective="ky_fan", k=7) as other, pytest.raises(specalign.InputError):
            other.restore(state)
        assert sidecar.status().sessions == 0
        session = sidecar.session()
        session.restore(state)
        assert sidecar.status().sessions == 1
        session.close()
        assert sidecar.status().sessions == 0


def test_states_that_cannot_be_used(sidecar, batch):
    with sidecar.session(objective="ky_fan", k=4) as session:
        session.step(*batch)
        state = session.state()
    bad = bytearray(state)
    bad[-40] ^= 1
    slots = bytearray(state)
    slots[len(state) - len(state) // 2 :] = bytes(len(state) // 2)
    with sidecar.session(objective="ky_fan", k=4) as fresh, sidecar.session(objective="ky_fan", k=5) as another:
        for what in (b"", state[:-1], b"x" * len(state), bytes(slots)):
            with pytest.raises(specalign.InputError, match="state"):
                fresh.restore(what)
        with pytest.raises(specalign.InputError, match="other settings"):
            another.restore(state)
        assert fresh.step(*batch).seq == another.step(*batch).seq == 1  # they are as they were
