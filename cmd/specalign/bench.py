# What `specalign bench` asks a Python with PyTorch, behind rivals.py, which defines the contestants. One request a line on
# stdin, one answer, JSON, a line on stdout.
import json
import os
import sys
import time

PAUSE = 0.02  # seconds before a turn: threads of the one before spin for a while before they sleep
TURN = 3  # calls, after one that is not counted


def main():
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what packages print goes elsewhere
    requests = sys.stdin.buffer
    ask = json.loads(requests.readline())
    n, d1, d2, k, threads = (ask[name] for name in ("rows", "student_dim", "reference_dim", "k", "threads"))

    def features(cols):
        return torch.frombuffer(bytearray(requests.read(4 * n * cols)), dtype=torch.float32).reshape(n, cols)

    student, reference = features(d1), features(d2)
    torch.set_num_threads(threads)
    calls = {
        "PyTorch, formed, eigh": lambda: dense(student, reference, k),
        "PyTorch, formed, Lanczos": lambda: lanczos_formed(student, reference, k),
        "PyTorch, matrix-free, Lanczos": lambda: lanczos_free(student, reference, k),
    }
    if k == 1:
        calls["paper: 20 + 20 power steps"] = lambda: paper(student, reference, k)
    note = ""
    try:
        import specalign
    except Exception as error:
        note = "the package specalign is not there, so the way through the sidecar was not measured (%s)" % error
    else:
        session = specalign.Sidecar(device="cpu", threads=threads).session(k=k)
        out = torch.empty_like(student)

        def sidecar():
            return session.step(student, reference, out=out).value, out

        calls["engine, through the sidecar"] = sidecar
    for call in calls.values():
        for _ in range(3):
            call()
    answer = {
        "names": list(calls),
        "note": note,
        "torch": torch.__version__,
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "torch_blas": "mkl" if torch.backends.mkl.is_available() else "openblas",
    }
    print(json.dumps(answer), file=answers)
    while True:
        request = json.loads(requests.readline() or "{}")
        if "turn" in request:
            call, times = calls[request["turn"]], []
            time.sleep(PAUSE)
            call()
            for _ in range(TURN):
                begin = time.perf_counter()
                call()
                times.append(time.perf_counter() - begin)
            print(json.dumps({"seconds": times}), file=answers)
        elif "errors" in request:  # against float64; the engine's gradient follows the line
            exact = dense(student.double(), reference.double(), k)[1]
            gradients = {"engine": features(d1)}
            gradients.update((name, call()[1]) for name, call in calls.items())
            errors = {name: ((g.double() - exact).norm() / exact.norm()).item() for name, g in gradients.items()}
            print(json.dumps({"errors": errors}), file=answers)
        else:
            return


main()
