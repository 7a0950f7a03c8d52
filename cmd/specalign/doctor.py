# What `specalign doctor` asks a Python; any version of Python 3 must be able to run it. Prints one line of JSON. With the
# argument "gpu" a step whose rows are on the GPU is tried, too.
import json
import os
import sys

answer = {
    "python": "%d.%d.%d" % sys.version_info[:3],
    "supported": sys.version_info >= (3, 10),
    "executable": sys.executable,
    "packages": {},
}


def reason(error):
    return (type(error).__name__ + ": " + str(error)).splitlines()[0]


def memory_note():
    """Take a step whose rows are on the GPU; tell why they go through host memory, or nothing where they stay there."""
    import ctypes

    import numpy
    import specalign
    from specalign import _gpu

    rows = numpy.random.default_rng(1).standard_normal((64, 24)).astype("float32")
    with specalign.Sidecar() as sidecar, sidecar.session() as session:
        ordinal, address, driver = int(sidecar.hello.device[5:]), ctypes.c_uint64(), _gpu.driver()
        with driver.current(ordinal):
            driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(rows.nbytes))
        width = rows.nbytes // len(rows)
        there = _gpu.Place(address.value, width, ordinal)
        driver.copy(ordinal, there, _gpu.Place(rows.ctypes.data, width), width, len(rows), 0)

        class OnGPU:
            __cuda_array_interface__ = {
                "shape": rows.shape, "typestr": rows.dtype.str, "data": (address.value, False), "version": 3
            }  # fmt: skip

        session.step(OnGPU(), rows[::-1].copy(), rows)
        return session.memory_note


if answer["supported"]:
    from importlib import metadata

    for name in ("numpy", "grpcio", "specalign", "torch", "open-clip-torch", "webdataset"):
        try:
            answer["packages"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    if "specalign" in answer["packages"]:
        try:
            from specalign import _binary
        except Exception as error:
            answer["specalign_error"] = reason(error)
        else:
            try:
                answer["program"] = _binary.find()
                beside = os.path.dirname(os.path.realpath(answer["program"]))
                answer["library"] = os.path.isfile(os.path.join(beside, "libspecalign.so"))
            except Exception:
                pass
        if "gpu" in sys.argv and "program" in answer:
            try:
                answer["memory_note"] = memory_note()
            except Exception as error:
                answer["memory_note"] = reason(error)
    if "torch" in answer["packages"]:
        try:
            import torch

            answer["cuda"] = torch.cuda.is_available()
        except Exception as error:
            answer["torch_error"] = reason(error)
    if "open-clip-torch" in answer["packages"]:
        try:
            import inspect

            from open_clip_train.main import train_one_epoch

            names = list(inspect.signature(train_one_epoch).parameters)
            known = "model data loss epoch optimizer scaler scheduler dist_model args tb_writer".split()
            answer["loop"] = "known" if names == known else "unknown"
            answer["loop_detail"] = "train_one_epoch(" + ", ".join(names) + ")"
        except Exception as error:
            answer["loop_detail"] = reason(error)

print()
print(json.dumps(answer))
