"""Writes golden.json: values and gradients of the SPEC-align penalty by NumPy in float64.

An opinion independent of the Go code: kernel matrices by matrix algebra, eigenpairs by LAPACK, and gradients by way of
the feature maps (dV/dPhi = 2 M Phi, pulled back through each map) instead of by the kernels' derivatives.

    python golden.py > golden.json
"""

import json

import numpy as np

N, D1, D2, R = 8, 3, 4, 5
ETA, SIGMA = 0.7, (1.4, 2.1)
rng = np.random.default_rng(20250613)
X = [np.round(rng.normal(size=(N, d)), 6) for d in (D1, D2)]
W = [np.round(rng.normal(size=(R, d)), 6) for d in (D1, D2)]
H = np.eye(N) - 1 / N


def features(kernel, side):
    """The feature map of one side, or None."""
    x = X[side]
    if kernel == "linear":
        return x
    if kernel == "cosine":
        return x / np.linalg.norm(x, axis=1, keepdims=True)
    if kernel == "fourier":
        phase = x @ W[side].T
        return np.hstack([np.cos(phase), np.sin(phase)]) / np.sqrt(R)
    return None


def kernel_matrix(kernel, side):
    """The kernel matrix of one side, not divided by n."""
    phi = features(kernel, side)
    if phi is not None:
        return phi @ phi.T
    delta = X[side][:, None] - X[side][None]
    if kernel == "gaussian":
        return np.exp(-(delta**2).sum(-1) / (2 * SIGMA[side] ** 2))
    return np.exp(-np.abs(delta).sum(-1) / SIGMA[side])


def softmax(k, temperature):
    """The softmax of each row without the diagonal."""
    z = k / temperature
    np.fill_diagonal(z, -np.inf)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def objective(name, argument, k1, k2):
    """The value and M = dV/dK1, symmetric."""
    diff = (k1 - ETA * k2) / N
    if name == "frobenius":
        return (diff**2).sum(), 2 * diff / N
    if name == "relational_kl":
        p, q = softmax(k2, argument), softmax(k1, argument)
        off = ~np.eye(N, dtype=bool)
        a = (q - p) / (N * argument)
        return (p[off] * np.log(p[off] / q[off])).sum() / N, (a + a.T) / 2
    values, vectors = np.linalg.eigh(diff)
    order = np.argsort(-np.abs(values))
    values, vectors = values[order], vectors[:, order]
    if name == "schatten":
        slope = argument * np.abs(values) ** (argument - 1) * np.sign(values)
        value = (np.abs(values) ** argument).sum()
    else:
        slope = np.sign(values) * (np.arange(N) < argument)
        value = np.abs(values[:argument]).sum()
    slope[np.abs(values) < 1e-13] = 0
    return value, (vectors * slope) @ vectors.T / N


def pull_back(kernel, m):
    """The gradient with respect to the student's rows."""
    x, phi = X[0], features(kernel, 0)
    if kernel == "gaussian":
        w = m * kernel_matrix(kernel, 0)
        return 2 * (w @ x - w.sum(1, keepdims=True) * x) / SIGMA[0] ** 2
    if kernel == "laplacian":
        w = m * kernel_matrix(kernel, 0)
        return 2 * (w[:, :, None] * np.sign(x[None] - x[:, None])).sum(1) / SIGMA[0]
    g = 2 * m @ phi
    if kernel == "cosine":
        g -= phi * (phi * g).sum(1, keepdims=True)
        g /= np.linalg.norm(x, axis=1, keepdims=True)
    if kernel == "fourier":
        g = (phi[:, :R] * g[:, R:] - phi[:, R:] * g[:, :R]) @ W[0]
    return g


cases = []
KERNELS = ["linear", "cosine", "gaussian", "laplacian", "fourier"]
OBJECTIVES = [("ky_fan", 1), ("ky_fan", 3), ("schatten", 1.5), ("frobenius", None), ("relational_kl", 0.1)]
for i, student in enumerate(KERNELS):
    for reference in (student, KERNELS[i - 2]):
        for center in (False, True):
            k1, k2 = kernel_matrix(student, 0), kernel_matrix(reference, 1)
            if center:
                k1, k2 = H @ k1 @ H, H @ k2 @ H
            for name, argument in OBJECTIVES:
                value, m = objective(name, argument, k1, k2)
                if center:
                    m = H @ m @ H
                cases.append(
                    {
                        "student": student,
                        "reference": reference,
                        "center": center,
                        "objective": name,
                        "argument": argument or 0,
                        "value": float(value),
                        "gradient": [[float(f"{v:.13g}") for v in row] for row in pull_back(student, m)],
                    }
                )
head = {"x1": X[0], "x2": X[1], "w1": W[0], "w2": W[1], "eta": ETA, "sigma1": SIGMA[0], "sigma2": SIGMA[1]}
head = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in head.items()}
print(json.dumps(head)[:-1] + ', "cases": [')
print(",\n".join(json.dumps(c) for c in cases) + "\n]}")
