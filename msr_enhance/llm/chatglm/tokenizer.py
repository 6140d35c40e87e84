"""A fast tokenizer for ChatGLM2 and ChatGLM3, built from `tokenizer.model`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm.pieces import BYTE, NORMAL, Piece, read_pieces

FILE = "tokenizer.model"
SPACE, UNKNOWN, END = "\u2581", "<unk>", "</s>"
# They follow the pieces, in this order. ChatGLM2 has the first five, ChatGLM3 all; ChatGLM2's table of
# embeddings has unused rows for the others, so both can carry the names.
SPECIALS = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
_FEWEST_SPECIALS = 5
# The table is padded to a round size; a gap wider than this means that another model's file lies here.
_WIDEST_GAP = 1024
_MOST_MERGES = 4_000_000


class ChatGLMTokenizerFast(PreTrainedTokenizerFast):
    """A fast tokenizer that decodes as the published code does.

    Text is encoded by the `tokenizers` backend. Ids are decoded here: where bytes are no UTF-8, the
    backend gives up the whole run of bytes and the published code only the broken ones. A tokenizer that
    is saved and loaded again is a stock one, without this decoding.

    No special token stands among the texts that are searched for in a prompt, but for ``<unk>`` and
    ``</s>``, and those are split (`split_special_tokens`): text of a prompt stays text.
    """

    _surfaces: Sequence[str | int | None] = ()

    def _decode(self, token_ids: int | Iterable[int], *_: Any, **__: Any) -> str:
        """Text of ids. Special tokens never print, as in the published code; unknown ids neither."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return decode(ids, self._surfaces)


def load_tokenizer(folder: Path, raw: Mapping[str, Any]) -> ChatGLMTokenizerFast:
    """Build the tokenizer of a checkpoint.

    Every encoding begins with ``[gMASK] sop``; padding goes to the left, with ``<unk>`` (id 0).

    Args:
        folder: Folder with `tokenizer.model`.
        raw: Content of its `config.json`, whose `padded_vocab_size` must fit.

    Raises:
        ModelError: If the file is missing, damaged or not this model's.
    """
    path = folder / FILE
    if not path.is_file() and (folder / "ice_text.model").is_file():
        raise ModelError(
            f"{folder} has the tokenizer of the first-generation ChatGLM-6B (ice_text.model), another "
            "architecture. Write --model THUDM/chatglm2-6b or THUDM/chatglm3-6b."
        )
    pieces = read_pieces(path)
    table = raw.get("padded_vocab_size")
    needed = len(pieces) + _FEWEST_SPECIALS
    if isinstance(table, int) and not needed <= table < needed + _WIDEST_GAP:
        raise ModelError(
            f"{path} has {len(pieces)} pieces, but config.json a table of {table}: this is another model's "
            "tokenizer. Put the tokenizer.model of the checkpoint's own repository there."
        )
    tokenizer = ChatGLMTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=_backend(path, pieces),
        unk_token=UNKNOWN,
        pad_token=UNKNOWN,
        eos_token=END,
        padding_side="left",
        truncation_side="right",
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer._surfaces = tuple(_surface(piece) for piece in pieces)
    return tokenizer


def decode(ids: Iterable[int], surfaces: Sequence[str | int | None]) -> str:
    """Text of ids, as sentencepiece and the published code around it make it.

    Args:
        ids: Token ids.
        surfaces: For each id the text of a piece, the value of a byte, or None where nothing prints.

    Returns:
        The text without the space that the encoding put in front. An invalid byte becomes one U+FFFD.
    """
    parts: list[str] = []
    run = bytearray()
    for one in ids:
        surface = surfaces[one] if 0 <= one < len(surfaces) else None
        if isinstance(surface, int):
            run.append(surface)
            continue
        if run:
            parts.append(_utf8(run))
            run.clear()
        if surface:
            parts.append(surface if parts else surface.removeprefix(" "))
    return "".join((*parts, _utf8(run)))


def _utf8(run: bytes | bytearray) -> str:
    text, at = "", 0
    while at < len(run):
        lead = run[at]
        length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        try:
            text += run[at : at + length].decode("utf-8")
            at += length
        except UnicodeDecodeError:  # Python would give one sign for several broken bytes
            text += "\ufffd"
            at += 1
    return text


def _surface(piece: Piece) -> str | int | None:
    if piece.kind == BYTE:
        return int(piece.text[3:5], 16)
    return piece.text.replace(SPACE, " ") if piece.kind == NORMAL else None


def _backend(path: Path, pieces: Sequence[Piece]) -> Tokenizer:
    vocabulary = {piece.text: number for number, piece in enumerate(pieces)}
    for special in SPECIALS:  # after the pieces; no merge leads to them, so no text does
        if vocabulary.setdefault(special, len(vocabulary)) < len(pieces):
            raise ModelError(f"{path} has the special token {special} among its pieces. Fetch it again.")
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(path, pieces),
            unk_token=UNKNOWN,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    named = [(token, vocabulary[token]) for token in ("[gMASK]", "sop", END)]
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] sop $A", pair="[gMASK] sop $A $B </s>", special_tokens=named
    )
    return backend


def _merges(path: Path, pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, in the order in which sentencepiece would merge."""
    ids = {piece.text: number for number, piece in enumerate(pieces) if piece.kind == NORMAL}
    found: list[tuple[float, int, int, str, str]] = []
    for text, number in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-pieces[number].score, ids[left], ids[right], left, right))
        if len(found) > _MOST_MERGES:
            raise ModelError(f"{path} has more than {_MOST_MERGES} merges, too many to be a tokenizer.")
    found.sort()
    return [(left, right) for *_, left, right in found]
