"""The names that users rely on. One of them changes only together with the documentation and the changelog."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

import specalign
import specalign.torch
from specalign.openclip import _config

GAUSSIAN = {"kernel": "gaussian"}
# Each setting with a value, and what it belongs to.
SETTINGS = [
    ("kernel", "gaussian", {}),
    ("student_kernel", "gaussian", {}),
    ("reference_kernel", "laplacian", {}),
    ("sigma", "median", GAUSSIAN),
    ("student_sigma", 2.0, GAUSSIAN),
    ("reference_sigma", 3.0, GAUSSIAN),
    ("approximation", "exact", GAUSSIAN),
    ("num_features", 64, {**GAUSSIAN, "approximation": "rff"}),
    ("seed", 1, {}),
    ("objective", "ky_fan", {}),
    ("k", 2, {}),
    ("p", 1.5, {"objective": "schatten"}),
    ("temperature", 0.1, {"objective": "relational_kl"}),
    ("terms", [{"objective": "ky_fan", "k": 2, "weight": 1.0}], {}),
    ("solver", "dense", {}),
    ("tolerance", 1e-4, {}),
    ("center", True, {}),
    ("eta", 1.0, {}),
    ("fast", True, {}),
    ("threads", 1, {}),
    ("device", "cpu", {}),
]
ROWS = np.random.default_rng(0).normal(size=(2, 12, 4)).astype("f4")


@pytest.mark.parametrize(("name", "value", "beside"), SETTINGS, ids=[name for name, *_ in SETTINGS])
def test_setting(name, value, beside):
    assert specalign.penalty(*ROWS, **beside, **{name: value}).value > 0


def test_what_is_no_setting_is_named():
    with pytest.raises(specalign.InputError, match="sigmas"):
        specalign.penalty(*ROWS, sigmas=1.0)


@pytest.mark.parametrize("name", ["Sidecar", "Session", "Result", "penalty", "Error", "InputError", "SidecarError"])
def test_package(name):
    assert name in specalign.__all__
    assert hasattr(specalign, name)


def test_errors():
    assert specalign.InputError.__mro__.index(specalign.Error) > 0
    assert issubclass(specalign.InputError, ValueError)
    assert issubclass(specalign.SidecarError, specalign.Error)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (specalign.Sidecar, ["device", "isolation"]),
        (specalign.Sidecar.attach, ["file"]),
        (specalign.Sidecar.session, ["settings"]),
        (specalign.Session.step, ["student", "reference", "out"]),
        (specalign.Session.submit, ["student", "reference", "out"]),
        (specalign.penalty, ["student", "reference", "settings"]),
        (specalign.torch.SpecAlign, ["weight", "isolation", "settings"]),
    ],
)
def test_arguments(function, names):
    assert set(names) <= set(inspect.signature(function).parameters)


def test_result():
    names = {"value", "grad", "eigenvalues", "gap", "residual", "gradient_error", "products", "converged", "route"}
    assert names | {"device", "isa", "seconds"} <= {field.name for field in dataclasses.fields(specalign.Result)}


def test_align_yaml():
    assert {"weight", "schedule", "reference", "scope", "grad_scale"} <= set(_config.RUN)
