"""The fast tokenizer against a slow one over the same `tokenizer.model`, and files that are not one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from chatglm_checkpoint import CURRENT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece_file import (
    BYTE,
    CONTROL,
    CORPUS,
    NORMAL,
    SPACE,
    UNUSED,
    USER_DEFINED,
    Entry,
    entries,
    field,
    model_bytes,
    slow_decode,
    slow_encode,
    varint,
)

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm import pieces as reading
from msr_enhance.llm.chatglm import tokenizer as building
from msr_enhance.llm.chatglm.tokenizer import load_tokenizer

PIECES = entries()
FIRST = [len(PIECES) + 1, len(PIECES) + 3]  # [gMASK] sop
CONTROLS = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<unk>", "<s>", "</s>", "<|user|>", "<0x0A>"]
TEXTS = st.text(alphabet=st.sampled_from(CORPUS + "\n\t \x00é😀\u2581\u200b")) | st.lists(
    st.sampled_from([*CORPUS.split(" "), *CONTROLS, " ", "  "])
).map("".join)


def written(folder: Path, content: bytes) -> Path:
    (folder / "tokenizer.model").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(written(tmp_path_factory.mktemp("model"), model_bytes(PIECES)), CURRENT)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_ids_are_those_of_merging_by_score(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids == [*FIRST, *slow_encode(text, PIECES)]
    assert tokenizer.decode(ids) == text.replace(SPACE, " ")


@settings(deadline=None, max_examples=60)
@given(
    scored=st.dictionaries(st.text("ab\u2581", min_size=2, max_size=5), st.integers(-50, 0), max_size=40),
    texts=st.lists(st.text("ab ", max_size=30), min_size=3, max_size=8),
)
def test_the_order_of_scores_decides_where_pieces_overlap(scored: dict[str, int], texts: list[str]) -> None:
    letters = [(letter, -1000.0, NORMAL) for letter in ("a", "b", SPACE)]
    # Every score once: pieces of one score have no order that both ways would have to share.
    scores = sorted(range(len(scored)), key=lambda at: (list(scored.values())[at], at))
    merged = [(text, -float(scores[at]), NORMAL) for at, text in enumerate(scored)]
    some = [*PIECES[:259], *merged, *letters]
    with TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(written(Path(folder), model_bytes(some)), {})
    for text in texts:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == slow_encode(text, some)


def test_merges_and_bytes_are_really_used(tokenizer: Any) -> None:
    """The comparison above would be empty over a file of single characters."""
    ids = [one for text in CORPUS.split(" ") for one in slow_encode(text, PIECES)]
    assert max(len(PIECES[one][0]) for one in ids) > 3
    assert PIECES[slow_encode("é", PIECES)[-1]][2] == BYTE


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(
        st.integers(3, 258)
        | st.integers(0, len(PIECES) + 200)
        | st.sampled_from([3 + byte for byte in "é问😀\u2581".encode()])
    )
)
def test_any_ids_decode_as_the_published_code_does(tokenizer: Any, ids: list[int]) -> None:
    expected = slow_decode(ids, PIECES)
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == expected
    assert tokenizer.batch_decode([ids, ids]) == [expected, expected]


def test_one_broken_byte_costs_one_sign(tokenizer: Any) -> None:
    broken = [3 + byte for byte in b"a\xe4\xbd\xff" + "好".encode()]
    assert tokenizer.decode(broken) == "a\ufffd\ufffd\ufffd好"
    assert tokenizer.backend_tokenizer.decode(broken) != tokenizer.decode(broken)  # why it is decoded here
    assert tokenizer.decode(3 + ord("x")) == "x"


@pytest.mark.parametrize("split", [{}, {"split_special_tokens": True}])
@pytest.mark.parametrize("text", [*CONTROLS, "[gMASK] sop </s>", "philosophy developed"])
def test_text_that_looks_like_a_special_token_stays_text(tokenizer: Any, text: str, split: Any) -> None:
    ids = tokenizer(text, add_special_tokens=False, **split)["input_ids"]
    assert ids == slow_encode(text, PIECES)
    assert all(3 <= one < len(PIECES) for one in ids)


def test_padding_stands_left_and_truncation_cuts_right(tokenizer: Any) -> None:
    texts = ["the sea", "the sand and the music of the sea", ""]
    rows = [[*FIRST, *slow_encode(text, PIECES)] for text in texts]
    batch = tokenizer(texts, padding=True)
    width = max(map(len, rows))
    assert batch["input_ids"] == [[0] * (width - len(row)) + row for row in rows]
    assert batch["attention_mask"] == [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    assert set(batch) == {"input_ids", "attention_mask"}
    assert tokenizer(texts, truncation=True, max_length=4)["input_ids"] == [row[:4] for row in rows]
    pair = tokenizer("the sea", "the sand")["input_ids"]
    assert pair == [*FIRST, *slow_encode("the sea", PIECES), *slow_encode("the sand", PIECES), 2]


def test_it_is_a_fast_tokenizer_with_the_ids_of_the_published_one(tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert tokenizer.backend_tokenizer.encode("the sea").ids == tokenizer("the sea")["input_ids"]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id) == (0, 0, 2)
    specials = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>"]
    expected = [len(PIECES) + number for number in range(7)]
    assert tokenizer.convert_tokens_to_ids(specials) == expected
    assert tokenizer.chat_template is None


def replaced(at: int, **parts: Any) -> list[Entry]:
    text, score, kind = PIECES[at]
    new = (parts.get("text", text), parts.get("score", score), parts.get("kind", kind))
    return [*PIECES[:at], new, *PIECES[at + 1 :]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "it holds no pieces"),
        (lambda: b"\xff" * 40, "no protobuf number"),
        (lambda: b"\x0c", "no protobuf field"),
        (lambda: b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01abc", "it ends inside a field of"),
        (lambda: b"\x0a\x85", "it ends inside a number"),
        (lambda: b"\x08\x05", "a number stands where bytes belong"),
        (lambda: b'{"model": "json"}', "is no sentencepiece BPE model"),
        (lambda: field(1, field(1, b"\xff\xfe")), "utf-8"),
        (lambda: field(1, field(1, b"a") + field(2, b"score")), "piece 0 has no float score"),
        (lambda: field(1, b""), "piece 0 has 0 characters"),
        (lambda: model_bytes(replaced(300, text="x" * 257)), "piece 300 has 257 characters"),
        (lambda: model_bytes(replaced(300, score=float("nan"))), "the score nan"),
        (lambda: model_bytes(replaced(300, kind=USER_DEFINED)), "piece 300 is of kind 4"),
        (lambda: model_bytes(replaced(300, kind=UNUSED)), "piece 300 is of kind 5"),
        (lambda: model_bytes(replaced(300, kind=CONTROL)), "control pieces beside"),
        (lambda: model_bytes(replaced(300, text=PIECES[301][0])), "a piece appears twice"),
        (lambda: model_bytes(replaced(2, text="<eos>")), r"first pieces are .*not <unk>, <s>, </s>"),
        (lambda: model_bytes(PIECES[1:]), r"first pieces are"),
        (lambda: model_bytes([*PIECES[:9], *PIECES[10:]]), "256 byte pieces .* are not complete"),
        (lambda: model_bytes(PIECES, {3: 1}), "model_type is 1, and only 2"),
        (lambda: model_bytes(PIECES, {35: 0}), "byte_fallback is 0, and only 1"),
        (lambda: model_bytes(PIECES, {24: 1}), "treat_whitespace_as_suffix is 1"),
        (lambda: model_bytes(PIECES, None, {3: 0}), "add_dummy_prefix is 0"),
        (lambda: model_bytes(PIECES, None, {4: 1}), "remove_extra_whitespaces is 1"),
        (lambda: model_bytes(PIECES, None, {5: 0}), "escape_whitespaces is 0"),
        (lambda: model_bytes(PIECES, None, {2: b"charsmap"}), "precompiled_charsmap is b'charsmap'"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (lambda: b"IQ== 0\nIg== 1\n", r"tiktoken .*GLM-4.*-hf"),
    ],
)
def test_a_file_that_is_no_such_tokenizer_is_refused(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    with pytest.raises(ModelError, match=f"(?s)tokenizer.model .*{message}"):
        load_tokenizer(written(tmp_path, content()), CURRENT)


def test_a_file_cut_or_changed_anywhere_never_raises_anything_else(tmp_path: Path) -> None:
    whole = model_bytes(entries(20))
    draw, refused = random.Random(0), 0
    for turn in range(120):
        content = bytearray(whole[: draw.randrange(len(whole))] if turn % 2 else whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            load_tokenizer(written(tmp_path, bytes(content)), CURRENT)
        except ModelError:
            refused += 1
    assert refused > 60  # every cut one; a changed score or character may pass


def test_files_larger_than_any_tokenizer_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, model_bytes(PIECES))
    monkeypatch.setattr(reading, "MOST_PIECES", 100)
    with pytest.raises(ModelError, match="more than 100 pieces"):
        load_tokenizer(folder, CURRENT)
    monkeypatch.setattr(reading, "LARGEST_FILE", 1000)
    with pytest.raises(ModelError, match="more than 1000 bytes, too many"):
        load_tokenizer(folder, CURRENT)


def test_a_small_file_with_merges_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cut of one letter over and over is a merge: the merges grow with the square of the file."""
    runs = [("a" * length, -float(length), NORMAL) for length in range(1, 200)]
    folder = written(tmp_path, model_bytes([*PIECES[:259], *runs, (SPACE, -300.0, NORMAL)]))
    tokenizer = load_tokenizer(folder, CURRENT)
    assert tokenizer.decode(tokenizer("a" * 500)["input_ids"]) == "a" * 500
    monkeypatch.setattr(building, "_MOST_MERGES", 199 * 198 // 2 - 1)
    with pytest.raises(ModelError, match="more than 19700 merges"):
        load_tokenizer(folder, CURRENT)


@pytest.mark.parametrize(
    ("table", "fits"),
    [(len(PIECES) + 4, False), (len(PIECES) + 5, True), (512, True), (65024, False), (None, True)],
)
def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path, table: int | None, fits: bool) -> None:
    folder, raw = written(tmp_path, model_bytes(PIECES)), {**CURRENT, "padded_vocab_size": table}
    if fits:
        load_tokenizer(folder, raw)
        return
    with pytest.raises(
        ModelError, match=rf"has {len(PIECES)} pieces, but .* a table of {table}.*another model's"
    ):
        load_tokenizer(folder, raw)


def test_a_folder_without_the_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer.model cannot be read: No such file"):
        load_tokenizer(tmp_path, CURRENT)
    (tmp_path / "ice_text.model").touch()
    with pytest.raises(ModelError, match=r"first-generation ChatGLM-6B \(ice_text.model\)"):
        load_tokenizer(tmp_path, CURRENT)
    (tmp_path / "tokenizer.model").mkdir()
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(tmp_path, CURRENT)


def test_a_special_token_among_the_pieces_is_refused(tmp_path: Path) -> None:
    content = model_bytes(replaced(300, text="[gMASK]"))
    with pytest.raises(ModelError, match=r"special token \[gMASK\] among its pieces"):
        load_tokenizer(written(tmp_path, content), CURRENT)


def test_numbers_of_any_length_are_written_as_the_reader_expects() -> None:
    """The writer of these tests, against numbers that protobuf's documentation spells out."""
    assert [varint(number) for number in (1, 150, 300)] == [b"\x01", b"\x96\x01", b"\xac\x02"]
