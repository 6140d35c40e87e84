import contextlib
import hashlib

import pytest

from msr_enhance.fingerprint import canonical_json, fingerprint, parse_canonical_json


def test_equal_values_have_one_spelling():
    value = {"b": [1, 2.5, None], "a": "é\n"}
    assert canonical_json(value) == '{"a":"é\\n","b":[1,2.5,null]}'.encode()
    assert canonical_json({"a": "é\n", "b": (1, 2.5, None)}) == canonical_json(value)
    assert fingerprint(value) == hashlib.sha256(canonical_json(value)).hexdigest()
    assert fingerprint(value) != fingerprint(value | {"b": [1, 2.5, False]})


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": "\ud800"}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError):
        canonical_json(value)


def test_canonical_bytes_read_back():
    value = {"a": [1, -0.0, 10**30, "</s>"], "b": {}}
    assert parse_canonical_json(canonical_json(value)) == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b"NaN",
        b"1e999",
        b'"\\u001B"',
        b'{"b":1,"a":1}',
        b"\xff",
        b"",
        b"[" * 10**5,
    ],
)
def test_every_other_spelling_is_refused(data):
    with pytest.raises(ValueError):
        parse_canonical_json(data)


def test_json_of_any_depth_reads_or_is_refused():
    """Reading and writing have limits of their own, and one depth lies between them."""
    for depth in range(700, 1100):
        with contextlib.suppress(ValueError):
            parse_canonical_json(b"[" * depth + b"]" * depth)
