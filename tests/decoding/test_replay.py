"""Steps that are recorded once and played again, which a GPU does: here a trace plays its part.

The trace holds PyTorch's functions and the memory that they read and write, nothing of Python, as a
CUDA graph does. On a GPU the same was tried (``benchmarks/gpu_generate.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from groundup.decoding import replay
from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import Engine
from groundup.decoding.replay import Replays
from groundup.decoding.sequence import Sequence
from groundup.errors import Note
from groundup.model.gpt import GPTModel
from groundup.model.lora import add_lora, lora_layers
from tests.decoding.test_together import MODELS, Recorded, check_against_uncached

Play = Callable[[], Tensor]


class Traced:
    """What is recorded, as PyTorch's functions on memory; it counts."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, compute: Play) -> Play:
        self.recorded += 1
        with torch.no_grad():
            graph = make_fx(lambda _: compute())(torch.zeros(()))

        def play() -> Tensor:
            self.played += 1
            with torch.no_grad():
                return graph(torch.zeros(()))

        return play


def replaying(model: GPTModel, record: Callable[[Play], Play], **options: object) -> Recorded:
    """An engine as on a GPU."""
    engine = Recorded(model, rows=1, **options)
    assert engine.cache is not None
    engine.replays = Replays(model, engine.cache, record)
    return engine


@pytest.fixture(autouse=True)
def short_spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(replay, "SPAN", 12)
    yield


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
@settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_is_played_again_is_what_would_be_computed(
    architecture: str, data: st.DataObject
) -> None:
    """For rows that come and go, of any length; also where the window slides."""
    model, draw, traced = MODELS[architecture], data.draw, Traced()
    engine = replaying(model, traced, max_batch=3)
    rows = []
    for index in range(draw(st.integers(1, 4))):
        config = SamplingConfig(
            max_new_tokens=draw(st.integers(6, 40)),
            temperature=draw(st.sampled_from([0.0, 0.8])),
            seed=draw(st.integers(0, 3)),
        )
        prompt = draw(st.lists(st.integers(0, 299), min_size=1, max_size=12))
        keep = draw(st.sampled_from([None, 16]))
        row = Sequence(prompt, config, index=index, on_full="slide" if keep else "end", keep=keep)
        rows.append(engine.add(row))
        for _ in range(draw(st.integers(0, 5))):
            engine.step()
    list(engine.run())
    assert 1 <= traced.recorded <= traced.played
    for row in rows:
        check_against_uncached(model, row, engine.scores[id(row)])


def write(
    engine: Engine, count: int = 2, new: int = 20, first: int = 0, adapter: str | None = None
) -> list[list[int]]:
    """Texts of which no two begin alike."""
    config = SamplingConfig(max_new_tokens=new, temperature=0.8, seed=1)
    prompts = [[first + index, 1, 4] for index in range(count)]
    rows = [engine.add(Sequence(p, config, index=p[0], adapter=adapter)) for p in prompts]
    list(engine.run())
    return [row.ids for row in rows]


def test_a_shape_is_recorded_when_it_comes_again_and_again_once_the_memory_is_another() -> None:
    traced = Traced()
    engine = replaying(MODELS["gpt2"], traced, max_batch=2)
    write(engine, 2, 3)  # the second step of the shape is the first that is recorded
    assert (traced.recorded, traced.played) == (1, 1)
    write(engine, 2, 3, first=10)
    assert (traced.recorded, traced.played) == (1, 3)
    write(engine, 2, 25, first=20)  # as before up to 12 tokens; up to 24 and 32 in other memory
    assert traced.recorded == 3
    write(engine, 2, 3, first=30)
    assert traced.recorded == 4
    engine.forget()
    write(engine, 2, 3, first=40)
    assert traced.recorded == 5


def test_few_shapes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST", 2)
    traced = Traced()
    engine = replaying(MODELS["gpt2"], traced, max_batch=4)
    expected = write(Engine(MODELS["gpt2"], max_batch=4), 4, 25)
    assert write(engine, 4, 25) == expected
    assert engine.replays is not None and len(engine.replays.steps) <= 2


def test_an_adapter_is_recorded_apart() -> None:
    torch.manual_seed(0)
    model = GPTModel(MODELS["gpt2"].cfg).init_gpt2()
    before = dict(model.named_modules())
    add_lora(model, rank=2)
    with_it = lora_layers(model)
    plain = {name: before[name] for name in with_it}
    for layer in with_it.values():
        layer.B.data.normal_()
    model.eval()

    def use(name: str | None) -> None:
        for place in with_it:
            model.set_submodule(place, with_it[place] if name else plain[place])

    def texts(engine: Engine) -> list[list[int]]:
        use(None)  # what an engine takes to be there
        return [
            ids
            for first in (0, 0, 10)
            for adapter in (None, "one")
            for ids in write(engine, 1, 9, first, adapter)
        ]

    expected = texts(Engine(model, use_adapter=use))
    traced = Traced()
    assert texts(replaying(model, traced, use_adapter=use, max_batch=1)) == expected
    assert expected[0] != expected[1] and expected[:2] == expected[2:4]
    assert traced.recorded == 2


def test_whoever_looks_on_sees_every_step() -> None:
    model, traced, seen = MODELS["gpt2"], Traced(), []
    hook = model.trf_blocks[0].register_forward_hook(lambda *_: seen.append(1))
    try:
        write(replaying(model, traced), 1, 10)
    finally:
        hook.remove()
    assert (len(seen), traced.recorded) == (10, 0)


def test_a_subclass_computes_every_step() -> None:
    class Louder(GPTModel):
        def forward(self, *args: object, **named: object) -> Tensor:  # pyright: ignore
            return 2 * super().forward(*args, **named)  # pyright: ignore

    traced = Traced()
    model = Louder(MODELS["gpt2"].cfg).eval()
    write(replaying(model, traced))
    assert not traced.recorded


def test_what_cannot_be_recorded_is_computed_and_said_once() -> None:
    def fail(compute: Play) -> Play:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    expected = write(Engine(MODELS["gpt2"]))
    with pytest.warns(Note, match="can't be recorded") as told:
        assert write(replaying(MODELS["gpt2"], fail)) == expected
    assert len(told) == 1


def test_no_memory_is_told_as_such() -> None:
    def fail(compute: Play) -> Play:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write(replaying(MODELS["gpt2"], fail))
