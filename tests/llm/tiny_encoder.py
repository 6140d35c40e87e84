"""Sentence encoders made on the spot, with a WordPiece tokenizer of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

ENCODER_WINDOW = 40
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*MARKS, *"[]|;.:", "plain", "kit", "cook", "##ing", "sep", "mask", "pad", "query", *LETTERS]


def encoder_tokenizer(**options: Any) -> Any:
    """A WordPiece tokenizer as BERT has it, of a few words and every letter."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*WORDS, *(f"##{letter}" for letter in LETTERS)]
    backend = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    frame = [("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    names = {f"{mark[1:-1].lower()}_token": mark for mark in MARKS}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names, **options)


def encoder_model(kind: str = "Bert", **options: Any) -> Any:
    """A random encoder with places for `ENCODER_WINDOW` tokens."""
    import transformers

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    config = getattr(transformers, f"{kind}Config")(
        **{
            **size,
            "vocab_size": len(encoder_tokenizer()),
            "max_position_embeddings": ENCODER_WINDOW,
            **options,
        }
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}Model")(config).eval()


def save_plain(folder: Path) -> Path:
    """A transformers folder, without a word of sentence-transformers."""
    encoder_model().save_pretrained(folder)
    encoder_tokenizer().save_pretrained(folder)
    return folder


def save_whole(folder: Path) -> Path:
    """A sentence-transformers folder: the first token's state, of length one, and prompts of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    network = Transformer(str(save_plain(folder.with_name("inner"))))
    prompts = {"query": "query: ", "none": ""}
    SentenceTransformer(
        modules=[network, Pooling(32, pooling_mode="cls"), Normalize()],
        prompts=prompts,
        default_prompt_name="query",
        device="cpu",
    ).save(str(folder))
    return folder
