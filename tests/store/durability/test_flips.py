import pytest
from proving import broken, prove


def test_every_flipped_byte_and_a_thousand_flipped_bits_are_seen_or_harmless():
    figures = prove("flips", 1_000)
    assert isinstance(figures, dict), figures
    assert figures["bytes_of_tiny_stores"] > 8_000
    assert figures["seen_by_verify"] == figures["bytes_of_tiny_stores"] + 1_000
    assert figures["seen_by_opening"] + figures["seen_by_reading"] > 0.9 * figures["seen_by_verify"]


@pytest.mark.parametrize(
    ("file", "check", "instead", "words"),
    [
        ("store/files.py", "if digest != file.sha256:", "if False:", "verified all the same"),
        ("store/shard.py", "if len(wrong):", "if False:", "read as something else"),
        ("store/shard.py", "if crc32(back, crc32(front)) != crc:", "if False:", "read as something else"),
        (
            "store/texts.py",
            "if text_crcs(lengths, texts) != crcs.tolist():",
            "if False:",
            "read as something else",
        ),
    ],
)
def test_a_checksum_that_is_not_compared_is_found_out(tmp_path, file, check, instead, words):
    said = prove("flips", 0, package=broken(tmp_path, file, check, instead))
    assert isinstance(said, str), said
    assert words in said
