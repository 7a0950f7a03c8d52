"""The strict YAML of settings: what it refuses, and that whatever it takes others read in the same way."""

import contextlib
import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from specalign import InputError
from specalign.openclip import _yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("k: .nan", "1:4: '.nan' is not a finite number"),
        ("k: -.Inf", "1:4: '-.Inf' is not a finite number"),
        ("k: 1e999", "1:4: '1e999' is too large a number"),
        ("k: " + "9" * 5000, "1:4: '9999999999999999999999999999999999999999'... is beyond 64 bits"),
        ("k: 1:30", "1:4: '1:30' is a number of base 60 to some"),
        ("center: yes", "1:9: 'yes' is a truth value to some"),
        ("center: Off", "1:9: 'Off' is a truth value to some"),
        ("center: tRue", "1:9: 'tRue' is spelt true"),
        ("k: 010", "1:4: '010' has a leading zero"),
        ("k: 0x1F", "1:4: '0x1F' is no decimal number"),
        ("k: 1_000", "1:4: '1_000' has underscores"),
        ("k: 2020-01-31 12:00:00", "1:4: '2020-01-31 12:00:00' is a date"),
        ("k: 2020-02-31", "1:4: '2020-02-31' is a date"),
        ("k: =", "1:4: '=' is no word"),
        ("a: 1\n\n  \nb: {a: 1,\n  a: 2}", "5:3: a is there twice; the first is on line 4"),
        ("k: !!bool foo", "1:4: tags"),
        ("k: !!python/object/apply:os.system [ls]", "1:4: tags"),
        ("k: ! foo", "1:4: tags"),
        ("!!map {k: 1}", "1:1: tags"),
        ("!!str k: 1", "1:1: a key has to be a word"),
        ("a: &x 1\nb: *x", "1:4: anchors and aliases"),
        ("b: *x", "1:4: anchors and aliases"),
        ("a: 1\n<<: {b: 2}", "2:1: merge keys"),
        ("a: 1\n---\nb: 2", "2:1: a second document"),
        ("1: 2", "1:1: the key '1' is not a word"),
        ("null: 2", "1:1: the key 'null' is not a word"),
        ("? [a]\n: 2", "1:3: a key has to be a word"),
        ("a: 1\n# \x1b\n", "2:3: the character U+001B"),
        ("a: \ud800", "1:4: the character U+D800"),
        ("a: b\u2028c: d", "1:5: the character U+2028"),
        ('a: "\\e"', "1:4: '\\x1b' has characters that cannot be printed"),
        ('a: "\\ud800"', "1:4: '\\ud800' has characters"),
        ('a: "x\\ny"', "1:4: 'x\\ny' has characters"),
        ('a: "\\U00110000"', "1:7: not YAML"),
        ("a: [1", "1:6: not YAML"),
        ("\ta: 1", "1:1: not YAML"),
        ("%YAML " + "1" * 5000 + ".1\n---\na: 1", "1:7: not YAML"),
        ("a: " + "[" * 9, "1:11: nested too deeply"),
        ("[" * 60_000, "1:9: nested too deeply"),
        ("a: " + "x" * 70_000, "larger than 64 KiB, which no settings are"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(InputError) as e:
        _yaml.load(text, "f")
    assert str(e.value).startswith(("f:" if message[0].isdigit() else "f: ") + message), str(e.value)


def test_takes():
    text = "\ufeff# a question\nk: 3\ntolerance: 1e-4\np: .5\ncenter: true\neta: ~\nname: 'yes'\n"
    text += 'l: [a b, -1, {x: "0x1"}]\n'
    data, places = _yaml.load(text, "f")
    assert data == {
        "k": 3, "tolerance": 1e-4, "p": 0.5, "center": True, "eta": None, "name": "yes", "l": ["a b", -1, {"x": "0x1"}]
    }  # fmt: skip
    assert (places[()], places[("k",)], places[("l", 2)], places[("l", 2, "x")]) == ((2, 1), (2, 1), (8, 14), (8, 15))


# PyYAML leaves without quotes what is a word to YAML 1.1 alone, such as 08, 1e5, 0o7 and tRue.
_unquoted = re.compile(r"[-+.]*[0-9].*|y|n|yes|no|on|off|true|false|null|[-+]?\.inf|\.nan", re.DOTALL | re.IGNORECASE)
_words = st.sampled_from(["yes", "No", "true", "NULL", "~", "012", "1.5", ".inf", "2020-01-01", "<<", "="]) | st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=8
).filter(lambda word: not _unquoted.fullmatch(word))
_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _words
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda of: st.lists(of, max_size=4) | st.dictionaries(_words, of, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_plain, st.booleans())
def test_what_others_write_is_read(data, flow):
    assert _yaml.load(yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True), "f")[0] == data


_pieces = st.lists(
    st.sampled_from(
        [*"aky019:-?,[]{}#&*!|>'\"%@`~<=._eE+xo \n\t\\", "\n  ", ": ", "- ", "yes", "null", "1e-4", "---", "...", "<<",
         "%YAML 1.", "!!int ", "\\x1b", "\\ud800", "\x1b", "\ufeff", "\r\n", "\u00e4", "terms", "2020-01-01", ".inf"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(_pieces | st.text(max_size=60))
def test_any_text_is_read_as_others_read_it_or_refused_with_its_place(text):
    refused = None
    try:
        data, _ = _yaml.load(text, "f")
    except InputError as e:
        refused = str(e)
    if refused is None:
        assert _same(data, yaml.safe_load(text)), text
    else:
        assert re.match(r"f:\d+:\d+: .|f: the file is empty$", refused), refused
        assert "\n" not in refused


def _same(ours, theirs):
    if isinstance(ours, float) and isinstance(theirs, str):  # 1e-4, which they take for a word
        return ours == float(theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_same(v, theirs[k]) for k, v in ours.items())
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize(
    "text",
    [
        "a" * 60_000, "- a\n" * 16_000, "a: [" + "{b: c}, " * 8_000 + "]", "? " * 30_000, "- " * 30_000,
        '"' + "\n" * 60_000, "a: |\n" + " b\n" * 20_000, "".join(f"k{i}: {i}\n" for i in range(5_000)),
        "#\n" * 30_000, "'" * 60_000,
    ],
)  # fmt: skip
def test_the_largest_documents_take_no_time(text):
    start = time.process_time()
    with contextlib.suppress(InputError):
        _yaml.load(text, "f")
    assert time.process_time() - start < 10
