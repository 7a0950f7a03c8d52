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
    (target,) = c.targets
    assert (target.kind, target.name, target.features, c.weight, c.max_failures) == ("store", "store", "image", 2.0, 10)
    assert target.penalty == {
        "terms": [
            {"objective": "ky_fan", "k": 30, "weight": 1.5},
            {"objective": "relational_kl", "temperature": 0.1},
        ],
        "tolerance": 1e-4,
    }
    assert c.schedule == Schedule("cosine", 10)


def test_overrides():
    c = _config.parse(GOOD, "a.yaml", ["weight=0", "reference={live: 'timm:x'}"])
    assert (c.weight, c.targets[0].kind, c.targets[0].name) == (0.0, "live", "timm:x")
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
        ("reference: {modell: x}\n", r"a.yaml:1: there is no setting modell; known are live, store"),
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


SEVERAL = """\
reference:
  - dinov2
  - {store: captions, features: both, weight: 0.3, objective: relational_kl, temperature: 0.2}
  - distill
objective: ky_fan
k: 7
center: true
weight: {ratio: 0.4, smoothing: 0.9}
anchor: {weight: 0.1, features: both}
samples: 50
grad_scale: match
"""


def test_several_references():
    c = _config.parse(SEVERAL, "a.yaml", ["missing=skip"])
    assert [(t.kind, t.name, t.features, t.weight) for t in c.targets] == [
        ("store", "dinov2", "image", 1.0), ("store", "captions", "image", 0.3), ("store", "captions", "text", 0.3),
        ("distill", "", "image", 1.0),
    ]  # fmt: skip
    assert c.targets[0].penalty == {"objective": "ky_fan", "k": 7, "center": True}
    assert c.targets[1].penalty == {"objective": "relational_kl", "temperature": 0.2, "center": True}
    assert c.sides == ("image", "text")
    assert (c.weight, c.ratio) == (None, _config.Ratio(0.4, 0.9))
    assert (c.anchor, c.samples) == (_config.Anchor(0.1, ("image", "text")), _config.Samples(50, 5, 8))
    assert (c.grad_scale, c.missing) == ("openclip", "skip")  # match is its name before
    assert _config.parse(SEVERAL, "a.yaml", ["weight=2", "anchor=0"]).anchor is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reference: s\nweight: {smoothing: 0.5}\n", r"a.yaml:2: weight is a mapping without ratio"),
        ("reference: s\nweight: {ratio: -1}\n", r"a.yaml:2: ratio is -1"),
        ("reference: s\nweight: {ratio: 1, smoothing: 1}\n", r"a.yaml:2: smoothing is 1; give 0 or more and less"),
        ("reference: s\nweight: {ratoi: 1}\n", r"a.yaml:2: there is no setting ratoi; did you mean ratio"),
        ("reference: s\nfeatures: images\n", r"a.yaml:2: features is 'images'; give image or text or both"),
        ("reference: []\n", r"a.yaml:1: reference is an empty list"),
        ("reference:\n  - s\n  - {store: t, objektive: x}\n", r"a.yaml:3: there is no setting objektive"),
        ("reference:\n  - {weight: 2}\n", r"a.yaml:2: reference is missing"),
        ("reference: {store: s, live: t}\n", r"a.yaml:1: reference is missing"),
        ("reference: s\nanchor: {weight: x}\n", r"a.yaml:2: weight is 'x'"),
        ("reference: s\nsamples: {every: 0}\n", r"a.yaml:2: every is 0; give a whole number of 1 or more"),
        ("reference: s\nmissing: ignore\n", r"a.yaml:2: missing is 'ignore'; give stop or skip"),
        ("reference: s\ngrad_scale: own\n", r"a.yaml:2: grad_scale is 'own'; give exact or openclip"),
    ],
)
def test_refuses_what_goes_with_them(text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        _config.parse(text, "a.yaml")
