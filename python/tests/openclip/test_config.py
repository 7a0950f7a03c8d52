import pytest

from specalign import InputError
from specalign.openclip import _config
from specalign.openclip._schedule import Schedule

GOOD = """\
# a question
reference: store
weight: 2
terms:
  - {objective: ky_fan, k: 30, weight: 1.5}
  - objective: relational_kl
    temperature: 1e-1
schedule: {kind: cosine, warmup: 10}
tolerance: 1e-4
"""


def test_reads_settings():
    c = _config.parse(GOOD, "align.yaml")
    assert (c.reference, c.live, c.weight, c.max_failures) == ("store", None, 2.0, 10)
    assert c.penalty == {
        "terms": [
            {"objective": "ky_fan", "k": 30, "weight": 1.5},
            {"objective": "relational_kl", "temperature": 0.1},
        ],
        "tolerance": 1e-4,
    }
    assert c.schedule == Schedule("cosine", 10)


def test_overrides():
    c = _config.parse(GOOD, "a.yaml", ["weight=0", "reference={live: 'timm:x'}"])
    assert (c.weight, c.reference, c.live) == (0.0, None, "timm:x")
    with pytest.raises(InputError, match=r"^--set weight: weight is 'heavy'"):
        _config.parse(GOOD, "a.yaml", ["weight=heavy"])
    with pytest.raises(InputError, match="NAME=VALUE"):
        _config.parse(GOOD, "a.yaml", ["weight"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a.yaml: the file is empty"),
        ("- 1\n", r"a.yaml:1: give settings"),
        ("reference: s\nweigth: 2\n", r"a.yaml:2: there is no setting weigth; did you mean weight\?"),
        ("reference: s\nzzz: 2\n", r"a.yaml:2: there is no setting zzz; known are "),
        ("reference: s\nweight: 2\n\nweight: 3\n", r"a.yaml:4: weight is there twice; the first is on line 2"),
        ("reference: s\nterms:\n- {k: 1, k: 2}\n", r"a.yaml:3: k is there twice"),
        ("reference: s\nweight: -1\n", r"a.yaml:2: weight is -1; give a number of 0 or more"),
        ("reference: s\nweight: .nan\n", r"a.yaml:2: weight is nan"),
        ("reference: s\nweight: true\n", r"a.yaml:2: weight is True"),
        ("weight: 1\n", r"a.yaml: reference is missing"),
        ("reference: {modell: x}\n", r"a.yaml:1: there is no setting modell; known are live"),
        ("reference: 3\n", r"a.yaml:1: reference is missing"),
        ("reference: s\nschedule: linear\n", r"a.yaml:2: kind is 'linear'; give constant or warmup or cosine"),
        ("reference: s\nschedule:\n  kind: warmup\n", r"a.yaml:2: a warmup schedule needs its steps"),
        ("reference: s\nschedule:\n  kind: warmup\n  warmup: 3\n  final: 1\n", r"a.yaml:2: steps and final belong"),
        ("reference: s\nschedule: {kind: cosine, warmup: 9, steps: 5}\n", r"a.yaml:2: the cosine ends at step 5"),
        ("reference: s\nscope: world\n", r"a.yaml:2: scope is 'world'; give global or local"),
        ("reference: s\nmax_failures: 0\n", r"a.yaml:2: max_failures is 0"),
        ("reference: s\nweight: 2020-01-01\n", r"a.yaml:2: '2020-01-01' is a date"),
        ("reference: [\n", r"a.yaml:2: not YAML"),
        ("reference: !!python/object:os.system x\n", r"a.yaml:1: not YAML"),
        ("a: 1\n---\nb: 2\n", r"a.yaml:2: not YAML"),
        ("1: 2\n", r"a.yaml:1: the key 1 is not a word"),
        ("a: " + "[" * 3000 + "]" * 3000, r"a.yaml.*(deep|not YAML)"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        _config.parse(text, "a.yaml")


def test_refuses_files(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        _config.load(str(tmp_path / "none.yaml"), [])
    (tmp_path / "b.yaml").write_bytes(b"weight: \xff")
    with pytest.raises(InputError, match="not UTF-8"):
        _config.load(str(tmp_path / "b.yaml"), [])


def test_schedules():
    assert Schedule().factor(7, 100) == 1
    rise = Schedule("warmup", 4)
    assert [rise.factor(s, 100) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    cosine = Schedule("cosine", 10, None, 0.2)
    assert cosine.factor(10, 110) == pytest.approx(1)
    assert cosine.factor(60, 110) == pytest.approx(0.6)
    assert cosine.factor(110, 110) == pytest.approx(0.2)
    assert cosine.factor(500, 110) == pytest.approx(0.2)
    assert Schedule("cosine", 0, 20).factor(20, 1000) == pytest.approx(0)
