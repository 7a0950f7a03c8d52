"""The loss for PyTorch: gradients, precisions, scaling, accumulation, compilation, copies."""

from __future__ import annotations

import copy
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import reference as ref
import torch
from batches import clustered
from torch import nn

import specalign
import specalign.torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def features(rng):
    student, reference = (torch.from_numpy(x) for x in clustered(rng, 96, 40, 56))
    return student.requires_grad_(), reference


@pytest.fixture
def loss_fn(sidecar):
    loss_fn = specalign.torch.SpecAlign(weight=2.0, sidecar=sidecar, k=3, tolerance=1e-6)
    yield loss_fn
    loss_fn.close()


def exact(student, reference, k=3):
    value, grad, _ = ref.ky_fan(student.detach().double().numpy(), reference.double().numpy(), k)
    return value, grad


def test_value_and_gradient(loss_fn, features):
    student, reference = features
    value, grad = exact(student, reference)
    loss = loss_fn(student, reference)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    (3 * loss).backward()
    assert loss.item() == pytest.approx(2 * value, rel=1e-5)
    assert ref.relative(student.grad, 6 * grad) <= 1e-4
    assert loss_fn.last.value == pytest.approx(value, rel=1e-5)
    assert reference.grad is None
    assert not list(loss_fn.parameters())
    assert not loss_fn.state_dict()
    assert "weight=2.0, k=3" in repr(loss_fn).replace("sidecar", "")


def test_through_a_network_and_normalisation(loss_fn, features):
    x, reference = features
    tower = nn.Linear(40, 12)
    z = nn.functional.normalize(tower(x), dim=-1)
    loss_fn(z, reference).backward()
    z2 = nn.functional.normalize(tower(x), dim=-1).detach()
    _, grad = exact(z2, reference)
    tower2 = copy.deepcopy(tower)
    tower2.zero_grad()
    nn.functional.normalize(tower2(x), dim=-1).backward(torch.from_numpy(2 * grad).float())
    assert ref.relative(tower.weight.grad, tower2.weight.grad) <= 1e-4


def test_no_gradient_flows_to_the_reference(loss_fn, features):
    student, reference = features
    reference.requires_grad_()
    loss_fn(student, reference).backward()
    assert reference.grad is None
    assert loss_fn(student, reference.detach().numpy()).requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_value(loss_fn, features, mode):
    with mode():
        loss = loss_fn(*features)
    assert not loss.requires_grad
    assert loss_fn.last.grad is None
    assert loss.item() == pytest.approx(2 * exact(*features)[0], rel=1e-5)
    assert not loss_fn(features[0].detach(), features[1]).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(loss_fn, features, dtype):
    student = features[0].detach().to(dtype).requires_grad_()
    value, grad = exact(student, features[1])
    loss = loss_fn(student, features[1])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * value, rel=1e-5)
    (1024 * loss).backward()
    assert student.grad.dtype == dtype
    assert ref.relative(student.grad.double(), 2048 * grad) <= 1e-4 + {torch.float16: 1e-3, torch.bfloat16: 4e-3}.get(
        dtype, 0
    )


def test_autocast(loss_fn, features):
    """In bfloat16 the eigenvalues would be wrong in the third digit."""
    x, reference = features
    tower = nn.Linear(40, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = tower(x)
        assert z.dtype == torch.bfloat16
        loss = loss_fn(z, reference)
        total = loss + z.float().square().mean()
    total.backward()
    assert loss.item() == pytest.approx(2 * exact(z, reference)[0], rel=1e-5)
    assert tower.weight.grad.dtype == torch.float32


def test_grad_scaler_rescues_small_half_gradients(sidecar, features):
    """Gradients that underflow in float16 survive, since the scale comes before the rounding."""
    parameter = features[0].detach().clone().requires_grad_()
    student = parameter.half()  # as under float16 autocast
    student.retain_grad()
    loss_fn = specalign.torch.SpecAlign(weight=1e-6, sidecar=sidecar, k=3, tolerance=1e-6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    before = parameter.detach().clone()
    scaler.scale(loss_fn(student, features[1])).backward()
    _, grad = exact(student, features[1])
    assert (1e-6 * torch.from_numpy(grad)).half().count_nonzero() < student.numel() / 2  # what unscaled ones would be
    assert ref.relative(student.grad.double(), 2.0**20 * 1e-6 * grad) <= 2e-3
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**20  # nothing overflowed
    assert ref.relative(parameter.grad, 1e-6 * grad) <= 2e-3
    assert torch.equal(parameter, before - parameter.grad)


def test_accumulation(loss_fn, features):
    student, reference = features
    halves = [(student[:48], reference[:48]), (student[48:], reference[48:])]
    losses = [loss_fn(*h) for h in halves]  # both forwards before the first backward
    for loss in losses:
        loss.backward()
    want = np.concatenate([exact(*h)[1] for h in halves])
    assert ref.relative(student.grad, 2 * want) <= 1e-4
    student.grad = None
    loss = loss_fn(student, reference)
    loss.backward(retain_graph=True)
    once = student.grad.clone()
    loss.backward()
    assert torch.equal(student.grad, 2 * once)


def test_weight_zero_and_changing_weight(loss_fn, features):
    loss_fn.weight = 0.0
    loss = loss_fn(*features)
    loss.backward()
    assert loss.item() == 0
    assert not features[0].grad.any()
    loss_fn.weight = 0.5
    assert loss_fn(*features).item() == pytest.approx(0.5 * loss_fn.last.value)


def test_submit_and_wait(loss_fn, features):
    student, reference = features
    handle = loss_fn.submit(student, reference)
    loss = loss_fn.wait(handle)
    loss.backward()
    value, grad = exact(student, reference)
    assert loss.item() == pytest.approx(2 * value, rel=1e-5)
    assert ref.relative(student.grad, 2 * grad) <= 1e-4
    with torch.no_grad():
        handle = loss_fn.submit(student, reference)
    assert not loss_fn.wait(handle).requires_grad


def test_double_backward_is_a_clear_error(loss_fn, features):
    student, reference = features
    (grad,) = torch.autograd.grad(loss_fn(student, reference), student, create_graph=True)
    with pytest.raises(specalign.Error, match="cannot be differentiated twice"):
        grad.square().sum().backward()
    for strict in (False, True):  # not strict: what the gradient does not seem to depend on counts as zero
        with pytest.raises(specalign.Error, match="cannot be differentiated twice"):
            torch.autograd.functional.hessian(lambda x: loss_fn(x, reference), student.detach(), strict=strict)


def test_forward_mode_is_a_clear_error(loss_fn, features):
    student, reference = features
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(student.detach(), student.detach())
        with pytest.raises(specalign.InputError, match="forward-mode"):
            loss_fn(dual, reference)


def test_wait_takes_what_submit_returned(loss_fn):
    with pytest.raises(specalign.InputError, match="handle is 3; give what submit returned"):
        loss_fn.wait(3)


def test_compile(loss_fn, features):
    x, reference = features
    tower = nn.Linear(40, 12)

    def step(x, reference):
        z = nn.functional.normalize(tower(x), dim=-1)
        return loss_fn(z, reference) + z.square().mean()

    want = step(x, reference)
    got = torch.compile(step, backend="aot_eager")(x, reference)
    assert torch.allclose(got, want, rtol=1e-5)
    got.backward()
    assert tower.weight.grad.abs().sum() > 0
    compiled = torch.compile(loss_fn, backend="aot_eager")
    assert torch.allclose(compiled(x, reference), loss_fn(x, reference), rtol=1e-5)


def test_copies_take_the_settings_along(loss_fn, features):
    want = loss_fn(*features).item()
    for other in (copy.deepcopy(loss_fn), pickle.loads(pickle.dumps(loss_fn))):
        assert other.last is None
        assert other(*features).item() == pytest.approx(want, rel=1e-5)
        other.close()
    assert nn.ModuleList([loss_fn]).half()[0](*features).item() == pytest.approx(want, rel=1e-5)


def test_bad_input(loss_fn, features):
    student, reference = features
    bad = student.detach().clone()
    bad[5] = float("nan")
    with pytest.raises(specalign.InputError, match="row 5"):
        specalign.torch.SpecAlign(max_failures=1)(bad.requires_grad_(), reference)
    for weight in (float("nan"), float("inf")):
        with pytest.raises(specalign.InputError, match=f"weight is {weight}"):
            specalign.torch.SpecAlign(weight)
        other = specalign.torch.SpecAlign()
        other.weight = weight
        with pytest.raises(specalign.InputError, match=f"weight is {weight}"):
            other(student, reference)
    for most in (0, True, 1.5):
        with pytest.raises(specalign.InputError, match="max_failures is"):
            specalign.torch.SpecAlign(max_failures=most)
    with pytest.raises(specalign.InputError, match="rows"):
        loss_fn(student, reference[1:])
    with pytest.raises(specalign.InputError, match="student is a ndarray"):
        loss_fn(student.detach().numpy(), reference)
    with pytest.raises(specalign.InputError, match="kernle"):
        specalign.torch.SpecAlign(kernle="cosine")(student, reference)
    assert loss_fn(student, reference).item() > 0


@pytest.mark.parametrize("overlapped", [False, True])
def test_failures_are_zero_then_stop(features, caplog, overlapped):
    student, reference = features
    loss_fn = specalign.torch.SpecAlign(max_failures=3, k=3)
    bad = student.detach().clone()
    bad[5] = float("nan")
    bad.requires_grad_()

    def step(x):
        return loss_fn.wait(loss_fn.submit(x, reference)) if overlapped else loss_fn(x, reference)

    with torch.no_grad():
        assert step(bad).item() == 0
    assert step(student).item() > 0
    for _ in range(2):  # two failures and a success: never three in a row
        for _ in range(2):
            loss = step(bad)
            loss.backward()
            assert loss.item() == 0
            assert not bad.grad.any()
            assert loss_fn.last is None
            assert "row 5 of the student features is not finite" in loss_fn.failure
        assert step(student).item() > 0
        assert loss_fn.failure is None
        assert loss_fn.last is not None
    assert "(1 of 3 in a row): row 5" in caplog.text
    step(bad)
    step(bad)
    with pytest.raises(specalign.Error, match=r"failed 3 times in a row \(max_failures=3\); the last time: .*row 5"):
        step(bad)


def test_features_may_change_before_the_backward_pass(loss_fn, features):
    student, reference = features
    z = student * 1
    loss = loss_fn(z, reference)
    z.zero_()
    loss.backward()
    assert ref.relative(student.grad, 2 * exact(student, reference)[1]) <= 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_another_streams_work_is_waited_for(sidecar, features):
    student, reference = (x.detach().cuda() for x in features)
    with sidecar.session(k=3) as session:
        want = session.step(student, reference)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        for _ in range(5):
            with torch.cuda.stream(stream):
                out = torch.empty_like(student)
                first = session.submit(student, reference)  # keeps the session busy
                torch.cuda._sleep(100_000_000)
                late = student * 1  # not there before the sleep is over
                out.fill_(7)
                future = session.submit(late, reference, out)
            first.result(30)
            got = future.result(30)
            assert got.value == pytest.approx(want.value, rel=1e-5)
            assert torch.allclose(out, want.grad, rtol=1e-3)


def test_function(sidecar, features):
    value, grad = exact(*features)
    loss = specalign.torch.penalty(*features, weight=3.0, k=3, tolerance=1e-6)
    loss.backward()
    assert loss.item() == pytest.approx(3 * value, rel=1e-5)
    assert ref.relative(features[0].grad, 3 * grad) <= 1e-4
    with sidecar.session(k=3) as session:
        assert specalign.torch.penalty(*features, session=session).item() == pytest.approx(value, rel=1e-4)
        with pytest.raises(specalign.InputError, match="beside a session"):
            specalign.torch.penalty(*features, session=session, k=3)
        assert session.steps == 1


def test_training_loop_example(capsys):
    """It lowers task loss and penalty."""
    history = runpy.run_path(str(EXAMPLES / "train_loop.py"))["main"](steps=60)
    assert history[-1][0] < history[0][0]
    assert history[-1][1] < 0.7 * history[0][1]
    assert "penalty" in capsys.readouterr().out


def test_overlap_example(capsys):
    """The sidecar works while the other tower runs."""
    overlap = runpy.run_path(str(EXAMPLES / "overlap.py"))["main"](rows=256, steps=3)
    out = capsys.readouterr().out
    assert "sidecar" in out
    assert "text tower" in out
    assert 0 < overlap <= 1
