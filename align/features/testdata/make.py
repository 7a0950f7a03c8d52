"""Writes the files of this folder: NumPy's and safetensors' own, for the tests of the readers."""

from pathlib import Path

import numpy as np
import safetensors.torch
import torch

HERE = Path(__file__).parent
MATRIX = np.arange(5)[:, None] - np.arange(3) / 4


def version(name: str, number: tuple[int, int]) -> None:
    """Write the matrix in a version of the format that NumPy itself takes for other arrays."""
    with open(HERE / name, "wb") as f:
        np.lib.format.write_array(f, MATRIX.astype("<f4"), version=number)


np.save(HERE / "f2.npy", MATRIX.astype("<f2"))
np.save(HERE / "f4.npy", MATRIX.astype("<f4"))
np.save(HERE / "f8.npy", MATRIX)
np.save(HERE / "fortran.npy", np.asfortranarray(MATRIX.astype("<f4")))
version("version2.npy", (2, 0))
version("version3.npy", (3, 0))
np.savez(HERE / "stored.npz", **{"a": MATRIX.astype("<f4"), "b.c": MATRIX})
np.savez(HERE / "single.npz", only=MATRIX.astype("<f4"))
np.savez_compressed(HERE / "deflated.npz", a=MATRIX.astype("<f4"), b=MATRIX.astype("<f2"))
tensor = torch.tensor(MATRIX)
safetensors.torch.save_file(
    {"f16": tensor.half(), "bf16": tensor.bfloat16(), "f32": tensor.float(), "model.f64": tensor, "ids": torch.arange(5)},
    HERE / "many.safetensors",
    metadata={"made_by": "make.py"},
)
safetensors.torch.save_file({"only": tensor.float()}, HERE / "single.safetensors")
