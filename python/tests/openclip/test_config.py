import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from specalign import InputError
from specalign.openclip import _config
from specalign.openclip._reader import PENALTY
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
        ("- 1\n", r"a.yaml:1:\d+: give settings"),
        ("reference: s\nweigth: 2\n", r"a.yaml:2:\d+: there is no setting weigth; did you mean weight\?"),
        ("reference: s\nzzz: 2\n", r"a.yaml:2:\d+: there is no setting zzz; known are "),
        ("reference: s\nweight: 2\n\nweight: 3\n", r"a.yaml:4:\d+: weight is there twice; the first is on line 2"),
        ("reference: s\nterms:\n- {k: 1, k: 2}\n", r"a.yaml:3:\d+: k is there twice"),
        ("reference: s\nweight: -1\n", r"a.yaml:2:\d+: weight is -1; give a number of 0 or more"),
        ("reference: s\nweight: true\n", r"a.yaml:2:\d+: weight is True"),
        ("weight: 1\n", r"a.yaml: reference is missing"),
        ("reference: {modell: x}\n", r"a.yaml:1:\d+: there is no setting modell; known are live, store"),
        ("reference: 3\n", r"a.yaml:1:\d+: reference is missing"),
        ("reference: s\nschedule: linear\n", r"a.yaml:2:\d+: kind is 'linear'; give constant or warmup or cosine"),
        ("reference: s\nschedule:\n  kind: warmup\n", r"a.yaml:2:\d+: a warmup schedule needs its steps"),
        ("reference: s\nschedule:\n  kind: warmup\n  warmup: 3\n  final: 1\n", r"a.yaml:2:\d+: steps and final belong"),
        ("reference: s\nschedule: {kind: cosine, warmup: 9, steps: 5}\n", r"a.yaml:2:\d+: the cosine ends at step 5"),
        ("reference: s\nscope: world\n", r"a.yaml:2:\d+: scope is 'world'; give global or local"),
        ("reference: s\nmax_failures: 0\n", r"a.yaml:2:\d+: max_failures is 0"),
        ("reference: s\nisolation: thread\n", r"a.yaml:2:\d+: isolation is 'thread'; give process or none"),
        ("reference: s\nweight: 2020-01-01\n", r"a.yaml:2:9: '2020-01-01' is a date"),
        ("reference: [\n", r"a.yaml:2:\d+: not YAML"),
        ("reference: s\nterms:\n- {objectiv: ky_fan}\n", r"a.yaml:3:4: there is no setting objectiv; did you mean ob"),
        ("reference: s\nterms: [ky_fan]\n", r"a.yaml:2:9: a term is a mapping"),
        ("reference: s\nterms: []\n", r"a.yaml:2:1: terms is no list of any"),
        ("reference: [{store: s, terms: [{q: 1}]}]\n", r"a.yaml:1:33: there is no setting q"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        _config.parse(text, "a.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"k: 1\nweight: \xff", "b.yaml:2:9: not UTF-8 text"),
        (b"# " + b"\xc3\xa4" * 40_000, "b.yaml: larger than 64 KiB"),
        (b"\xff" + b"x" * 70_000, "b.yaml:1:1: not UTF-8 text"),
        ("reference: s".encode("utf-16"), "b.yaml:1:1: not UTF-8 text"),
    ],
)
def test_refuses_files(tmp_path, content, message):
    (tmp_path / "b.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        _config.load(str(tmp_path / "b.yaml"), [])


@pytest.mark.parametrize(
    ("name", "message"), [("none.yaml", "No such file"), ("", "Is a directory"), ("a\0b", "null byte")]
)
def test_refuses_paths(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        _config.load(str(tmp_path / name), [])


def test_errors_of_the_penalty_have_the_place_of_the_setting(sidecar):
    """The sidecar judges values; its message gets the place of the setting it speaks of, the target's own first."""
    text = """\
k: 5
reference:
  - {store: s, k: 0}
  - {store: t, terms: [{objective: ky_fan}, {objective: schatten, p: 9}]}
  - {store: u, kernel: gausian}
  - {store: v, eta: -1, k: 4}
"""
    config = _config.parse(text, "a.yaml")
    errors = []
    for target in config.targets:
        with pytest.raises(InputError) as e:
            sidecar.session(**target.penalty)
        errors.append(str(config.error(str(e.value), target)))
    assert errors == [
        "a.yaml:3:16: k is 0; give 1 or more",
        "a.yaml:4:67: terms[1].p is 9; give 1 to 2",
        'a.yaml:5:16: kernel is "gausian"; give cosine, linear, gaussian or laplacian',
        "a.yaml:6:16: eta is -1; give a number between 0 and 1e+15",
    ]
    config = _config.parse("reference: s\nk: 3\n", "a.yaml", ["k=0"])
    assert str(config.error("specalign: k is 0", config.targets[0])) == "--set k: k is 0"


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


EXAMPLES = sorted((Path(__file__).parents[3] / "configs/openclip").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path, sidecar):
    text = path.read_text()
    assert re.match(r"# .+\?( .+)?\n", text), "its first line is the question that it answers"
    config = _config.load(str(path), [])
    for target in config.targets:
        sidecar.session(**target.penalty).close()


def test_examples_show_what_there_is():
    configs = [_config.load(str(path), []) for path in EXAMPLES]
    assert any(c.ratio for c in configs)
    assert any(c.anchor for c in configs)
    assert any(len(c.targets) > 1 for c in configs)
    assert {t.kind for c in configs for t in c.targets} >= {"store", "live"}


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
        ("reference: s\nweight: {smoothing: 0.5}\n", r"a.yaml:2:\d+: weight is a mapping without ratio"),
        ("reference: s\nweight: {ratio: -1}\n", r"a.yaml:2:\d+: ratio is -1"),
        ("reference: s\nweight: {ratio: 1, smoothing: 1}\n", r"a.yaml:2:\d+: smoothing is 1; give 0 or more and less"),
        ("reference: s\nweight: {ratoi: 1}\n", r"a.yaml:2:\d+: there is no setting ratoi; did you mean ratio"),
        ("reference: s\nfeatures: images\n", r"a.yaml:2:\d+: features is 'images'; give image or text or both"),
        ("reference: []\n", r"a.yaml:1:\d+: reference is an empty list"),
        ("reference:\n  - s\n  - {store: t, objektive: x}\n", r"a.yaml:3:\d+: there is no setting objektive"),
        ("reference:\n  - {weight: 2}\n", r"a.yaml:2:\d+: reference is missing"),
        ("reference: {store: s, live: t}\n", r"a.yaml:1:\d+: reference is missing"),
        ("reference: s\nanchor: {weight: x}\n", r"a.yaml:2:\d+: weight is 'x'"),
        ("reference: s\nsamples: {every: 0}\n", r"a.yaml:2:\d+: every is 0; give a whole number of 1 or more"),
        ("reference: s\nmissing: ignore\n", r"a.yaml:2:\d+: missing is 'ignore'; give stop or skip"),
        ("reference: s\ngrad_scale: own\n", r"a.yaml:2:\d+: grad_scale is 'own'; give exact or openclip"),
    ],
)
def test_refuses_what_goes_with_them(text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        _config.parse(text, "a.yaml")


_names = st.sampled_from(
    [*_config.RUN, *PENALTY, "ratio", "smoothing", "max", "kind", "warmup", "steps", "final", "store", "live", "every"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.integers() | st.floats()
    | st.sampled_from(["cosine", "both", "distill", "s", "local", "match", "ky_fan"]) | st.text(max_size=3),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(_names, of, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_names, _values, max_size=6))
def test_any_settings_are_read_or_refused_with_their_place(values):
    text = yaml.safe_dump({"reference": "s", **values}, allow_unicode=True)
    refused = None
    try:
        config = _config.parse(text, "f")
    except InputError as e:
        refused = str(e)
    if refused is None:
        assert config.targets
        assert all(config.schedule.factor(step, 100) >= 0 for step in (0, 7, 10**6))
    else:
        assert re.match(r"f:\d+:\d+: .|f: reference is missing", refused), refused
        assert "\n" not in refused
