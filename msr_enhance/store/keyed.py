"""Keyed ids: ids that say nothing without a key, for stores that leave the machine.

A plain hash of an id is reversed by hashing every id there may be: 25 million of them take seconds. With a
secret key that is not in the store, it is not.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final

from msr_enhance.atomic import create_exclusive
from msr_enhance.errors import StoreError
from msr_enhance.store.checks import id_bytes

KEY_BYTES: Final = 32

Key = bytes | str | Path
"""A key of ids: its 32 bytes, or the path of its file."""


def keyed_id(key: bytes, id: int | str) -> str:
    """Keyed BLAKE2b of an id, 32 hex digits; the same for equal ids, and for no others.

    Args:
        key: The secret.
        id: The id; ``7`` and ``"7"`` differ.

    Returns:
        The digest.
    """
    return _digest(key, id_bytes(id), b"msr-enhance id")


def key_check(key: bytes) -> str:
    """What a store keeps to tell the right key from another; it says nothing about the key."""
    return _digest(key, b"", b"msr-enhance key")


def read_key(path: str | Path) -> bytes:
    """A key from a file with its 64 hex digits.

    Raises:
        StoreError: If there is no such file, or it holds something else.
    """
    try:
        text = Path(path).read_text("ascii").strip()
        key = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} holds no key of ids: {error}. A key is {2 * KEY_BYTES} hex digits."
        ) from error
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} holds {len(key)} bytes; a key of ids is {2 * KEY_BYTES} hex digits.")
    return key


def as_key(key: Key | None) -> bytes | None:
    """A key that is given as it is, or as the path of its file.

    Raises:
        StoreError: If it is of another size or type, or the file holds none.
    """
    if isinstance(key, (str, Path)):
        return read_key(key)
    if key is not None and (not isinstance(key, bytes) or len(key) != KEY_BYTES):
        seen = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        raise StoreError(
            f"a key of ids is {KEY_BYTES} bytes, or the path of its file; seen {seen}. Write "
            f"key=secrets.token_bytes({KEY_BYTES}), and keep it."
        )
    return key


def key_beside(path: Path) -> bytes:
    """The key in a file, made by chance where there is no such file; only its owner can read it.

    Raises:
        StoreError: If the file holds something else, or cannot be written.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            create_exclusive(path.parent, path.name, secrets.token_hex(KEY_BYTES).encode() + b"\n", 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreError(f"a key of ids could not be written to {path}: {error}. Write --key.") from error
    return read_key(path)


def _digest(key: bytes, data: bytes, purpose: bytes) -> str:
    return hashlib.blake2b(data, key=key, digest_size=16, person=purpose).hexdigest()
