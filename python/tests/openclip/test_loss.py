"""The loss against autograd: what OpenCLIP's loop does with it, with and without accumulation."""

import numpy as np
import pytest
import torch

from specalign.openclip._loader import Loader, Window, WithIds
from specalign.openclip._loss import KEY, Loss, Penalty, RunStoppedError

N, D, BATCH = 24, 6, 8


class Rows:
    """A source whose ids are row numbers."""

    keeps_images = False

    def __init__(self, table):
        self.table = table

    def keys(self, window, student):
        return torch.cat(window.batches)

    def rows(self, keys):
        return self.table[keys]


@pytest.fixture
def rows(rng):
    return rng.standard_normal((N, 5)).astype(np.float32)


@pytest.fixture
def penalty(sidecar, rows):
    return Penalty(sidecar.session(objective="frobenius"), Rows(rows), max_failures=3)


def exact(student, reference):
    """The squared Frobenius norm of the difference of the cosine kernel matrices over n (MATH)."""

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
    window = Window(accumulate, keep_images=False)
    loss = Loss(
        task, penalty, window, lambda number: 0.5 + number, lambda w, step: told.append((w.number, step.failure))
    )
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, texts), batch_size=BATCH, num_workers=workers
    )
    with WithIds(data, np.arange(N)):
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
    assert not hasattr(data.dataset, "_ids")


def test_weight_zero_asks_for_no_gradient(penalty):
    window = Window(1, keep_images=False)
    window.add(torch.arange(N), torch.empty(0))
    loss = Loss(task, penalty, window, lambda _: 0.0, lambda *_: None)
    f = torch.randn(N, D, requires_grad=True)
    losses = loss(image_features=f, text_features=f.detach(), logit_scale=torch.ones(()), output_dict=True)
    assert losses[KEY].item() == 0
    assert not losses[KEY].requires_grad
    assert window.value.result.value > 0
    assert window.value.result.grad is None


def test_failures_are_zero_then_stop(penalty, caplog):
    window = Window(1, keep_images=False)
    steps = []
    loss = Loss(task, penalty, window, lambda _: 1.0, lambda _, step: steps.append(step))

    def step(features):
        window.add(torch.arange(N), torch.empty(0))
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

    monkeypatch.setattr(penalty._source, where, fails)
    window = Window(1, keep_images=False)
    window.add(torch.arange(N), torch.empty(0))
    steps = []
    loss = Loss(task, penalty, window, lambda _: 1.0, lambda _, step: steps.append(step))
    f = torch.randn(N, D, requires_grad=True)
    assert loss(image_features=f, text_features=f, logit_scale=torch.ones(()), output_dict=True)[KEY].item() == 0
    assert steps[0].failure.startswith(f"{type(error).__name__}: ")
    assert "in fails" in caplog.text


def test_wrong_number_of_rows(penalty):
    window = Window(1, keep_images=False)
    window.add(torch.arange(N - 1), torch.empty(0))
    steps = []
    loss = Loss(task, penalty, window, lambda _: 1.0, lambda _, step: steps.append(step))
    f = torch.randn(N, D, requires_grad=True)
    loss(image_features=f, text_features=f, logit_scale=torch.ones(()), output_dict=True)
    assert f"{N} image features, and the loader gave {N - 1}" in steps[0].failure


def test_a_loss_without_image_features(penalty):
    loss = Loss(lambda audio: {}, penalty, Window(1, False), lambda _: 1.0, lambda *_: None)
    with pytest.raises(RunStoppedError, match="gets no image features"):
        loss(audio=torch.zeros(1))
