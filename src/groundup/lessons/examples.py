"""The worked examples of ``groundup explain``: each a few lines that print shapes and numbers.

Where the lecture has an example, it is the lecture's, with its numbers.

Shapes: ``B`` batch, ``T`` tokens, ``H`` heads, ``C`` embedding width, ``V`` vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.config import ModelConfig
from groundup.data.instructions import custom_collate_fn
from groundup.data.windows import TokenWindows
from groundup.decoding.sampling import keep_top_k, keep_top_p
from groundup.lessons.attention import INPUTS, WORDS
from groundup.lessons.embedding import embedding_as_product
from groundup.lessons.network import ExampleDeepNeuralNetwork, print_gradients
from groundup.lessons.softmax import (
    NEXT_WORD_LOGITS,
    NEXT_WORDS,
    print_sampled_tokens,
    softmax_naive,
    softmax_with_temperature,
)
from groundup.model.attention import MultiHeadAttention
from groundup.model.cache import KVCache
from groundup.model.frequencies import frequencies
from groundup.model.gpt import GPTModel
from groundup.model.ladder_modern import GroupedQueryAttention
from groundup.model.layers import GELU, LayerNorm, RMSNorm, SwiGLU, TransformerBlock
from groundup.model.lora import LoRALinear
from groundup.model.loss import linear_cross_entropy
from groundup.model.rotary import rotate, turns
from groundup.model.watch import watch
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.tokenizers.bpe_train import learn_merges

SMALL = ModelConfig(
    vocab_size=50, context_length=8, emb_dim=12, n_heads=3, n_layers=2, drop_rate=0.0
)


def show(name: str, values: Tensor, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Print a name, a shape, and the numbers ``(columns,)`` or ``(rows, columns)``."""
    print(f"{name}  {tuple(values.shape)}")
    width = max((len(row) for row in rows), default=0)
    if values.is_floating_point():
        values = values.detach().round(decimals=4) + 0.0  # no -0.0000
    number = "8.4f" if values.is_floating_point() else "8d"
    if columns:
        print("  " + " " * width + "".join(f" {column:>8}" for column in columns))
    for i, line in enumerate(values.tolist() if values.dim() > 1 else [values.tolist()]):
        label = rows[i] if rows else ""
        print(f"  {label:{width}}" + "".join(f" {value:{number}}" for value in line))


def bpe() -> None:
    """Four merges of a text of three words, which are there 5, 2 and 6 times."""
    words = {"low": 5, "lower": 2, "newest": 6}
    for left, right in learn_merges(words, n_tokens=256 + 4):
        print(f"merge {left.decode()!r} + {right.decode()!r}")
    tokenizer = get_gpt2_tokenizer()  # the same, after 50,000 merges
    ids = tokenizer.encode("lower than the newest")
    print(ids, [tokenizer.decode([i]) for i in ids])


def windows() -> None:
    """Windows of four tokens, each beginning two tokens after the one before."""
    tokenizer = get_gpt2_tokenizer()
    ids = tokenizer.encode("Every effort moves you one step closer to it")
    data = TokenWindows(ids, max_length=4, stride=2)
    print(f"{len(ids)} tokens, {len(data)} windows")
    for inputs, targets in (data[i] for i in range(len(data))):
        print(inputs.tolist(), repr(tokenizer.decode(inputs.tolist())))
        print(targets.tolist(), repr(tokenizer.decode(targets.tolist())))


def embedding() -> None:
    """The lecture's six tokens with vectors of three numbers."""
    torch.manual_seed(123)
    layer = nn.Embedding(6, 3)
    ids = torch.tensor([2, 3, 5, 1])
    show("the matrix", layer.weight, [f"token {i}" for i in range(6)])
    show("looked up", layer(ids), [f"token {i}" for i in ids])
    product = embedding_as_product(ids, layer.weight)
    print("the product is the same:", torch.equal(product, layer(ids)))


def softmax() -> None:
    """Probabilities by the definition, and where it fails."""
    scores = torch.tensor([1.0, 2.0, 3.0])
    show("scores", scores)
    show("softmax_naive", softmax_naive(scores))
    show("torch.softmax", torch.softmax(scores, dim=0))
    print("100 added to each score, which should change nothing:")
    show("softmax_naive", softmax_naive(scores + 100))
    show("torch.softmax", torch.softmax(scores + 100, dim=0))


def attention() -> None:
    """The lecture's six words through two heads, each one number wide."""
    torch.manual_seed(123)
    layer = MultiHeadAttention(3, 2, 6, dropout=0.0, num_heads=2)
    with watch(layer) as seen:
        output = layer(INPUTS[None])  # (B, T, 3)
    print(seen.shapes)
    show("who looks at whom, head 0", seen["dropout"][0, 0], WORDS, WORDS)
    show("output", output[0], WORDS)


def layernorm() -> None:
    """The lecture's two rows of six numbers, before and after."""
    torch.manual_seed(123)
    x = torch.randn(2, 5)
    x = nn.Sequential(nn.Linear(5, 6), nn.ReLU())(x)  # (2, 6)
    for name, values in (("before", x), ("after", LayerNorm(6)(x))):
        show(name, values)
        show("mean", values.mean(dim=-1))
        show("variance", values.var(dim=-1, unbiased=False))


def gelu() -> None:
    """Below zero GELU bends where ReLU cuts off."""
    x = torch.linspace(-3, 3, 13)
    columns = torch.stack([x, GELU()(x), torch.relu(x)], dim=1)
    show("GELU and ReLU", columns, columns=["x", "GELU", "ReLU"])


def rmsnorm() -> None:
    """The same two rows as in ``layernorm``: the mean stays where it is."""
    torch.manual_seed(123)
    x = nn.Sequential(nn.Linear(5, 6), nn.ReLU())(torch.randn(2, 5))  # (2, 6)
    for name, values in (("before", x), ("after", RMSNorm(6)(x))):
        show(name, values)
        show("root mean square", values.pow(2).mean(dim=-1).sqrt())
        show("mean", values.mean(dim=-1))


def rope() -> None:
    """One query and one key at many positions: their score depends on the distance alone."""
    torch.manual_seed(123)
    cfg = ModelConfig(emb_dim=8, n_heads=1, rope=True)
    show("radians per token, each pair", torch.tensor(frequencies(8, 10000.0)[0]))
    query, key = torch.randn(2, 1, 1, 1, 8)  # (B, H, T, D) each
    turned = rotate(query.expand(1, 1, 6, 8), turns(torch.arange(6), cfg))[0, 0]  # (T, D)
    against = rotate(key.expand(1, 1, 6, 8), turns(torch.arange(6), cfg))[0, 0]
    names = [f"at {t}" for t in range(6)]
    show("scores of queries (rows) and keys", turned @ against.T, names, names)
    print("every diagonal has one number: the rows are shifted, not changed")


def gqa() -> None:
    """Six heads of queries share two of keys and values."""
    torch.manual_seed(123)
    for kv_heads in (6, 2, 1):
        cfg = ModelConfig(emb_dim=48, n_heads=6, n_kv_heads=kv_heads, n_layers=1)
        layer = GroupedQueryAttention(48, 6, kv_heads, 8)
        cache = KVCache(cfg, capacity=100).layers[0]
        numbers = cache.keys.numel() + cache.values.numel()
        print(
            f"{kv_heads} heads of keys and values: the cache of 100 tokens has {numbers:,} numbers"
        )
        print("  W_key ", tuple(layer.W_key.weight.shape))
        print("  output", tuple(layer(torch.randn(1, 4, 48)).shape))


def swiglu() -> None:
    """A gate that is far below zero lets nothing pass, one far above all of it."""
    gate = torch.linspace(-4, 4, 9)
    rows = torch.stack([gate, F.silu(gate), F.silu(gate) * 2, F.silu(gate) * -1], dim=1)
    show("SiLU(gate) * up", rows, columns=["gate", "SiLU", "up = 2", "up = -1"])
    cfg = ModelConfig(emb_dim=12, n_heads=2, hidden_dim=32, feed_forward="swiglu", mlp_bias=False)
    numbers = sum(parameter.numel() for parameter in SwiGLU(cfg).parameters())
    print(f"three matrices of 12 x 32: {numbers:,} parameters; two of 12 x 48: {2 * 12 * 48:,}")


def block() -> None:
    """Two texts of four tokens through one block: the shape comes out as it went in."""
    torch.manual_seed(123)
    layer = TransformerBlock(SMALL)
    x = torch.randn(2, 4, 12)  # (B, T, C)
    with watch(layer) as seen:
        output = layer(x)
    print(seen.shapes)
    for name, part in layer.named_children():
        count = sum(p.numel() for p in part.parameters())
        print(f"{name}: {count} parameters")
    attended = x + seen["att"]
    same = torch.allclose(attended + seen["ff"], output, atol=1e-6)
    print("output = x + attention + feed-forward:", same)


def shortcuts() -> None:
    """The lecture's five layers, without shortcuts and with them."""
    x = torch.tensor([[1.0, 0.0, -1.0]])
    for use_shortcut in (False, True):
        torch.manual_seed(123)
        sizes = [3, 3, 3, 3, 3, 1]
        model = ExampleDeepNeuralNetwork(sizes, use_shortcut)
        print("with shortcuts" if use_shortcut else "without shortcuts")
        print_gradients(model, x)


def cache() -> None:
    """Five tokens at once, and the same as three and then one by one."""
    torch.manual_seed(123)
    model = GPTModel(SMALL).eval()
    ids = torch.tensor([[7, 21, 3, 42, 11]])  # (B, T)
    cache = model.new_cache()
    with torch.no_grad():
        whole = model(ids)  # (B, T, V)
        for new in ids.split([3, 1, 1], dim=1):
            logits = model(new, cache=cache)
            keys = cache.layers[0].keys[:, :, : cache.length]  # (B, H, S, D)
            print(f"new ids {tuple(new.shape)}, logits {tuple(logits.shape)}")
            print(f"  keys of block 0 {tuple(keys.shape)}")
            at_once = whole[:, cache.length - 1]
            same = torch.allclose(logits[:, -1], at_once, atol=1e-5)
            print("  the last token's logits are the same:", same)


def loss() -> None:
    """Two tokens, a vocabulary of five: the loss by hand, and as it is trained."""
    torch.manual_seed(123)
    hidden, head = torch.randn(2, 3), torch.randn(5, 3)  # (N, C), (V, C)
    targets = torch.tensor([1, 4])
    logits = hidden @ head.T  # (N, V)
    probabilities = torch.softmax(logits, dim=-1)
    of_targets = probabilities[torch.arange(2), targets]
    show("logits", logits)
    show("probabilities", probabilities)
    show("of the targets", of_targets)
    show("their -log", -of_targets.log())
    mean = -of_targets.log().mean()
    print(f"loss per token {mean:.4f}, perplexity {mean.exp():.4f}")
    print(f"PyTorch's      {F.cross_entropy(logits, targets):.4f}")
    ours = linear_cross_entropy(hidden, head, targets)  # summed
    print(f"without logits {ours / 2:.4f}")


def sampling() -> None:
    """The lecture's nine words that may follow "every effort moves you"."""
    logits = NEXT_WORD_LOGITS
    probabilities = {
        "T = 1": softmax_with_temperature(logits, 1),
        "T = 0.1": softmax_with_temperature(logits, 0.1),
        "T = 5": softmax_with_temperature(logits, 5),
        "top_k 3": keep_top_k(logits[None], 3)[0].softmax(dim=0),
        "top_p .9": keep_top_p(logits[None], 0.9)[0].softmax(dim=0),
    }
    table = torch.stack(list(probabilities.values()), dim=1)
    show("probabilities", table, NEXT_WORDS, list(probabilities))
    print("1,000 draws at T = 1")
    print_sampled_tokens(probabilities["T = 1"])


def lora() -> None:
    """A matrix of 8 x 6 with an update of rank 2."""
    torch.manual_seed(123)
    linear = nn.Linear(8, 6)
    layer = LoRALinear(linear, rank=2, alpha=4)
    x = torch.randn(3, 8)
    for name, parameter in layer.named_parameters():
        kind = "trained" if parameter.requires_grad else "frozen"
        print(f"{name:6} {tuple(parameter.shape)!s:7} {kind}")
    print("a new update changes nothing:", torch.equal(layer(x), linear(x)))
    nn.init.normal_(layer.B)  # as if trained
    show("what it adds", layer(x) - linear(x))
    same = torch.allclose(layer.merged()(x), layer(x), atol=1e-5)
    print("merged into the matrix it computes the same:", same)


def collate() -> None:
    """The lecture's three texts, padded with end-of-text; -100 is not learned."""
    batch = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    inputs, targets = custom_collate_fn(batch)
    show("inputs", inputs)
    show("targets", targets)
