"""The loss against autograd: what OpenCLIP's loop does with it, with and without accumulation."""

import numpy as np
import pytest
import torch

from specalign.openclip._balance import Balance
from specalign.openclip._config import Ratio, Target
from specalign.openclip._loader import Loader, Window, WithRows
from specalign.openclip._loss import KEY, Loss
from specalign.openclip._penalty import Aligned, Penalty, RunStoppedError

N, D, BATCH = 24, 6, 8


class Rows:
    """A source that knows samples by their rows."""

    keyed = True
    keeps_images = False

    def __init__(self, table):
        self.table = table

    def keys(self, window, student):
        return window.keys

    def rows(self, keys):
        return self.table[keys], None


def aligned(session, table, side="image", weight=1.0):
    return Aligned(Target("store", "table", side, weight, {}), Rows(table), session)


def wrapped(penalty, window, weight=lambda _: 1.0, told=lambda *_: None, inner=None, **options):
    loss = Loss(inner or task, penalty, **options)
    loss.begin(window, weight, told)
    return loss


@pytest.fixture
def rows(rng):
    return rng.standard_normal((N, 5)).astype(np.float32)


@pytest.fixture
def penalty(sidecar, rows):
    return Penalty([aligned(sidecar.session(objective="frobenius"), rows)], max_failures=3)


def exact(student, reference):
    """The squared Frobenius norm of the difference of the cosine kernel matrices over n."""

    def kernel(x):
        x = torch.nn.functional.normalize(x.double())
        return x @ x.T / len(x)

    return (kernel(student) - kernel(torch.as_tensor(reference))).square().sum()


def task(image_features, text_features, logit_scale, output_dict):
    return {"contrastive_loss": (image_features * text_features).sum() * logit_scale}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_gradient(penalty, rows, accumulate, workers):
    torch.manual_seed(1)
    images, texts = torch.randn(N, 4), torch.randn(N, D)
    tower = torch.nn.Linear(4, D)
    told = []
    window = Window(accumulate, keep=False)
    loss = wrapped(penalty, window, lambda number: 0.5 + number, lambda w, step: told.append((w.number, step.failure)))
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, texts), batch_size=BATCH, num_workers=workers
    )
    with WithRows(data):
        batches, features = [], []
        for i, (x, t) in enumerate(Loader(data, window)):
            with torch.no_grad():
                features.append(tower(x))
            batches.append((x, t))
            if len(batches) < accumulate:
                continue
            tower.zero_grad()
            for j, (x, _) in enumerate(batches):
                f = torch.cat([*features[:j], tower(x), *features[j + 1 :]])
                t = torch.cat([t for _, t in batches])
                losses = loss(image_features=f, text_features=t, logit_scale=torch.ones(()), output_dict=True)
                assert list(losses) == ["contrastive_loss", KEY]
                sum(losses.values()).backward()
            got = tower.weight.grad.clone()

            tower.zero_grad()
            x, t = (torch.cat(parts) for parts in zip(*batches, strict=True))
            start = (i + 1 - accumulate) * BATCH
            f = tower(x)
            value = exact(f, rows[start : start + len(x)])
            total = (f * t).sum() + (0.5 + window.number) * value
            total.backward()
            assert losses[KEY].item() == pytest.approx((0.5 + window.number) * value.item(), rel=1e-5)
            assert torch.linalg.norm(got - tower.weight.grad) < 1e-5 * torch.linalg.norm(tower.weight.grad)
            batches, features = [], []
    assert told == [(i, None) for i in range(N // BATCH // accumulate)]
    assert isinstance(data.dataset, torch.utils.data.TensorDataset)


def test_weight_zero_asks_for_no_gradient(penalty):
    window = Window(1, keep=False)
    window.add(torch.arange(N), torch.empty(0), torch.empty(0))
    loss = wrapped(penalty, window, lambda _: 0.0)
    f = torch.randn(N, D, requires_grad=True)
    losses = loss(image_features=f, text_features=f.detach(), logit_scale=torch.ones(()), output_dict=True)
    assert losses[KEY].item() == 0
    assert not losses[KEY].requires_grad
    assert window.value.results[0].value > 0
    assert window.value.results[0].grad is None


def test_failures_are_zero_then_stop(penalty, caplog):
    window = Window(1, keep=False)
    steps = []
    loss = wrapped(penalty, window, told=lambda _, step: steps.append(step))

    def step(features):
        window.add(torch.arange(N), torch.empty(0), torch.empty(0))
        return loss(image_features=features, text_features=features, logit_scale=torch.ones(()), output_dict=True)[KEY]

    good = torch.randn(N, D, requires_grad=True)
    bad = good.detach().clone()
    bad[5, 0] = float("nan")
    bad.requires_grad_()
    for _ in range(2):  # two failures, a success, two failures: never three in a row
        assert step(bad).item() == 0
        assert step(bad).item() == 0
        assert step(good).item() > 0
    assert "row 5 of the student features is not finite" in steps[0].failure
    assert "1 of 3 in a row" in caplog.text
    step(bad)
    step(bad)
    with pytest.raises(RunStoppedError, match=r"failed 3 times in a row.*row 5"):
        step(bad)


@pytest.mark.parametrize("where", ["keys", "rows"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), OSError(5, "I/O error"), MemoryError()]
)
def test_failures_of_any_kind_are_zero_and_logged_whole(penalty, caplog, monkeypatch, where, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(penalty.aligned[0].source, where, fails)
    window = Window(1, keep=False)
    window.add(torch.arange(N), torch.empty(0), torch.empty(0))
    steps = []
    loss = wrapped(penalty, window, told=lambda _, step: steps.append(step))
    f = torch.randn(N, D, requires_grad=True)
    assert loss(image_features=f, text_features=f, logit_scale=torch.ones(()), output_dict=True)[KEY].item() == 0
    assert steps[0].failure.startswith(f"{type(error).__name__}: ")
    assert "in fails" in caplog.text


def test_a_ratio_that_cannot_be_measured_is_zero(sidecar, rows, monkeypatch):
    penalty = Penalty([aligned(sidecar.session(objective="frobenius"), rows)], 3, balance=Balance(Ratio(1.0, 0.5)))
    window = Window(1, keep=False)
    steps = []
    loss = wrapped(penalty, window, told=lambda _, step: steps.append(step))

    def step():
        window.add(torch.arange(N), torch.empty(0), torch.empty(0))
        f = torch.randn(N, D, requires_grad=True)
        return loss(image_features=f, text_features=f, logit_scale=torch.ones(()), output_dict=True)[KEY]

    assert step().item() > 0
    before = dict(penalty.balance.state)
    with monkeypatch.context() as patched:
        patched.setattr(torch.autograd, "grad", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
        value = step()
    assert (value.item(), value.requires_grad) == (0, False)
    assert steps[1].failure == "the gradients' norms cannot be measured: MemoryError: "
    assert (steps[1].weight, steps[1].results, penalty.balance.state) == (0, [], before)
    assert step().item() > 0
    assert penalty.failures == 0


def test_wrong_number_of_rows(penalty):
    window = Window(1, keep=False)
    window.add(torch.arange(N - 1), torch.empty(0), torch.empty(0))
    steps = []
    loss = wrapped(penalty, window, told=lambda _, step: steps.append(step))
    f = torch.randn(N, D, requires_grad=True)
    loss(image_features=f, text_features=f, logit_scale=torch.ones(()), output_dict=True)
    assert f"{N} image features, and the loader gave {N - 1}" in steps[0].failure


def test_a_loss_without_image_features(penalty):
    loss = wrapped(penalty, Window(1, False), inner=lambda audio: {})
    with pytest.raises(RunStoppedError, match="gets no image features"):
        loss(audio=torch.zeros(1))


@pytest.mark.parametrize(("accumulate", "amplify", "dtype"), [(1, 1.0, None), (3, 1.0, None), (1, 2.0**12, "half")])
def test_ratio(sidecar, rows, accumulate, amplify, dtype):
    """The gradients that reach the features, measured by autograd, are in the ratio asked for."""
    torch.manual_seed(1)
    x, y = torch.randn(N, D), torch.randn(N, D)
    sessions = [sidecar.session(objective="frobenius") for _ in range(2)]
    targets = [aligned(sessions[0], rows), aligned(sessions[1], rows, "text", 0.5)]
    settings = Ratio(1.0)
    penalty = Penalty(targets, 3, balance=Balance(settings))
    window = Window(accumulate, keep=False)
    loss = wrapped(penalty, window, lambda number: 0.4, amplify=lambda: amplify)
    for ids in torch.arange(N).chunk(accumulate):
        window.add(ids, torch.empty(0), torch.empty(0))
    for _ in range(accumulate):
        f, t = x.clone().requires_grad_(), y.clone().requires_grad_()
        one, other = (f.half(), t.half()) if dtype else (f, t)
        losses = loss(image_features=one, text_features=other, logit_scale=torch.full((), 1e-2), output_dict=True)
        ours = torch.autograd.grad(losses[KEY], (f, t), retain_graph=True)
        theirs = torch.autograd.grad(losses["contrastive_loss"], (f, t))
        norms = [float(torch.linalg.norm(torch.cat(g).double())) for g in (ours, theirs)]
        assert norms[0] / norms[1] == pytest.approx(0.4, rel=3e-3 if dtype else 1e-5)
        step = window.value
        assert losses[KEY].item() == pytest.approx(step.weight * step.value, rel=1e-6)
    balance = penalty.balance
    before = balance.state["unit"]
    assert balance.weight(0.4, float("inf"), 1.0) == pytest.approx(0.4 * before)  # a step that a GradScaler leaves out
    assert balance.weight(0.4, 1.0, 0.0) == pytest.approx(0.4 * before)


def test_smoothed_ratio():
    balance = Balance(Ratio(1.0, smoothing=0.5, max=3.0))
    assert balance.weight(0.5, 4.0, 2.0) == pytest.approx(1.0)
    assert balance.weight(0.5, 4.0, 8.0) == pytest.approx(0.5)  # half way, in logarithms, from 2 to 1/2
    assert Balance(balance._settings).weight(1.0, 100.0, 1e-9) == 3.0
