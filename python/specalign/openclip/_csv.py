"""Reads the CSV of a data set as OpenCLIP's trainer does, so that both know an image by the same name."""

from __future__ import annotations

import os

from .._errors import InputError


def column(path: str | os.PathLike[str], name: str, separator: str) -> list[str]:
    """Return a column of a CSV with a header line, as text.

    Raises:
        InputError: the file cannot be read, has no such column, no rows, or a row without a value there.
    """
    import pandas

    path = os.fspath(path)
    try:
        table = pandas.read_csv(path, sep=separator)
    except (OSError, ValueError) as e:
        what = e.strerror if isinstance(e, OSError) and e.strerror else " ".join(str(e).split())
        raise InputError(f"specalign: {path}: {what} (columns separated by {separator!r})") from None
    if name not in table:
        raise InputError(
            f"specalign: {path} has no column {name}; it has {', '.join(map(str, table.columns))} "
            f"(columns separated by {separator!r})"
        )
    values = table[name]
    if len(values) == 0:
        raise InputError(f"specalign: {path} has no rows")
    empty = values.isna().to_numpy()
    if empty.any():
        raise InputError(f"specalign: {path}: row {int(empty.argmax())} (from 0) has no {name}")
    return [str(v) for v in values.tolist()]
