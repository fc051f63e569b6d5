"""A run that is killed at any moment comes to the same end, bit by bit, but for the times.

``GROUNDUP_KILLS=20`` kills each task's run twenty times instead of twice.
"""

import multiprocessing
import os
import random
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # pyright: ignore

from groundup.checkup import examine_directory
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from tests.conftest import tiny_config
from tests.tasks.killed import remains, train, train_together

Store = partial(TCPStore, "127.0.0.1", 0, is_master=True, wait_for_workers=False)
"""What torchrun keeps for its processes while they come and go."""

KILLS = int(os.environ.get("GROUNDUP_KILLS", "2"))
AT_ONCE = 4
"""Kills of one run before it may end; then there is another."""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("task", ["pretrain", "classify", "instruct"])
def test_a_killed_run_comes_to_the_same_end(
    tmp_path: Path, tokenizer: BPETokenizer, task: str, processes: int
) -> None:
    base, whole = tmp_path / "base", tmp_path / "whole" / "run"
    save_model(base, GPTModel(tiny_config(context_length=32)), tokenizer)
    # Processes that have all modules loaded, and have never computed anything.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tasks.killed"])

    first = context.Process(target=os.getpid)  # waits until they are loaded
    first.start()
    first.join()

    def started(out: Path, port: int) -> list[BaseProcess]:
        run = task, out, base
        if processes == 1:
            children: list[BaseProcess] = [context.Process(target=train, args=run)]
        else:
            ranks = range(processes)
            children = [context.Process(target=train_together, args=(r, port, *run)) for r in ranks]
        for child in children:
            child.start()
        return children

    def finished(out: Path, port: int) -> bool:
        children = started(out, port)
        for child in children:
            child.join()
        return all(child.exitcode == 0 for child in children)

    begun = time.monotonic()
    assert finished(whole, Store().port)
    duration, expected = time.monotonic() - begun, remains(whole)
    moments, killed, number = random.Random(), 0, 0
    kills = max(1, KILLS // processes)
    while killed < kills:
        out = tmp_path / str(number) / "run"  # of the same name, which the model card has
        number += 1
        told, store = [], Store()
        for _ in range(min(AT_ONCE, kills - killed)):
            children = started(out, store.port)
            chosen = moments.choice(children)
            told.append((children.index(chosen), moments.uniform(0.0, duration)))
            chosen.join(told[-1][1])
            if chosen.exitcode is None:
                chosen.kill()
                killed += 1
            for child in children:
                if child is not chosen and child.exitcode is None:
                    child.terminate()  # as torchrun does
                child.join(60)
                assert child.exitcode is not None, told
        assert finished(out, store.port), told
        found = remains(out)
        assert found.keys() == expected.keys(), told
        differing = [name for name in found if found[name] != expected[name]]
        assert not differing, told
        assert {check.level for check in examine_directory(out)} == {"ok"}, told
