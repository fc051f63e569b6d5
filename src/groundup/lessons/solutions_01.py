"""Solutions of the exercises of the notebook "tokens and data" (01)."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from groundup.tokenizers import BPETokenizer, Tokenizer, build_vocab
from groundup.tokenizers.words import split_words


def spell(tokenizer: Tokenizer, text: str) -> list[tuple[int, str]]:
    """Exercise 1: each id of a text, and what that id alone stands for.

    A token may be half a letter: ``decode`` then gives the sign for what is no character.
    """
    return [(token_id, tokenizer.decode([token_id])) for token_id in tokenizer.encode(text)]


def unknown_words(known_text: str, new_text: str) -> Counter[str]:
    """Exercise 2: which words of a new text a vocabulary made of a known text lacks, how often."""
    vocab = build_vocab(known_text)
    return Counter(word for word in split_words(new_text) if word not in vocab)


def characters_per_token(known_text: str, new_text: str, vocab_size: int) -> float:
    """Exercise 2: how many characters a token of a new text holds on average.

    The vocabulary is learned from another text. Bytes alone give 1 (in English), GPT-2 about 4.
    """
    tokenizer = BPETokenizer.train(known_text, vocab_size, special_tokens=[])
    return len(new_text) / len(tokenizer.encode(new_text))


def sinusoidal_positions(context_length: int, emb_dim: int) -> Tensor:
    """Exercise 3: position embeddings ``(T, C)`` that nobody has to learn.

    Column ``2i`` is ``sin(t / 10000 ** (2i / C))`` and ``2i + 1`` the cosine (Vaswani et al. 2017,
    section 3.5). The product of two rows then depends on how far apart they are, not on where.
    """
    t = torch.arange(context_length)[:, None]  # (T, 1)
    angles = t / 10000 ** (torch.arange(0, emb_dim, 2) / emb_dim)  # (T, C / 2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)  # (T, C)
