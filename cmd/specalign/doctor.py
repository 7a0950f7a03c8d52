# What `specalign doctor` asks a Python; any version of Python 3 must be able to run it. Prints one line of JSON.
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
