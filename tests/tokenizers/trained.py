"""Small byte-level BPE tokenizers of every kind, trained and written by Hugging Face's library."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# Copied from the tokenizer.json of meta-llama/Llama-3.2-1B, Qwen/Qwen3-0.6B and
# mistralai/Mistral-Nemo-Base-2407.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPECIALS = ["<|begin|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
"""Of every tokenizer here, with the ids 0 to 3."""

SAMPLE = (
    "It was the best of times, it's 1234 times; DON'T you think so?\n\nuser\nHello!\n\n\tYes..."
    " system You are a helpful assistant named SmolLM\n Paris in 1999, 中文 café cafe\u0301 🙂 \r\n"
) * 4


def _split(pattern: str) -> Any:
    only_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated"), only_bytes]
    )


def _cut(kind: str) -> Any:
    if kind in ("llama3", "qwen2", "tekken"):
        return _split({"llama3": LLAMA3, "qwen2": QWEN2, "tekken": TEKKEN}[kind])
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    return bytes_


KINDS = ("gpt2", "smollm", "llama3", "qwen2", "tekken")


@cache
def trained(kind: str, *, nfc: bool = False, bos: bool = False, vocab_size: int = 500) -> Tokenizer:
    """One with this split (one of ``KINDS``), perhaps with NFC, perhaps with a BOS."""
    library = Tokenizer(models.BPE(ignore_merges=kind in ("llama3", "tekken")))
    library.pre_tokenizer = _cut(kind)
    library.decoder = decoders.ByteLevel()
    if nfc:
        library.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator([SAMPLE], trainer)
    library.add_tokens([AddedToken("<think>", normalized=False)])
    if bos:
        library.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(
                    single="<|begin|> $A",
                    pair="<|begin|> $A <|begin|>:1 $B:1",
                    special_tokens=[("<|begin|>", 0)],
                ),
            ]
        )
    return library


def save(library: Tokenizer, directory: Path, **config: Any) -> Path:
    """Write it as model directories have it, with what its tokenizer_config.json shall say."""
    directory.mkdir(parents=True, exist_ok=True)
    library.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory
