"""Every number of an X-ray, against the same computed in plain matrices."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from groundup import BPETokenizer, GPTModel, add_lora, merge_lora, to_classifier
from groundup.decoding.sampling import keep_top_k
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.output import visible
from groundup.xray import XRay, changes, take_xray
from groundup.xray.changes import Part, parts_of
from groundup.xray.data import Packed
from groundup.xray.take import CHOICES, GUESSES, NEIGHBOURS, TEMPERATURES, Reading
from tests.conftest import ARCHITECTURES
from tests.xray.conftest import EVIL, READ, grown
from tests.xray.plainly import plainly

close = torch.testing.assert_close
agree = partial(close, atol=2e-4, rtol=2e-4)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


def test_all_is_as_in_plain_matrices(architecture: str, tokenizer: BPETokenizer) -> None:
    model, ids = grown(architecture), tokenizer.encode(READ)
    seen, plain = take_xray(model, tokenizer, READ), plainly(model, ids)
    T, logs = len(ids), plain.says[-1].log_softmax(-1)
    assert 4 < T <= model.cfg.context_length and [token.id for token in seen.tokens] == ids
    assert seen.architecture.lower().startswith(architecture.replace("gpt2", "gpt-2"))
    assert seen.parameters == model.num_parameters()

    assert seen.tokens[0].surprise is None and seen.tokens[0].rank is None
    surprises = F.cross_entropy(plain.says[-1][:-1], torch.tensor(ids[1:]), reduction="none")
    agree(torch.tensor([t.surprise for t in seen.tokens[1:]]), surprises)
    order = logs.argsort(-1, descending=True)
    assert [t.rank for t in seen.tokens[1:]] == [
        order[i].tolist().index(token) + 1 for i, token in enumerate(ids[1:])
    ]
    for layer, lens in enumerate(seen.lens):
        says = plain.says[layer].softmax(-1)
        top = says.topk(GUESSES)
        assert [[i for i, _ in row] for row in lens.guesses] == top.indices.tolist()
        agree(torch.tensor([[p for _, p in row] for row in lens.guesses]), top.values)
        answers = order[:, 0].tolist()
        ranks = says.argsort(-1, descending=True).tolist()
        assert lens.rank == [row.index(a) + 1 for row, a in zip(ranks, answers, strict=True)]
    assert seen.lens[-1].rank == [1] * T
    assert seen.lens[0].guesses != seen.lens[-1].guesses

    weights = torch.tensor(seen.attention.unpacked(seen.n_layers, seen.n_heads, T)).float()
    close(weights, torch.stack(plain.attention), atol=2e-5, rtol=0)
    for found, expected in (
        (seen.norms.stream, plain.stream),
        (seen.norms.attention, plain.from_attention),
        (seen.norms.feed_forward, plain.from_feed_forward),
    ):
        agree(torch.tensor(found), torch.stack([x.norm(dim=-1) for x in expected]))


def test_what_is_taken_out_is_missing(
    architecture: str, tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "TOKENS_AT_ONCE", 30)  # so that there are several batches
    model, ids = grown(architecture), tokenizer.encode(READ)
    seen = take_xray(model, tokenizer, READ)
    base = plainly(model, ids).says[-1].log_softmax(-1)
    answers = base.argmax(-1, keepdim=True)
    parts = parts_of(model.cfg.n_layers, model.cfg.n_heads)
    assert len(seen.changes) == len(parts) == 2 * (4 + 2)
    for part, change in zip(parts, seen.changes, strict=True):
        assert (change.layer, change.part, change.head) == (part.layer, part.kind, part.head)
        logs = plainly(model, ids, without=[part]).says[-1].log_softmax(-1)
        effect = (logs - base).gather(-1, answers)[:, 0]
        assert effect.abs().max() > 1e-3
        close(torch.tensor(change.effect), effect, atol=1e-3, rtol=1e-3)
        top = logs.exp().topk(GUESSES)
        found = torch.tensor([[p for _, p in row] for row in change.guesses])
        close(found, top.values, atol=1e-3, rtol=0)
        assert [row[0][0] for row in change.guesses] == top.indices[:, 0].tolist()


def test_what_comes_next_can_be_sampled_from(tokenizer: BPETokenizer) -> None:
    model, ids = grown("gpt2"), tokenizer.encode(READ)
    seen, logits = take_xray(model, tokenizer, READ), plainly(model, ids).says[-1]
    for row, found in zip(logits, seen.next, strict=True):
        assert len(found.ids) == CHOICES and found.logits[0] == 0
        for temperature, tail in zip(TEMPERATURES, found.tails, strict=True):
            shares = (torch.tensor(found.logits) / temperature).exp()
            expected = (row / temperature).softmax(-1)
            close(shares / (shares.sum() + math.exp(tail)), expected[found.ids], atol=1e-3, rtol=0)
        kept = keep_top_k(row[None], CHOICES)[0].isfinite().nonzero()[:, 0]
        assert sorted(found.ids) == kept.tolist()


def test_a_small_vocabulary_has_no_others(tokenizer: BPETokenizer) -> None:
    class Few(BPETokenizer):
        def encode(self, text: str, **_: object) -> list[int]:
            return [1, 2, 1]

    model = grown("gpt2", vocab_size=7)
    seen = take_xray(model, Few(tokenizer.vocabulary), "x")
    assert [len(n.ids) for n in seen.next] == [7, 7, 7] and not any(n.tails for n in seen.next)
    assert {len(row) for row in seen.neighbours.values()} == {6}


def test_neighbours_are_those_of_the_smallest_angle(tokenizer: BPETokenizer) -> None:
    model = grown("llama")
    seen, table = take_xray(model, tokenizer, READ), model.tok_emb.weight.detach()
    assert sorted(seen.neighbours) == sorted({token.id for token in seen.tokens})
    for token, near in seen.neighbours.items():
        cosines = F.cosine_similarity(table, table[token][None])
        best = cosines.argsort(descending=True)
        assert best[0] == token
        assert [i for i, _ in near] == best[1 : NEIGHBOURS + 1].tolist()
        agree(torch.tensor([c for _, c in near]), cosines[best[1 : NEIGHBOURS + 1]])


def test_an_adapter_counts_merged_or_not(tokenizer: BPETokenizer) -> None:
    model = add_lora(grown("gpt2"), rank=2)
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    apart = take_xray(model, tokenizer, READ)
    merged = take_xray(merge_lora(model), tokenizer, READ)
    plain = take_xray(grown("gpt2"), tokenizer, READ)
    surprises = [torch.tensor([t.surprise for t in x.tokens[1:]]) for x in (apart, merged, plain)]
    agree(surprises[0], surprises[1])
    assert (surprises[1] - surprises[2]).abs().max() > 0.01


def test_the_model_stays_as_it_was(tokenizer: BPETokenizer) -> None:
    model = grown("gpt2", drop_rate=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (take_xray(model, tokenizer, READ) for _ in range(2))
    assert first == second  # nothing was dropped
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_json_is_ascii_without_markup_and_complete(tokenizer: BPETokenizer) -> None:
    model = grown("gpt2", context_length=300, vocab_size=310)
    seen = take_xray(model, tokenizer, EVIL, name="<b>\x1b\u202e", max_tokens=300)
    text = seen.json()
    assert text.isascii() and not {"<", ">", "&", "\x1b", "\x07"} & set(text)
    told = json.loads(text)
    assert told["model"] == "<b>\\x1b\\u202e"
    words = {int(token): word for token, word in told["words"].items()}
    read = "".join(words[token["id"]] for token in told["tokens"])
    assert "</script><script>" in read and "\\x1b[31mred\\x07 " in read
    assert "\\xe2\\x80\\xae" in read and "\\xe6" in read  # U+202E and 日 are several tokens here
    assert not {"\x1b", "\x07", "\u202e", "\u2066", "\u2028"} & set("".join(words.values()))
    assert {i for n in seen.next for i in n.ids} <= words.keys()
    assert words.keys() & range(300, 310)
    assert all(words[i] == f"(no token: {i})" for i in words if i >= 300)


@pytest.mark.parametrize(("wide", "bits"), [(10**6, 16), (10, 8)])
def test_attention_is_packed_and_unpacked(
    wide: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.xray.data.WIDE", wide)
    scores = torch.randn(3, 2, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    weights = scores.softmax(-1)
    packed = Packed.of(weights.numpy())
    assert packed.bits == bits
    found = torch.tensor(packed.unpacked(3, 2, 5)).float()
    close(found, weights, atol=0.51 / (2**bits - 1), rtol=0)
    assert not torch.equal(found[0], found[1])


def test_what_cannot_be_looked_at_is_refused(tokenizer: BPETokenizer) -> None:
    model = grown("gpt2")

    def refused(text: str = READ, model: GPTModel = model, max_tokens: int = 128) -> str:
        with pytest.raises(UserError) as error:
            take_xray(model, tokenizer, text, max_tokens=max_tokens)
        return str(error.value)

    assert "the text is empty" in refused("")
    tokens = len(tokenizer.encode("Zz" * 20))
    assert f"{tokens} tokens, but the model can read 16 " in refused("Zz" * 20)
    said = refused(max_tokens=3)
    tokens = len(tokenizer.encode(READ))
    assert f"has {tokens} tokens; an X-ray holds 3" in said and f"--max-tokens {tokens}" in said
    assert "max_tokens is 0" in refused(max_tokens=0)
    assert "gives 3 scores" in refused(model=to_classifier(grown("gpt2"), 3))
    named = to_classifier(grown("gpt2"), 2)
    named.facts = Facts(kind="classifier", labels=["ham", "spam"])
    assert "classifier (ham, spam)" in refused(model=named)
    broken = grown("gpt2")
    broken.out_head.weight.data[3] = torch.nan
    assert "not numbers" in refused(model=broken)


def test_one_token_is_enough(tokenizer: BPETokenizer) -> None:
    seen = take_xray(grown("qwen3"), tokenizer, "x")
    assert isinstance(seen, XRay) and len(seen.tokens) == 1 and seen.probability(0) is None
    assert seen.attention.unpacked(2, 4, 1).tolist() == [[[[1.0]]] * 4] * 2


SILENCED = [Part(0, "head", 1), Part(1, "head", 3), Part(1, "feed_forward")]


def test_parts_can_be_silenced_all_the_while(architecture: str, tokenizer: BPETokenizer) -> None:
    model, ids = grown(architecture), tokenizer.encode(READ)
    before = take_xray(model, tokenizer, READ)
    reading = Reading(model, tokenizer, READ, silenced=SILENCED)
    seen, plain = reading.xray(), plainly(model, ids, without=SILENCED)
    logs = plain.says[-1].log_softmax(-1)
    close(torch.stack(plain.attention), torch.tensor(unpacked(seen)).float(), atol=1e-4, rtol=0)
    close(torch.tensor(seen.norms.stream), lengths(plain.stream), atol=1e-3, rtol=1e-3)
    surprises = [token.surprise for token in seen.tokens[1:]]
    close(torch.tensor(surprises), -logs[range(len(ids) - 1), ids[1:]], atol=1e-3, rtol=1e-3)
    assert [row.ids[0] for row in seen.next] == logs.argmax(-1).tolist()
    assert take_xray(model, tokenizer, READ) == before  # nothing stays behind in the model


@pytest.mark.parametrize("silenced", [[], SILENCED])
def test_it_writes_on_token_by_token(
    architecture: str, tokenizer: BPETokenizer, silenced: list[Part]
) -> None:
    model, ids = grown(architecture), tokenizer.encode(READ)
    reading = Reading(model, tokenizer, READ, silenced=silenced)
    reading.xray()
    texts = []
    while (text := reading.write_on()) is not None:
        texts.append(text)
    for _ in texts:
        ids.append(int(plainly(model, ids, without=silenced).says[-1][-1].argmax()))
    written = ids[len(reading.ids) :]
    assert texts and texts[-1] == visible(tokenizer.decode(written).removesuffix("\ufffd"))
    if len(ids) < model.cfg.context_length:
        following = plainly(model, ids, without=silenced).says[-1][-1].argmax()
        assert following == tokenizer.eot_token


def test_a_part_that_is_not_there_is_refused(tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError, match="no head 4 of layer 0: the model has 2 layers of 4 heads"):
        Reading(grown("gpt2"), tokenizer, READ, silenced=[Part(0, "head", 4)])


def unpacked(seen: XRay) -> np.ndarray:
    return seen.attention.unpacked(seen.n_layers, seen.n_heads, len(seen.tokens))


def lengths(stream: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([x.norm(dim=-1) for x in stream])
