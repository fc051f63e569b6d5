"""What a model computes, once more in plain matrices, with parts left out if that is asked."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup import GPTModel, rotary_embedding
from groundup.xray.changes import Part


@dataclass
class Plain:
    """Of one text: weights by layer ``(H, T, T)``, the stream ``(T, C)``, what is added to it."""

    attention: list[Tensor] = field(default_factory=list)
    stream: list[Tensor] = field(default_factory=list)
    from_attention: list[Tensor] = field(default_factory=list)
    from_feed_forward: list[Tensor] = field(default_factory=list)
    says: list[Tensor] = field(default_factory=list)  # logits after each layer (T, V)


@torch.no_grad()
def plainly(model: GPTModel, ids: list[int], without: Collection[Part] = ()) -> Plain:
    """Read a text by GPT-2's formulas, or Llama's and Qwen3's."""
    cfg, weights = model.cfg, model.state_dict()
    T, H, D = len(ids), cfg.n_heads, cfg.head_size

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(1))

    def norm(x: Tensor, name: str) -> Tensor:
        if cfg.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
            shift = weights[f"{name}.shift"]
        else:
            shift = torch.zeros(1)
        x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + cfg.norm_eps)
        return x * weights[f"{name}.scale"] + shift

    def missing(layer: int, kind: str, head: int | None = None) -> bool:
        return Part(layer, kind, head) in without

    found = Plain()
    x = weights["tok_emb.weight"][ids]
    if not cfg.rope:
        x = x + weights["pos_emb.weight"][:T]
    found.stream.append(x)
    for layer in range(cfg.n_layers):
        at = f"trf_blocks.{layer}"
        h = norm(x, f"{at}.norm1")
        q, k, v = (linear(h, f"{at}.att.W_{name}") for name in ("query", "key", "value"))
        gathered, looks = [], []
        for head in range(H):
            shared = head // (H // cfg.kv_heads)
            columns = slice(head * D, (head + 1) * D)
            kv_columns = slice(shared * D, (shared + 1) * D)
            one_q, one_k = q[:, columns], k[:, kv_columns]
            if cfg.qk_norm:
                one_q, one_k = norm(one_q, f"{at}.att.q_norm"), norm(one_k, f"{at}.att.k_norm")
            if cfg.rope:
                one_q, one_k = (rotary_embedding(each[None, None])[0, 0] for each in (one_q, one_k))
            scores = one_q @ one_k.T / D**0.5
            for row in range(T):
                scores[row, row + 1 :] = -torch.inf
            looks.append(scores.softmax(-1))
            mixed = looks[-1] @ v[:, kv_columns]
            gathered.append(mixed * (not missing(layer, "head", head)))
        found.attention.append(torch.stack(looks))
        adds = linear(torch.cat(gathered, -1), f"{at}.att.out_proj")
        found.from_attention.append(adds * (not missing(layer, "attention")))
        x = x + found.from_attention[-1]
        h = norm(x, f"{at}.norm2")
        if cfg.feed_forward == "swiglu":
            gate = linear(h, f"{at}.ff.gate_proj")
            inner = gate * gate.sigmoid() * linear(h, f"{at}.ff.up_proj")
            adds = linear(inner, f"{at}.ff.down_proj")
        else:
            inner = F.gelu(linear(h, f"{at}.ff.layers.0"), approximate="tanh")
            adds = linear(inner, f"{at}.ff.layers.2")
        found.from_feed_forward.append(adds * (not missing(layer, "feed_forward")))
        x = x + found.from_feed_forward[-1]
        found.stream.append(x)
        found.says.append(norm(x, "final_norm") @ weights["out_head.weight"].T)
    return found
