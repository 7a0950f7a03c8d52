"""Writes the files of this folder: NumPy's, safetensors' and PyArrow's own, for the tests of the readers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
np.savez_compressed(
    HERE / "deflated.npz", a=MATRIX.astype("<f4"), b=MATRIX.astype("<f2")
)
tensor = torch.tensor(MATRIX)
safetensors.torch.save_file(
    {
        "f16": tensor.half(),
        "bf16": tensor.bfloat16(),
        "f32": tensor.float(),
        "model.f64": tensor,
        "ids": torch.arange(5),
    },
    HERE / "many.safetensors",
    metadata={"made_by": "make.py"},
)
safetensors.torch.save_file({"only": tensor.float()}, HERE / "single.safetensors")


def column(dtype: str, size: int | None = 3) -> pa.Array:
    """The matrix as a column of lists: of fixed size, or of any where size is None."""
    values = pa.array(MATRIX.astype(dtype).ravel())
    if size is not None:
        return pa.FixedSizeListArray.from_arrays(values, size)
    return pa.ListArray.from_arrays(pa.array([0, 3, 6, 9, 12, 15], pa.int32()), values)


def lists(name: str, *rows: list[float | None] | None) -> None:
    """Write a column of lists that are no matrix."""
    pq.write_table(
        pa.table({"a": pa.array(rows, pa.list_(pa.float32()))}),
        HERE / name,
        row_group_size=4,
    )


table = pa.table(
    {
        "ids": pa.array(range(5)),
        "f4": column("f4"),
        "f8": column("f8", None),
        "f2": column("f2"),
    }
)
pq.write_table(table, HERE / "many.parquet", row_group_size=2, compression="zstd")
plain = {
    "compression": "none",
    "use_dictionary": False,
    "data_page_version": "2.0",
    "data_page_size": 16,
    "write_batch_size": 2,
}
pq.write_table(table.select(["ids", "f4"]), HERE / "single.parquet", **plain)
pq.write_table(
    pa.table({"f2": column("f2", None)}), HERE / "half.parquet", compression="snappy"
)
lists("ragged.parquet", [1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11])
lists(
    "uneven.parquet", [1, 2], [3], [4, 5, 6], [7, 8]
)  # as many numbers as if all had two
lists("null.parquet", [1, 2], [3, None], [4, 5])
lists("missing.parquet", [1, 2], None, [4, 5], [6, 7])
floats = pa.list_(pa.float32())
odd = pa.table(
    {
        "id": pa.array(["a", "b"]),
        "x": pa.array([1, 2], pa.float32()),
        "deep": pa.array([[[1]], [[2]]], pa.list_(floats)),
        "words": pa.array([["a"], ["b"]]),
        "when": pa.array([0, 1], pa.timestamp("us")),
    }
)
pq.write_table(odd, HERE / "unfit.parquet")
pair = pa.array([{"a": [1], "b": [2]}] * 2, pa.struct([("a", floats), ("b", floats)]))
pq.write_table(odd.append_column("pair", pair), HERE / "nested.parquet")
column_v = pa.array([[1], [2]], floats)
pq.write_table(
    pa.Table.from_arrays([column_v, column_v], names=["v", "v"]),
    HERE / "twice.parquet",
)
