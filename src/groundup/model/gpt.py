"""GPTModel: token ids in, a score for every possible next token out.

Shapes: ``B`` batch, ``T`` tokens, ``C`` embedding width (``emb_dim``), ``V`` vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.cache import KVCache
from groundup.model.layers import LayerNorm, TransformerBlock


class GPTModel(nn.Module):
    """A GPT-2 style decoder (Radford et al. 2019), with the course's module names.

    Modules are created in the course's order with PyTorch's default initialisation, so
    ``torch.manual_seed(123)`` gives the lecture's numbers; real training asks for GPT-2's own
    initialisation with :meth:`init_gpt2`.

    Args:
        cfg: a ``ModelConfig`` or the course's dict.

    Raises:
        UserError: a key of the dict is unknown, or a value makes no sense.
    """

    def __init__(self, cfg: ModelConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.cfg = cfg = ModelConfig.of(cfg)
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        self.pos_emb = nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = nn.Sequential(*[TransformerBlock(cfg) for _ in range(cfg.n_layers)])
        self.final_norm = LayerNorm(cfg.emb_dim)
        self.out_head = nn.Linear(cfg.emb_dim, cfg.vocab_size, bias=False)
        if cfg.tie_weights:
            self.out_head.weight = self.tok_emb.weight

    def forward(self, in_idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """Score every token's successor: ids ``(B, T)`` to logits ``(B, T, V)``.

        With a ``cache`` (see :meth:`new_cache`), ``in_idx`` holds only the tokens that came since
        the last call.

        Raises:
            UserError: more tokens than ``context_length``.
        """
        return self.out_head(self.features(in_idx, cache))

    def features(self, in_idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """What the output layer reads: ids ``(B, T)`` to ``(B, T, C)``.

        Apart from :meth:`forward` so that decoding scores one position only, and so that the
        training loss need never hold all ``B * T * V`` logits at once.
        """
        T = in_idx.shape[1]
        past = cache.length if cache is not None else 0
        if past + T > self.cfg.context_length:
            raise UserError(
                f"the input has {past + T} tokens, but the model's context_length is "
                f"{self.cfg.context_length}; pass at most that many (the last ones, say)"
            )
        if cache is None:
            positions = torch.arange(T, device=in_idx.device)  # (T,)
        else:
            positions = cache.positions(T)  # (T,), or (B, T) where rows differ in length
        x = self.tok_emb(in_idx) + self.pos_emb(positions)  # (B, T, C)
        x = self.drop_emb(x)
        for i, block in enumerate(self.trf_blocks):
            x = block(x, cache.layers[i] if cache is not None else None)
        return self.final_norm(x)

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> KVCache:
        """An empty key/value cache for this model, on its device and in its dtype.

        It holds ``capacity`` tokens per row, ``context_length`` unless told otherwise.
        """
        weight = self.tok_emb.weight
        return KVCache(
            self.cfg, batch_size, capacity=capacity, device=weight.device, dtype=weight.dtype
        )

    @torch.no_grad()
    def init_gpt2(self, generator: torch.Generator | None = None) -> GPTModel:
        """Set GPT-2's initialisation in place and return the model.

        Weights are normal with standard deviation 0.02, biases 0; the projections that end in
        the residual stream are scaled by ``1 / sqrt(2 * n_layers)``, because that many of them
        add up in it (Radford et al. 2019, section 2.3).
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("scale", "shift", ".A", ".B")):  # LoRA's keep their own
                continue
            if name.endswith("bias"):
                parameter.zero_()
                continue
            residual = name.endswith(("att.out_proj.weight", "ff.layers.2.weight"))
            std = 0.02 / math.sqrt(2 * self.cfg.n_layers) if residual else 0.02
            parameter.normal_(0.0, std, generator=generator)
        return self

    def num_parameters(self) -> int:
        """Number of distinct parameters (a tied matrix counts once)."""
        return sum(p.numel() for p in self.parameters())
