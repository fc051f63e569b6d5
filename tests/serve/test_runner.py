from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import torch

from groundup.decoding.config import SamplingConfig
from groundup.decoding.engine import generate
from groundup.decoding.sequence import Sequence
from groundup.errors import UserError
from groundup.serve.models import Models, NotServed, Served
from groundup.serve.writing import Broken, Busy, Piece, Writing
from tests.assistants import lively_model

pytestmark = pytest.mark.anyio

PROMPTS = ("the fox", "a dog", "quick brown", "jumps over", "lazy")


def text_of(served: Served, prompt: str, length: int = 20) -> Sequence:
    ids = served.tokenizer.encode(prompt)
    return Sequence(ids, SamplingConfig(max_new_tokens=length), tokenizer=served.tokenizer)


def expected(served: Served, prompt: str, length: int = 20) -> list[int]:
    idx = torch.tensor([served.tokenizer.encode(prompt)])
    context = served.model.cfg.context_length
    ids = generate(served.model, idx, length, context, eos_id=served.tokenizer.eot_token)
    return ids[0, idx.shape[1] :].tolist()


async def all_of(writing: Writing) -> list[Piece]:
    return [piece async for piece in writing]


async def until(true: Any) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def test_each_gets_its_own_text_however_many_are_written_together(lively: Served) -> None:
    prompts = [PROMPTS[i % 5] + " of"[: i % 4] for i in range(40)]
    writings = [lively.runner.write([text_of(lively, prompt)]) for prompt in prompts]
    pieces = await asyncio.gather(*map(all_of, writings))
    for prompt, writing, own in zip(prompts, writings, pieces, strict=True):
        ids = expected(lively, prompt)
        assert writing.texts[0].token_ids == ids
        assert "".join(piece.text for piece in own) == lively.tokenizer.decode(ids)
    assert lively.runner.running == lively.runner.waiting == 0


async def test_whoever_stops_listening_frees_the_place_at_once(lively: Served) -> None:
    longest = lively.model.cfg.context_length
    writing = lively.runner.write([text_of(lively, "the fox", longest)])
    pieces = writing.__aiter__()
    await anext(pieces)
    writing.stop()
    await lively.work(lambda: None)  # whatever was asked before this is done
    assert lively.runner.running == 0
    assert len(writing.texts[0].ids) < longest


async def test_too_many_are_refused_and_later_ones_are_not(lively: Served) -> None:
    runner = lively.runner
    runner.room = 3
    with pytest.raises(UserError, match="4 texts at a time; this server takes 3"):
        runner.write([text_of(lively, "lazy")] * 4)
    three = [runner.write([text_of(lively, prompt)]) for prompt in PROMPTS[:3]]
    with pytest.raises(Busy, match="3 texts are being written"):
        runner.write([text_of(lively, "lazy")])
    await asyncio.gather(*map(all_of, three))
    assert len(await all_of(runner.write([text_of(lively, "lazy", 4)]))) == 4


async def test_work_is_done_in_the_one_thread_and_its_errors_come_back(lively: Served) -> None:
    assert not await lively.work(torch.is_grad_enabled)
    thread = await lively.work(threading.current_thread)
    assert thread is await lively.work(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await lively.work(lambda: 1 / 0)
    assert await lively.work(lambda: 7) == 7


async def test_a_step_that_fails_is_told_to_those_in_it_and_the_others_go_on(
    tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    served = Served.of("x", lively_model(tokenizer), tokenizer, max_batch=2)
    at_work, failing = served.model.forward, threading.Event()

    def forward(*args: Any, **kwargs: Any) -> Any:
        if failing.is_set():
            failing.clear()
            raise RuntimeError("a cable was pulled")
        return at_work(*args, **kwargs)

    served.model.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    # Both are running before the step that fails; the third waits.
    hold = threading.Event()
    asyncio.get_running_loop().create_task(served.work(hold.wait))
    writings = [served.runner.write([text_of(served, prompt)]) for prompt in PROMPTS[:3]]
    failing.set()
    hold.set()
    results = await asyncio.gather(*map(all_of, writings), return_exceptions=True)
    assert [type(result) for result in results] == [Broken, Broken, list]
    assert "a cable was pulled" in capsys.readouterr().err
    assert writings[2].texts[0].token_ids == expected(served, PROMPTS[2])
    again = served.runner.write([text_of(served, PROMPTS[0])])
    await all_of(again)
    assert again.texts[0].token_ids == expected(served, PROMPTS[0])
    served.runner.close()


async def test_when_it_closes_those_that_are_written_are_told(lively: Served) -> None:
    longest = lively.model.cfg.context_length
    writing = lively.runner.write([text_of(lively, "the fox", longest)])
    reading = asyncio.create_task(all_of(writing))
    await until(lambda: writing.tokens)
    await asyncio.to_thread(lively.runner.close)
    with pytest.raises(Busy, match="shutting down"):
        await reading
    with pytest.raises(Busy, match="shutting down"):
        lively.runner.write([text_of(lively, "lazy")])


def test_models_are_found_by_name(lively: Served) -> None:
    models = Models([lively])
    assert models.get("lively") is lively and len(models) == 1 and list(models) == [lively]
    with pytest.raises(NotServed, match="no model 'livel' here; did you mean 'lively'"):
        models.get("livel")
    with pytest.raises(UserError, match="two models are called lively: lively and lively"):
        Models([lively, lively])
