"""`specalign compare` against an independent implementation in float64 NumPy: every figure it prints."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
from batches import clustered

N = 180


def kernel_matrix(x, name, sigma):
    x = x.astype(np.float64)
    if name == "linear":
        return x @ x.T
    if name == "cosine":
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
        return x @ x.T
    difference = x[:, None, :] - x[None, :, :]
    if name == "laplacian":
        return np.exp(-np.abs(difference).sum(-1) / sigma)
    return np.exp(-(difference**2).sum(-1) / (2 * sigma**2))


def median_distance(x, name):
    difference = x.astype(np.float64)[:, None, :] - x.astype(np.float64)[None, :, :]
    distance = np.abs(difference).sum(-1) if name == "laplacian" else np.sqrt((difference**2).sum(-1))
    return np.median(distance[np.triu_indices(len(x), 1)])


def centred(k):
    h = np.eye(len(k)) - 1 / len(k)
    return h @ k @ h


def oriented(v):
    total = v.sum()
    if abs(total) <= 1e-4 * np.sqrt(len(v)):
        total = v[np.abs(v).argmax()]
    return -v if total < 0 else v


def run(tmp_path, student, reference, *arguments):
    paths = [tmp_path / "student.npy", tmp_path / "reference.npy"]
    for path, x in zip(paths, (student, reference), strict=True):
        np.save(path, x)
    command = [os.environ["SPECALIGN_BINARY"], "compare", *map(str, paths), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


CASES = {
    "cosine": (),
    "cosine, centred": ("--center",),
    "cosine, eta": ("--eta", "0.6"),
    "linear": ("--kernel", "linear"),
    "gaussian": ("--kernel", "gaussian"),
    "gaussian, centred, eta": ("--kernel", "gaussian", "--center", "--eta", "1.3"),
    "laplacian": ("--kernel", "laplacian"),
    "cosine and laplacian": ("--reference-kernel", "laplacian"),
}


@pytest.fixture(params=CASES, name="case")
def fixture_case(request, tmp_path):
    """One comparison, and the two kernel matrices that it should have seen."""
    arguments = CASES[request.param]
    student, reference = clustered(np.random.default_rng(5), N, 20, 14)
    student[7], reference[11] = 0, 0
    got = run(tmp_path, student, reference, "--top", "4", "--samples", "60", "--permutations", "3", *arguments)
    names = [got["settings"].get(f"{side}_kernel") or got["settings"]["kernel"] for side in ("student", "reference")]
    kernels, sigmas = [], []
    for x, name in zip((student, reference), names, strict=True):
        sigma = median_distance(x, name) if name in ("gaussian", "laplacian") else 0
        sigmas.append(sigma)
        k = kernel_matrix(x, name, sigma) / N
        kernels.append(centred(k) if got["settings"]["center"] else k)
    return got, kernels, sigmas


def test_spectrum_and_samples(case):
    got, (k1, k2), sigmas = case
    eta = got["settings"]["eta"]
    for side, sigma in zip(("student_sigma", "reference_sigma"), sigmas, strict=True):
        assert got["settings"].get(side, 0) == pytest.approx(sigma, rel=1e-9)
    values, vectors = np.linalg.eigh(k1 - eta * k2)
    assert got["spec_diff"] == pytest.approx(np.abs(values).max(), rel=1e-5)
    assert got["converged"]
    for side, order in (("positive", np.argsort(-values)), ("negative", np.argsort(values))):
        for group, i in zip(got[side], order, strict=False):
            assert group["eigenvalue"] == pytest.approx(values[i], abs=1e-5 * got["spec_diff"])
            assert group["residual"] < 1e-5
            gap = np.min(np.abs(np.delete(values, i) - values[i]))
            assert group["gap"] == pytest.approx(min(gap, abs(values[i])), abs=1e-4)
            if gap < 0.03 * got["spec_diff"]:
                continue
            v = oriented(vectors[:, i])
            for sample in group["samples"]:
                assert sample["score"] == pytest.approx(v[sample["index"]], abs=2e-5)
            top = set(np.argsort(-v)[:50])
            assert len(top & {sample["index"] for sample in group["samples"][:50]}) >= 49  # one may tie
            assert group["student_share"] == pytest.approx(v @ k1 @ v, rel=1e-4, abs=1e-6)
            assert group["reference_share"] == pytest.approx(v @ k2 @ v, rel=1e-4, abs=1e-6)
    whole = got["spectrum"]
    shown = np.array(whole["positive"] + whole["negative"])
    assert len(shown) >= 8
    expected = np.concatenate(
        [np.sort(values)[::-1][: len(whole["positive"])], np.sort(values)[: len(whole["negative"])]]
    )
    np.testing.assert_allclose(shown, expected, atol=1e-4 * got["spec_diff"])


def test_certainty(case):
    got, kernels, _ = case
    eta = got["settings"]["eta"]
    tops = [np.linalg.eigvalsh(k)[-1] for k in kernels]
    assert got["kernel_tops"] == pytest.approx(tops, rel=3e-3)
    values, vectors = np.linalg.eigh(kernels[0] - eta * kernels[1])
    for side, sign in (("positive", 1), ("negative", -1)):
        for group, i in zip(got[side], np.argsort(-sign * values), strict=False):
            if np.min(np.abs(np.delete(values, i) - values[i])) < 0.03 * got["spec_diff"]:
                continue
            v = oriented(vectors[:, i])
            inside = v >= np.sort(v)[::-1][30] / 2
            if abs(np.abs(v - np.sort(v)[::-1][30] / 2)).min() < 1e-5:
                continue  # a sample on the edge may fall on either side
            sees, other = (kernels[0], kernels[1]) if sign > 0 else (kernels[1], kernels[0])
            eps1 = np.linalg.norm(sees[np.ix_(inside, ~inside)])
            eps2 = np.linalg.norm(other[np.ix_(inside, inside)], 2)
            rest = sign * (kernels[0] - eta * kernels[1])[np.ix_(~inside, ~inside)]
            gap = abs(values[i]) - max(0, np.linalg.eigvalsh(rest)[-1])
            certainty = group["certainty"]
            assert group["size"] == inside.sum()
            assert certainty["eps1"] == pytest.approx(eps1, rel=1e-4)
            assert certainty["eps2"] == pytest.approx(eps2, rel=3e-3)
            assert certainty["gap"] == pytest.approx(gap, abs=2e-3 * tops[0])
            outside = np.linalg.norm(v[~inside]) / np.linalg.norm(v[inside])
            assert certainty["outside"] == pytest.approx(outside, rel=1e-3)
            if certainty["valid"]:
                weights = (1, eta) if sign > 0 else (eta, 1)
                bound = (weights[0] * eps1 + weights[1] * np.sqrt(eps2)) / certainty["gap"]
                assert certainty["bound"] == pytest.approx(bound, rel=5e-3)
                assert outside <= certainty["bound"]


def test_koda(case):
    got, (k1, k2), _ = case
    koda = got["koda"]
    eigenvalues = np.linalg.eigvalsh(k2)
    eigenvalues = eigenvalues[eigenvalues > 1e-6 * eigenvalues[-1]]
    assert koda["eps"] == pytest.approx(np.median(eigenvalues), rel=0.02)
    direction = koda["directions"][0]
    _, vectors = np.linalg.eigh(k1 - direction["multiplier"] * k2)
    x = vectors[:, -1]
    assert direction["student"] == pytest.approx(x @ k1 @ x, rel=2e-3, abs=1e-5)
    assert direction["reference"] == pytest.approx(x @ k2 @ x, rel=5e-3, abs=1e-5)
    assert direction["reference"] <= koda["eps"]
    assert direction["ratio"] == pytest.approx(direction["student"] / direction["reference"], rel=1e-9)


def test_null_has_the_spectra_of_unrelated_embeddings(case):
    got, (k1, k2), _ = case
    rng = np.random.default_rng(1)
    eta = got["settings"]["eta"]
    tops = []
    for _ in range(30):
        perm = rng.permutation(N)
        tops.append(np.abs(np.linalg.eigvalsh(k1 - eta * k2[np.ix_(perm, perm)])).max())
    assert got["permutation_null"]["rows"] == N
    spread = np.std(tops) + 1e-3 * np.mean(tops)
    assert got["permutation_null"]["chance"] == pytest.approx(np.mean(tops), abs=4 * spread)


def test_match(tmp_path):
    student, reference = clustered(np.random.default_rng(5), N, 20, 14)
    got = run(tmp_path, 3 * student, reference, "--kernel", "gaussian", "--sigma", "match", "--permutations", "0")
    sigma = got["settings"]["student_sigma"], got["settings"]["reference_sigma"]
    assert sigma[1] == pytest.approx(median_distance(reference, "gaussian"))
    tops = [
        np.linalg.eigvalsh(kernel_matrix(x, "gaussian", s) / N)[-1]
        for x, s in zip((3 * student, reference), sigma, strict=True)
    ]
    assert abs(tops[0] - tops[1]) < 0.01
    assert got["kernel_tops"] == pytest.approx(tops, rel=3e-3)


def test_nystrom_is_certified(tmp_path):
    """On all rows the certificate is the exact residual of the approximate eigenvector."""
    student, reference = clustered(np.random.default_rng(5), N, 20, 14)
    got = run(
        tmp_path, student, reference, "--kernel", "gaussian", "--approximation", "nystrom", "--num-features", "40",
        "--samples", str(N), "--top", "2", "--check-rows", str(N),
    )  # fmt: skip
    k = [
        kernel_matrix(x, "gaussian", got["settings"][f"{side}_sigma"]) / N
        for x, side in ((student, "student"), (reference, "reference"))
    ]
    approximation = got["approximation"]
    assert (approximation["method"], approximation["num_features"], approximation["rows"]) == ("nystrom", 40, N)
    assert approximation["a_priori"] is None
    for group, residual in zip(got["positive"] + got["negative"], approximation["residuals"], strict=True):
        v = np.zeros(N)
        for sample in group["samples"]:
            v[sample["index"]] = sample["score"]
        exact = np.linalg.norm((k[0] - k[1]) @ v - group["eigenvalue"] * v)
        assert residual["estimate"] == pytest.approx(exact, rel=1e-3, abs=1e-6)
        assert residual["rayleigh"] == pytest.approx(v @ (k[0] - k[1]) @ v, rel=1e-3)
