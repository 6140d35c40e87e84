"""Digests that tell two models, or two tokenizers, apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from msr_enhance.fingerprint import fingerprint


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Short digest of a fast tokenizer: what text becomes which ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = json.loads(backend.to_str())
    # How the latest call padded and cut is written there too.
    kept = {key: value for key, value in content.items() if key not in ("padding", "truncation")}
    return fingerprint(kept)[:16]


def weights_digest(model: Any) -> str:
    """Short digest of the weights: names, shapes, and for each tensor a sample of its bytes.

    Reading 12 GB for a full hash would cost more than it proves; a sample of each tensor tells two
    checkpoints apart.
    """
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        flat = weight.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // 256)].float().cpu().numpy()
        digest.update(picked.tobytes())
    return digest.hexdigest()[:16]
