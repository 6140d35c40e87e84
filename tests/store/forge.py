"""Files and manifests as somebody else might make them: every checksum fits, whatever they say."""

from __future__ import annotations

import hashlib
import json
from zlib import crc32

import numpy as np

from msr_enhance.fingerprint import canonical_json, fingerprint
from msr_enhance.store.entry import StoredFile, file_name
from msr_enhance.store.frame import Frame

KINDS = {
    np.dtype("<u8"): "U64",
    np.dtype("<i8"): "I64",
    np.dtype("<i4"): "I32",
    np.dtype("<f4"): "F32",
    np.dtype("<f2"): "F16",
    np.dtype("u1"): "U8",
    np.dtype("i1"): "I8",
}


def framed(tensors, metadata=None):
    """A file of some tensors, in their order, laid out as our writer does."""
    frame = Frame.of({name: (KINDS[each.dtype], each.shape) for name, each in tensors.items()}, metadata)
    return frame.header + b"".join(each.tobytes() for each in tensors.values())


def tensors_of(data):
    """The tensors of a file, in their order, and its metadata."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", None)
    dtypes = {kind: dtype for dtype, kind in KINDS.items()}
    found = {}
    for name, span in header.items():
        start, end = (8 + size + place for place in span["data_offsets"])
        found[name] = np.frombuffer(data[start:end], dtypes[span["dtype"]]).reshape(span["shape"]).copy()
    return found, metadata


def crc_beside(data, tensor):
    """CRC-32 of all bytes of a file but one tensor."""
    size = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + size])[tensor]["data_offsets"]
    return crc32(data[: 8 + size + start] + data[8 + size + end :])


def placed(folder, kind, data, blob=0):
    """Put a file in a store's folder; how a manifest names it."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / file_name(kind, digest)).write_bytes(data)
    return StoredFile(kind=kind, bytes=max(len(data), 1), sha256=digest, blob=blob)


def newest(folder):
    """The path of the newest manifest."""
    return max(folder.glob("manifest-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))


def rewritten(folder, edit):
    """Change the newest manifest and give it a checksum that fits."""
    path = newest(folder)
    content = json.loads(path.read_bytes())
    del content["checksum"]
    edit(content)
    path.write_bytes(canonical_json(content | {"checksum": fingerprint(content)}))
    return folder
