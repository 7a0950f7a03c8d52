"""The same penalty in process, as a PyTorch expert would write it, and the paper's algorithm.

All take student (n, d1) and reference (n, d2), float32, cosine kernels, and return value and gradient (n, d1). The
gradient is the closed form, which is cheaper than autograd through the same steps: see `gradient`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def normalised(student: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit rows (n, d1) and (n, d2), and the inverse norms (n, 1) of the student's."""
    inverse = student.norm(dim=1, keepdim=True).reciprocal()
    return student * inverse, torch.nn.functional.normalize(reference, dim=1), inverse


def gradient(phi: Tensor, inverse: Tensor, vectors: Tensor, signs: Tensor) -> Tensor:
    """Return d (sum of |lambda|) / d student (n, d1), for eigenvectors (n, k) and the signs (k,) of their values."""
    n = len(phi)
    g = (vectors * (signs * (2 / n))) @ (vectors.T @ phi)
    return torch.addcmul(g, phi, (phi * g).sum(1, keepdim=True), value=-1).mul_(inverse)


def formed(phi: Tensor, psi: Tensor) -> Tensor:
    """Return L = (phi phi^T - psi psi^T) / n, (n, n), by one product."""
    return torch.cat([phi, psi], 1) @ torch.cat([phi, -psi], 1).T / len(phi)


def dense(student: Tensor, reference: Tensor, k: int) -> tuple[float, Tensor]:
    """Form L and call eigh."""
    phi, psi, inverse = normalised(student, reference)
    values, vectors = torch.linalg.eigh(formed(phi, psi))
    top = values.abs().topk(min(k, len(values))).indices
    return values[top].abs().sum().item(), gradient(phi, inverse, vectors[:, top], values[top].sign())


def _lanczos(product, n: int, k: int, tolerance: float, limit: int) -> tuple[Tensor, Tensor]:
    """Return the k eigenvalues of largest magnitude and their vectors (n, k).

    Full re-orthogonalisation, both ends of the spectrum, ended by residual / gap as the sidecar does.
    """
    limit = min(limit, n)
    basis = torch.empty(limit + 1, n)
    basis[0] = torch.randn(n, generator=torch.Generator().manual_seed(0))
    basis[0] /= basis[0].norm()
    t = torch.zeros(limit + 1, limit + 1, dtype=torch.float64)
    for m in range(1, limit + 1):
        q = basis[:m]
        w = product(basis[m - 1])
        h = q @ w
        w = torch.addmv(w, q.T, h, alpha=-1)
        w = torch.addmv(w, q.T, q @ w, alpha=-1)
        beta = w.norm()
        t[m - 1, m - 1] = h[-1]
        t[m - 1, m] = t[m, m - 1] = beta
        basis[m] = w / beta
        last = m == limit or beta < 1e-7
        if (m >= k + 1 and (m % 4 == 0 or last)) or last:
            values, s = torch.linalg.eigh(t[:m, :m])
            order = values.abs().argsort(descending=True)
            top = order[:k]
            residual = (beta * s[-1, top]).abs().max()
            gap = (values[order[k - 1]].abs() - values[order[k]].abs()) if m > k else values[order[-1]].abs()
            if residual <= tolerance * gap or last:
                return values[top].float(), basis[:m].T @ s[:, top].float()
    raise AssertionError


def lanczos_formed(student: Tensor, reference: Tensor, k: int, tolerance: float = 1e-4) -> tuple[float, Tensor]:
    """Lanczos on the formed L."""
    phi, psi, inverse = normalised(student, reference)
    difference = formed(phi, psi)
    values, vectors = _lanczos(difference.mv, len(phi), k, tolerance, 40 + 6 * k)
    return values.abs().sum().item(), gradient(phi, inverse, vectors, values.sign())


def lanczos_free(student: Tensor, reference: Tensor, k: int, tolerance: float = 1e-4) -> tuple[float, Tensor]:
    """Lanczos without forming L: two products with the rows of each side, which are neither joined nor transposed."""
    phi, psi, inverse = normalised(student, reference)
    n = len(phi)

    def product(v: Tensor) -> Tensor:
        return torch.addmv(phi.mv(phi.T.mv(v)), psi, psi.T.mv(v), alpha=-1).div_(n)

    values, vectors = _lanczos(product, n, k, tolerance, 40 + 6 * k)
    return values.abs().sum().item(), gradient(phi, inverse, vectors, values.sign())


def feature_space(student: Tensor, reference: Tensor, k: int) -> tuple[float, Tensor]:
    """Find the pairs among the columns, fewer than the rows: L = R S R^T / n and C = R^T R / n = G G^T give G^T S G.

    Its eigenvector y has the eigenvalue of L's R G^-T y. A little is added to C, which need not have full rank.
    """
    phi, psi, inverse = normalised(student, reference)
    rows = torch.cat([phi, psi], 1)
    signs = torch.ones(rows.shape[1], 1)
    signs[phi.shape[1] :] = -1
    c = rows.T @ rows / len(rows)
    c.diagonal().add_(1e-6 * c.diagonal().mean())
    factor = torch.linalg.cholesky(c)
    values, y = torch.linalg.eigh(factor.T @ (signs * factor))
    top = values.abs().topk(k).indices
    vectors = rows @ torch.linalg.solve_triangular(factor.T, y[:, top], upper=True)
    vectors /= vectors.norm(dim=0)
    return values[top].abs().sum().item(), gradient(phi, inverse, vectors, values[top].sign())


def paper(student: Tensor, reference: Tensor, k: int, steps: int = 20) -> tuple[float, Tensor]:
    """Run the paper's algorithm: the square matrix G (d1+d2, d1+d2), 20 right and 20 left power steps, autograd.

    It finds one eigenvalue, so k is 1. The eigenvalue is `w^T G u / w^T u` with the vectors held constant.
    """
    assert k == 1
    student = student.detach().requires_grad_()
    phi, psi, _ = normalised(student, reference)
    n, d1 = phi.shape
    rows = torch.cat([phi, psi], 1)
    signs = torch.ones(rows.shape[1], 1)
    signs[d1:] = -1
    g = signs * (rows.T @ rows) / n
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        u, w = (torch.randn(len(g), generator=generator) for _ in range(2))
        for _ in range(steps):
            u = g @ u
            u /= u.norm()
            w = g.T @ w
            w /= w.norm()
    value = (w @ (g @ u) / (w @ u)).abs()
    value.backward()
    assert student.grad is not None
    return value.item(), student.grad


def schatten(student: Tensor, reference: Tensor, p: float) -> tuple[float, Tensor]:
    """Form L, call eigh, and return sum |lambda|^p; its gradient is p |lambda|^(p-1) sign(lambda) v v^T for each."""
    phi, psi, inverse = normalised(student, reference)
    values, vectors = torch.linalg.eigh(formed(phi, psi))
    size = values.abs()
    return size.pow(p).sum().item(), gradient(phi, inverse, vectors, p * size.pow(p - 1) * values.sign())


def with_relational_kl(
    inner: Callable[[Tensor, Tensor], tuple[float, Tensor]],
    student: Tensor,
    reference: Tensor,
    temperature: float = 0.1,
) -> tuple[float, Tensor]:
    """Add relational KL: (1/n) sum_i KL(softmax(k2_i/T) || softmax(k1_i/T)), diagonal masked, with its gradient."""
    value, grad = inner(student, reference)
    phi, psi, inverse = normalised(student, reference)
    n = len(phi)
    logits = torch.stack([phi @ phi.T, psi @ psi.T]).div_(temperature)
    logits.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    q, p = torch.log_softmax(logits, 2)
    kl = torch.nn.functional.kl_div(q.fill_diagonal_(0), p.fill_diagonal_(0), reduction="sum", log_target=True) / n
    a = (q.exp() - p.exp()).fill_diagonal_(0).div_(n * temperature)
    g = (a + a.T) @ phi
    return value + kl.item(), grad + torch.addcmul(g, phi, (phi * g).sum(1, keepdim=True), value=-1).mul_(inverse)


def _kernel(x: Tensor, sigma: float) -> Tensor:
    """Return exp(-|x_i - x_j|^2 / 2 sigma^2), (n, n)."""
    squares = x.square().sum(1)
    return torch.addmm(squares[:, None] + squares, x, x.T, alpha=-2).clamp_(min=0).mul_(-0.5 / sigma**2).exp_()


def gaussian(
    student: Tensor, reference: Tensor, sigmas: tuple[float, float], exact: bool, tolerance: float = 1e-4
) -> tuple[float, Tensor]:
    """Form exact Gaussian kernels; one eigenvalue, by eigh or Lanczos."""
    n = len(student)
    # Moved to their mean, which changes no distance and keeps digits.
    student, reference = student - student.mean(0), reference - reference.mean(0)
    k1 = _kernel(student, sigmas[0])
    difference = (k1 - _kernel(reference, sigmas[1])).div_(n)
    if exact:
        values, vectors = torch.linalg.eigh(difference)
        top = values.abs().argmax()
        value, v = values[top], vectors[:, top]
    else:
        values, vectors = _lanczos(difference.mv, n, 1, tolerance, 46)
        value, v = values[0], vectors[:, 0]
    # d|lambda| / dK1 = sign(lambda) v v^T / n = M, and g_a = 2 sum_b M_ab K_ab (x_b - x_a) / sigma^2.
    weights = k1.mul_(v).mul_((v * (value.sign() * 2 / (n * sigmas[0] ** 2)))[:, None])
    return value.abs().item(), torch.addcmul(weights @ student, weights.sum(1, keepdim=True), student, value=-1)
