"""The penalty and its gradient in NumPy float64, by dense eigendecomposition: what the sidecar is compared with."""

from __future__ import annotations

import numpy as np


def ky_fan(student, reference, k, kernel="cosine", sigma=1.0):
    """Return value, gradient with respect to the student's rows, and eigenvalues by falling magnitude."""
    x, y = np.asarray(student, np.float64), np.asarray(reference, np.float64)
    n = len(x)
    if kernel == "gaussian":
        k1, k2 = gaussian(x, sigma), gaussian(y, sigma)
    else:
        phi, psi = normalised(x), normalised(y)
        k1, k2 = phi @ phi.T, psi @ psi.T
    values, vectors = np.linalg.eigh((k1 - k2) / n)
    order = np.argsort(-np.abs(values))
    values, vectors = values[order], vectors[:, order]
    used = vectors[:, :k]
    m = used * np.sign(values[:k]) @ used.T
    if kernel == "gaussian":
        w = m * k1
        grad = 2 / n * (w @ x - w.sum(1)[:, None] * x) / sigma**2
    else:
        g = 2 / n * m @ phi
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        grad = (g - phi * (phi * g).sum(1, keepdims=True)) / norms
    return np.abs(values[:k]).sum(), grad, values


def normalised(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def gaussian(x, sigma):
    square = (x * x).sum(1)
    distances = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)
    return np.exp(-distances / (2 * sigma**2))


def relative(a, b):
    """Return |a - b| / |b|."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)
