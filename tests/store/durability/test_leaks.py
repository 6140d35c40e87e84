from proving import broken, prove


def test_a_thousand_rounds_leave_nothing_behind():
    figures = prove("leaks", 1_000)
    assert isinstance(figures, dict), figures
    assert figures["rounds"] == 1_000
    assert figures["files_more"] == figures["temporary_more"] == figures["threads_more"] == 0


def test_a_file_that_is_not_closed_is_found_out(tmp_path):
    before = "# read only: nothing can be lost\n                os."
    left_open = broken(tmp_path, "store/files.py", before + "close(", before + "fstat(")
    said = prove("leaks", 20, package=left_open)
    assert isinstance(said, str), said
    assert "files:" in said


def test_memory_that_is_kept_is_found_out(tmp_path):
    read = "        data = bytearray(end - start)\n"
    kept = broken(tmp_path, "store/files.py", read, read + "        _KEPT.append(bytes(data))\n")
    path = kept / "msr_enhance/store/files.py"
    path.write_text(path.read_text() + "\n\n_KEPT: list[bytes] = []\n")
    said = prove("leaks", 300, package=kept)
    assert isinstance(said, str), said
    assert "kilobytes:" in said
