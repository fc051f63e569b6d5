"""GPTModel: token ids in, a score for every possible next token out.

Shapes: ``B`` batch, ``T`` tokens, ``C`` embedding width (``emb_dim``), ``V`` vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from groundup.config import ModelConfig
from groundup.errors import UserError
from groundup.model.attention import check_length
from groundup.model.cache import KVCache
from groundup.model.layers import NORMS, TransformerBlock
from groundup.model.linear import Linear
from groundup.model.loss import Reduction, head_loss
from groundup.model.rotary import turns

if TYPE_CHECKING:
    from groundup.facts import Facts


GPT2_STD = 0.02
"""The standard deviation of GPT-2's weights when its training begins."""


RESIDUAL = ("att.out_proj.weight", "ff.layers.2.weight", "ff.down_proj.weight")
"""How the names of the matrices end whose results are added up in the residual stream."""


class GPTModel(nn.Module):
    """A decoder of Transformer blocks, with the course's module names: GPT-2 (Radford et al. 2019).

    Or, by its config, Llama and Qwen3, which differ in a few parts and are otherwise the same.

    Modules are created in the course's order with PyTorch's default initialisation, so
    ``torch.manual_seed(123)`` gives the lecture's numbers (tied weights, which the lecture has
    not, begin at GPT-2's scale); real training asks for GPT-2's own initialisation with
    :meth:`init_gpt2`.

    Args:
        cfg: a ``ModelConfig`` or the course's dict.

    Raises:
        UserError: a key of the dict is unknown, or a value makes no sense.

    Attributes:
        cfg: its shape.
        facts: how it came to be (task, labels, prompt style, …), if it was opened from a directory.
    """

    facts: Facts | None = None

    def __init__(self, cfg: ModelConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.cfg = cfg = ModelConfig.of(cfg)
        self.tok_emb = nn.Embedding(cfg.vocab_size, cfg.emb_dim)
        # With rotary positions attention rotates queries and keys instead.
        self.pos_emb = None if cfg.rope else nn.Embedding(cfg.context_length, cfg.emb_dim)
        self.drop_emb = nn.Dropout(cfg.drop_rate)
        self.trf_blocks = nn.Sequential(*[TransformerBlock(cfg) for _ in range(cfg.n_layers)])
        self.final_norm = NORMS[cfg.norm](cfg.emb_dim, eps=cfg.norm_eps)
        self.out_head: nn.Linear = Linear(cfg.emb_dim, cfg.vocab_size, bias=False)
        if cfg.tie_weights:
            self.out_head.weight = self.tok_emb.weight
            with torch.no_grad():
                # PyTorch's embeddings have a standard deviation of 1: as an output layer they
                # would give scores in the hundreds. GPT-2's have 0.02, those of positions too.
                self.tok_emb.weight.mul_(GPT2_STD)
                if self.pos_emb is not None:
                    self.pos_emb.weight.mul_(GPT2_STD)

    def forward(
        self,
        in_idx: Tensor,
        cache: KVCache | None = None,
        *,
        at: Tensor | None = None,
        targets: Tensor | None = None,
        reduction: Reduction = "sum",
        documents: Tensor | None = None,
        hidden: bool = False,
    ) -> Tensor:
        """Score every token's successor: ids ``(B, T)`` to logits ``(B, T, V)``.

        This is the only way into the model. Training, decoding and measuring all call
        ``model(...)`` and say what they want of it, so that nothing is computed in vain; hooks,
        ``torch.compile``, DDP and FSDP see every call.

        Args:
            in_idx: token ids. With a cache, only those that came since the last call.
            cache: what was computed for earlier tokens; see :meth:`new_cache`.
            at: positions ``(B,)`` or ``(B, K)``: score only there, ``(B, V)`` or ``(B, K, V)``;
                -1 is the last.
            targets: ids, ``(B, T)`` or of ``at``'s shape: return their negative log-likelihood
                instead of scores. The ``(B, T, V)`` logits never exist then. Targets of
                ``IGNORE_INDEX`` count 0.
            reduction: ``sum`` for the targets' summed loss, a scalar; ``none`` for that of each.
            documents: numbers ``(B, T)``: tokens attend only to those of their own document, and
                positions count from its beginning, so each is read as if it stood alone. A
                document's tokens stand together.
            hidden: return what the output layer would read, ``(B, T, C)`` (or at ``at``).

        Raises:
            UserError: more tokens than ``context_length``, or arguments that exclude each other.
        """
        x, mask, turn = self._embed(in_idx, cache, documents)  # (B, T, C)
        for i, block in enumerate(self.trf_blocks):
            x = block(x, cache.layers[i] if cache is not None else None, mask, turn)
        x = self.final_norm(x)
        if at is not None:
            rows = torch.arange(len(x), device=x.device)
            x = x[rows if at.dim() == 1 else rows[:, None], at]  # (B, C), or (B, K, C)
        if hidden:
            return x
        if targets is not None:
            return head_loss(self.out_head, x, targets, reduction)
        return self.out_head(x)

    def _embed(
        self, in_idx: Tensor, cache: KVCache | None, documents: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Tokens as vectors ``(B, T, C)``, the mask between documents, and their positions' turn.

        Positions are added to the vectors if they are learned, and turned later if they are not.
        """
        T = in_idx.shape[1]
        mask = None
        if cache is not None and documents is not None:
            raise UserError("give a cache or documents: a cache holds one document per row")
        if cache is not None:
            positions = cache.positions(T)  # (T,), or (B, T) where rows differ in length
            check_length(cache.length + T, self.cfg.context_length)
        else:
            positions = torch.arange(T, device=in_idx.device)  # (T,)
            check_length(T, self.cfg.context_length)
        if documents is not None:
            same = documents[:, :, None] == documents[:, None, :]  # (B, T, T)
            positions = positions - same.int().argmax(dim=-1)  # (B, T), from each one's first token
            mask = same.tril()[:, None]  # (B, 1, T, T)
        x, turn = self.tok_emb(in_idx), None  # (B, T, C)
        if self.pos_emb is not None:
            x = x + self.pos_emb(positions)
        else:
            turn = turns(positions, self.cfg).to(x.dtype)
        return self.drop_emb(x), mask, turn

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
            if name.endswith(("scale", "shift", ".A", ".B")):  # norms and LoRA's keep their own
                continue
            if name.endswith("bias"):
                parameter.zero_()
                continue
            residual = name.endswith(RESIDUAL)
            std = GPT2_STD / math.sqrt(2 * self.cfg.n_layers) if residual else GPT2_STD
            parameter.normal_(0.0, std, generator=generator)
        return self

    def num_parameters(self) -> int:
        """Number of distinct parameters (a tied matrix counts once)."""
        return sum(p.numel() for p in self.parameters())
