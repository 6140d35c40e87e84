from proving import broken, prove


def test_a_store_is_what_a_dictionary_is_whatever_is_done_in_whatever_order():
    figures = prove("machine", 300)
    assert isinstance(figures, dict), figures
    assert figures["machines"] >= 300
    for done in (
        "append",
        "drop",
        "adopt",
        "merge",
        "compact",
        "forget",
        "close",
        "kills",
        "old_reads",
        "refused",
    ):
        assert figures[done] > 20, done  # else the machine does not do it


def test_a_tombstone_that_is_passed_over_is_found_out(tmp_path):
    skipped = broken(tmp_path, "store/level.py", "dict.fromkeys(dropped, -1) | newest.live", "newest.live")
    said = prove("machine", 300, package=skipped)
    assert isinstance(said, str), said
    assert "drop(" in said
