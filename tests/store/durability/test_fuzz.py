import pytest
from proving import broken, prove

FINDS = [
    ("store/level.py", "if number < len(self._entries) else None", "", "IndexError"),
    ("store/shard.py", "ends[-1] != len(blob) or (ends[1:] < ends[:-1]).any()", "False", "do not divide"),
    ("store/shard.py", "(status >= len(STATUSES)).any() or ", "", "a status that there is not"),
    ("store/shard.py", "frame is None or len(data) != frame.bytes or", "False or", "AttributeError"),
    ("store/texts.py", " or (ends[1:] < ends[:-1]).any()", "", "a negative length"),
    ("store/transform.py", "np.isfinite(offset).all() and np.isfinite(matrix).all()", "True", "not finite"),
    ("store/manifest.py", " == manifest.id_type.keys()", "", "KeyError"),
    ("store/manifest.py", "if all(seen[marks] <= most[marks] for", "if all(True for", "victim failed"),
    ("fingerprint.py", "except RecursionError as error:", "except KeyError as error:", "RecursionError"),
]


def test_no_input_ends_with_anything_but_a_declared_error():
    figures = prove("fuzz", 100_000)
    assert isinstance(figures, dict), figures
    assert figures["inputs"] > 100_000
    assert figures["slowest_ms"] <= 1_000
    for target in ("manifest", "vec", "txt", "del", "idx", "map", "store"):
        assert figures[f"{target}_refused"] > 1_000  # else the changes are none
        assert figures[f"{target}_accepted"] > 100  # else they never get past the first check


@pytest.mark.slow
@pytest.mark.parametrize(("file", "check", "instead", "words"), FINDS)
def test_a_check_that_is_taken_out_is_found_out(tmp_path, file, check, instead, words):
    said = prove("fuzz", 20_000, package=broken(tmp_path, file, check, instead))
    assert isinstance(said, str), said
    assert words in said
