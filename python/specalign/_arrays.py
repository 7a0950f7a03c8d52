"""NumPy arrays and torch tensors in and out of an arena, without importing torch."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _gpu
from ._arena import Memory, Shape
from ._errors import InputError
from ._gpu import DeviceArena, Place
from ._messages import MAX_COLS, MAX_ROWS, DType

_TYPES = {
    "float32": DType.FLOAT32,
    "float16": DType.FLOAT16,
    "bfloat16": DType.BFLOAT16,
    "float64": DType.FLOAT64,
}
_names: dict[Any, str] = {}  # of torch's types
_STORAGE: dict[DType, np.dtype[Any]] = {  # NumPy has no bfloat16 of its own: its bits travel as integers
    DType.FLOAT32: np.dtype(np.float32),
    DType.FLOAT16: np.dtype(np.float16),
    DType.BFLOAT16: np.dtype(np.uint16),
    DType.FLOAT64: np.dtype(np.float64),
}
_FLOAT32 = np.dtype(np.float32)
# Up to so many bytes a tensor in the host's memory is copied by this thread alone. PyTorch's own copy wakes its
# threads: on idle cores that gains 20 us in two megabytes; on busy ones it waits for them, for 20 ms and more, and they
# then spin for a while on the cores that the sidecar is to compute on.
_COPIED_ALONE = 8 << 20


def is_tensor(x: object) -> bool:
    """Tell whether x is a torch tensor; without torch loaded nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


@dataclass(slots=True, eq=False)
class Rows:
    """A two-dimensional float array or tensor that a caller gave."""

    source: Any
    rows: int
    cols: int
    dtype: DType
    tensor: bool
    device: Any = None  # of a tensor
    gpu: int | None = None
    """The GPU, as this process counts, in whose memory the rows lie; None for the host's."""

    @classmethod
    def of(cls, x: Any, name: str) -> Rows:
        """Look at the caller's array. `InputError` says what is wrong with it; `name` is what it is called there."""
        tensor = is_tensor(x)
        device = gpu = None
        if tensor:
            x = _readable(x, name)
            device = x.device
            if device.type == "cuda":
                gpu = device.index
            kind = _names.get(x.dtype) or _names.setdefault(x.dtype, str(x.dtype).removeprefix("torch."))
        elif hasattr(x, "__cuda_array_interface__"):
            x = CudaArray.of(x, name)
            kind, gpu = x.kind, x.ordinal
        else:
            x = _array(x, name)
            kind = x.dtype.name
        dtype = _TYPES.get(kind)
        if dtype is None:
            raise InputError(f"specalign: {name} has dtype {kind}; give float32, float16, bfloat16 or float64")
        if x.ndim != 2:
            raise InputError(f"specalign: {name} has shape {tuple(x.shape)}; give (n, d)")
        rows, cols = x.shape
        return cls(x, int(rows), int(cols), dtype, tensor, device, gpu)

    @property
    def foreign(self) -> bool:
        """Whether the rows are on a GPU and of another library than PyTorch."""
        return isinstance(self.source, CudaArray)

    def on_gpu(self) -> tuple[Place, int]:
        """Return where the rows lie on their GPU, and the stream that what uses them is to be enqueued on."""
        x = self.source
        if isinstance(x, CudaArray):
            return Place(x.address, x.pitch, x.ordinal), x.stream
        torch = sys.modules["torch"]
        x = self.straight().source  # its memory is not given away before this stream has read it
        pitch = x.stride(0) * x.element_size() if self.rows > 1 else self.cols * x.element_size()
        return Place(x.data_ptr(), pitch, self.gpu), torch.cuda.current_stream(self.device).cuda_stream

    def straight(self) -> Rows:
        """Return the rows of a tensor with their numbers one behind the other, copied where they are not."""
        x = self.source
        if self.foreign or not (
            x.is_neg() or (self.cols > 1 and x.stride(1) != 1) or (self.rows > 1 and x.stride(0) < self.cols)
        ):
            return self
        return dataclasses.replace(self, source=x.resolve_neg().contiguous())

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, stored densely."""
        return self.rows * self.cols * self.dtype.size

    def copied(self) -> Rows:
        """Return rows that the caller cannot change any more, in memory of the host."""
        if isinstance(self.source, CudaArray):
            return dataclasses.replace(self, source=self.source.down(), gpu=None)
        if not self.tensor:
            source = self.source.copy()
        else:
            source = self.source.clone() if self.source.device.type == "cpu" else self.source.cpu()
        return dataclasses.replace(self, source=source, gpu=None)

    def place(self) -> tuple[int, int] | None:
        """Return where the rows lie in the host's memory, and how many elements from one to the next.

        None where they are no rows of native numbers one behind the other, and must be copied.
        """
        x = self.source
        if self.foreign:
            return None
        if self.tensor:
            if not _plain(x) or (x.stride(1) != 1 and self.cols > 1):
                return None
            address, near = x.data_ptr(), x.stride(0)
        else:
            size = x.itemsize
            if (
                not x.dtype.isnative
                or not x.flags.aligned
                or (x.strides[1] != size and self.cols > 1)
                or x.strides[0] % size
            ):
                return None
            address, near = x.__array_interface__["data"][0], x.strides[0] // size
        if self.rows == 1:
            near = self.cols
        return (address, near) if near >= self.cols else None

    def load(self, arena: Memory, offset: int) -> None:
        """Copy the rows into the arena, densely, in their own type."""
        target = arena.view(offset, self.rows, self.cols, _STORAGE[self.dtype])
        if isinstance(self.source, CudaArray):
            self.source.read(target)
            return
        if not self.tensor:
            source = self.source.view(np.uint16) if self.dtype == DType.BFLOAT16 else self.source
            np.copyto(target, source)
            return
        if _alone(self.source):
            np.copyto(target, _as_array(self.source))
            return
        # A tensor's own copy converts strides and crosses devices. For a GPU it returns when the data is here.
        _as_tensor(target, self.source.dtype).copy_(self.source)


@dataclass(frozen=True, slots=True, eq=False)
class CudaArray:
    """An array on a GPU of any library, by `__cuda_array_interface__`."""

    shape: tuple[int, ...]
    kind: str
    address: int
    pitch: int  # bytes from one row to the next
    stream: int
    ordinal: int
    owner: Any  # keeps it alive

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    @classmethod
    def of(cls, x: Any, name: str) -> CudaArray:
        """Look at the caller's array. `InputError` says what is wrong with it."""
        try:
            given = x.__cuda_array_interface__
            shape, (address, read_only) = tuple(map(int, given["shape"])), given["data"]
            dtype = np.dtype(given["typestr"])
            strides = given.get("strides")
        except Exception as e:
            raise InputError(f"specalign: {name} says nothing usable of its memory on a GPU: {e}") from e
        near = dtype.itemsize
        if strides is None:
            strides = (near * int(np.prod(shape[1:])), near)
        pitch = strides[0] if len(shape) == 2 and shape[0] > 1 else near * (shape[-1] if shape else 1)
        if given.get("mask") is not None or not dtype.isnative or (name == "out" and read_only):
            raise InputError(f"specalign: {name} is masked, read-only, or of another byte order; give a plain array")
        if len(shape) == 2 and ((shape[1] > 1 and strides[1] != near) or pitch < near * shape[1]):
            raise InputError(f"specalign: {name} has strides {tuple(strides)}; give an array whose rows are dense")
        try:
            ordinal = _gpu.driver().ordinal_of(address)
        except _gpu.Unavailable as e:
            raise InputError(f"specalign: {name} is on a GPU that cannot be read: {e}") from None
        return cls(shape, dtype.name, address, pitch, int(given.get("stream") or 0), ordinal, x)

    def read(self, target: np.ndarray) -> None:
        """Copy the elements to host memory, and wait for them."""
        self._move(target, False)

    def write(self, source: np.ndarray) -> None:
        """Copy the elements from host memory, and wait for them."""
        self._move(source, True)

    def _move(self, host: np.ndarray, up: bool) -> None:
        width = host.shape[1] * host.itemsize
        here, there = Place(host.ctypes.data, width), Place(self.address, self.pitch, self.ordinal)
        driver = _gpu.driver()
        driver.copy(self.ordinal, *((there, here) if up else (here, there)), width, host.shape[0], self.stream)
        driver.wait(self.ordinal, self.stream)

    def down(self) -> np.ndarray:
        """Return the elements in host memory."""
        array = np.empty(self.shape, self.kind)
        self.read(array)
        return array


def _readable(x: Any, name: str) -> Any:
    """Return a tensor, detached, whose elements lie in memory as its strides say. `InputError` for every other."""
    torch = sys.modules["torch"]
    if x.is_nested:
        raise InputError(f"specalign: {name} is a nested tensor; give a dense one")
    if torch.nn.parameter.is_lazy(x):
        raise InputError(f"specalign: {name} is not initialized yet; give a tensor with data")
    x = x.detach()
    if type(x) is not torch.Tensor:
        if hasattr(x, "trigger_wait"):  # a functional collective's, which may be under way
            x = x.trigger_wait()
        if type(x).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:  # masked, fake, distributed, ...
            raise InputError(
                f"specalign: {name} is a {type(x).__name__}, whose data lie elsewhere; give a plain tensor"
            )
    if x.layout != torch.strided or x.device.type == "meta":
        raise InputError(f"specalign: {name} is a {x.layout} tensor on {x.device}; give a dense one with data")
    try:
        bare = x.data_ptr() == 0 and x.numel() > 0 and x.device.type in ("cpu", "cuda")
    except RuntimeError:
        bare = True
    if bare:
        raise InputError(
            f"specalign: {name} has no data of its own, as inside torch.func's transforms or after its storage was "
            "freed; take the penalty outside of them, by ordinary autograd"
        )
    return x


def _array(x: Any, name: str) -> np.ndarray:
    """Return what is an array, or says how to be one, as an array. `InputError` for everything else."""
    if not isinstance(x, (np.ndarray, list, tuple)) and not any(
        hasattr(x, how) for how in ("__array__", "__array_interface__", "__array_struct__")
    ):
        # NumPy would ask any sequence for its elements, and those for theirs, for ever if need be.
        raise InputError(f"specalign: {name} is a {type(x).__name__}; give a NumPy array or a torch tensor")
    try:
        array = np.asanyarray(x)
    except Exception as e:
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise InputError(f"specalign: {name} is no array: {reason}") from e
    # Of a list of masked rows NumPy makes an array without the masks.
    if np.ma.isMaskedArray(array) or (isinstance(x, (list, tuple)) and any(map(np.ma.isMaskedArray, x))):
        raise InputError(f"specalign: {name} is a masked array; fill or drop the masked rows first")
    return np.asarray(array)


def _plain(x: Any) -> bool:
    """Tell whether a detached tensor's elements are numbers in the host's memory."""
    return type(x) is sys.modules["torch"].Tensor and x.device.type == "cpu" and not x.is_neg()


def _alone(x: Any) -> bool:
    """Tell whether a detached tensor should be copied as an array."""
    return _plain(x) and x.nbytes <= _COPIED_ALONE


def shape_of(student: Rows, reference: Rows, gpu: int | None = None) -> Shape:
    """Return the shape of a step, whose rows on that GPU stay there."""
    on = [gpu is not None and rows.gpu == gpu for rows in (student, reference)]
    return Shape(student.rows, student.cols, reference.cols, student.dtype, reference.dtype, *on)


def check_shape(student: Rows, reference: Rows) -> None:
    """Raise `InputError` for rows that no step can take, wherever it runs."""
    for name, given in (("student", student), ("reference", reference)):
        if given.rows < 1 or given.cols < 1:
            raise InputError(
                f"specalign: {name} has {given.rows} rows of {given.cols} columns; give at least one of each"
            )
    if student.rows > MAX_ROWS or max(student.cols, reference.cols) > MAX_COLS:
        raise InputError(
            f"specalign: {student.rows} rows of {student.cols} and {reference.cols} columns; "
            f"give at most {MAX_ROWS} rows a step, of at most {MAX_COLS} columns"
        )


def _as_array(x: Any) -> np.ndarray:
    """View a detached tensor of the host's memory as an array; bfloat16 as its bits."""
    torch = sys.modules["torch"]
    array: np.ndarray = x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()
    return array


def _as_tensor(memory: np.ndarray, dtype: Any) -> Any:
    plain = memory.view(np.int16) if memory.dtype == np.uint16 else memory
    return sys.modules["torch"].from_numpy(plain).view(dtype)


def check_out(out: Any, student: Rows) -> None:
    """Raise `InputError` unless `out` can take the gradient of `student`'s shape."""
    if out is None:
        return
    gpu = not is_tensor(out) and hasattr(out, "__cuda_array_interface__")
    if not is_tensor(out) and not isinstance(out, np.ndarray) and not gpu:
        raise InputError(f"specalign: out is a {type(out).__name__}; give a NumPy array or a torch tensor")
    got = Rows.of(out, "out")
    if (got.rows, got.cols) != (student.rows, student.cols):
        raise InputError(
            f"specalign: out has shape ({got.rows}, {got.cols}), "
            f"the student's gradient ({student.rows}, {student.cols})"
        )
    if gpu:
        if got.dtype != DType.FLOAT32:
            raise InputError("specalign: out is on a GPU, and no torch tensor; give one of float32")
        return
    if not got.tensor and not out.flags.writeable:
        raise InputError("specalign: out is read-only")
    if out.is_contiguous() if got.tensor else out.flags.c_contiguous:
        return
    strides = out.stride() if got.tensor else [s / out.itemsize for s in out.strides]
    near, far = sorted((abs(stride), size) for stride, size in zip(strides, out.shape, strict=True))
    if (near[1] > 1 and near[0] < 1) or (far[1] > 1 and far[0] <= (near[1] - 1) * near[0]):
        raise InputError("specalign: elements of out share memory; give an array with a place for each")


def dense(x: Any) -> int | None:
    """Return where the elements of an array or tensor lie that are float32, one behind the other, in the host's memory.

    None where they are not.
    """
    if is_tensor(x):
        x = x.detach()
        fits = _plain(x) and x.dtype == sys.modules["torch"].float32 and x.is_contiguous()
        return x.data_ptr() if fits else None
    if not isinstance(x, np.ndarray) or x.dtype != _FLOAT32 or not x.flags.c_contiguous or not x.flags.aligned:
        return None
    address: int = x.__array_interface__["data"][0]
    return address


def room(student: Rows) -> Any:
    """Return a new array or tensor for the gradient, which the library can write in place; None where there is none."""
    if student.dtype != DType.FLOAT32 or student.foreign:
        return None
    if student.tensor:
        torch = sys.modules["torch"]
        return torch.empty((student.rows, student.cols), dtype=torch.float32, device=student.device)
    return np.empty((student.rows, student.cols), np.float32)


def settle(out: Any) -> None:
    """Wait until a gradient on a GPU is written, which another thread may read on another stream."""
    if is_tensor(out):
        sys.modules["torch"].cuda.current_stream(out.device).synchronize()
    else:
        array = CudaArray.of(out, "out")
        _gpu.driver().wait(array.ordinal, array.stream)


def moments(*used: Any) -> list[tuple[Any, Any]]:
    """Mark where this thread's streams of the tensors' GPUs stand: pairs of device and event, for `wait_for`."""
    devices = {x.device for x in used if is_tensor(x) and x.device.type == "cuda"}
    return [(d, sys.modules["torch"].cuda.current_stream(d).record_event()) for d in devices]


def wait_for(marked: list[tuple[Any, Any]]) -> None:
    """Let this thread's streams wait for what `moments` marked in another thread's.

    Each thread has a current stream of its own: what the caller's stream still computes or reads must not be read or
    overwritten from here before.
    """
    for device, event in marked:
        sys.modules["torch"].cuda.current_stream(device).wait_event(event)


def on_gpu(student: Rows, out: Any) -> Any:
    """Return `out`, or for a student on a GPU a tensor for the gradient, made in the caller's stream.

    To that its memory returns.
    """
    if out is not None or not student.tensor or student.device.type != "cuda":
        return out
    torch = sys.modules["torch"]
    return torch.empty((student.rows, student.cols), dtype=student.source.dtype, device=student.device)


def gradient(arena: Memory, offset: int, student: Rows, out: Any) -> Any:
    """Return the float32 gradient at `offset` in `out`, or as a new array of the student's type and device."""
    source = arena.view(offset, student.rows, student.cols, _FLOAT32)
    if out is None and not student.tensor:
        return source.astype(student.source.dtype.newbyteorder("="))
    if out is None:
        torch = sys.modules["torch"]
        out = torch.empty(source.shape, dtype=student.source.dtype, device=student.device)
    if is_tensor(out):
        target = out.detach()
        if target.dtype == sys.modules["torch"].float32 and _alone(target):
            np.copyto(_as_array(target), source)
            return out
        target.copy_(_as_tensor(source, sys.modules["torch"].float32))
        if out.device.type == "cuda":
            # The copy may still be under way, in a stream of this thread, when another one reads the result.
            sys.modules["torch"].cuda.current_stream(out.device).synchronize()
    elif hasattr(out, "__cuda_array_interface__"):
        CudaArray.of(out, "out").write(source)
    else:
        np.copyto(out, source, casting="same_kind")
    return out


def gradient_on_gpu(arena: DeviceArena, offset: int, student: Rows, out: Any) -> Any:
    """Return the float32 gradient at `offset` of a GPU's memory as `gradient` does."""
    rows, width = student.rows, 4 * student.cols
    if not is_tensor(out) and hasattr(out, "__cuda_array_interface__"):
        there = CudaArray.of(out, "out")
        if there.ordinal == arena.ordinal:
            arena.take(Place(there.address, there.pitch, there.ordinal), offset, width, rows, there.stream)
            return out
    if student.tensor and (out is None or is_tensor(out)):
        torch = sys.modules["torch"]
        stream = torch.cuda.current_stream(student.device)
        whole = torch.empty((rows, student.cols), dtype=torch.float32, device=student.device)
        arena.take(Place(whole.data_ptr(), width, arena.ordinal), offset, width, rows, stream.cuda_stream)
        if out is None:
            out = whole.to(student.source.dtype)
        else:
            out.detach().copy_(whole)
        stream.synchronize()  # another thread may read the result, on another stream
        return out
    host = np.empty((rows, student.cols), np.float32)
    arena.take(Place(host.ctypes.data, width), offset, width, rows, 0)
    if is_tensor(out):
        out.detach().copy_(_as_tensor(host, sys.modules["torch"].float32))
    elif isinstance(out, np.ndarray):
        np.copyto(out, host, casting="same_kind")
    else:
        CudaArray.of(out, "out").write(host)
    return out
