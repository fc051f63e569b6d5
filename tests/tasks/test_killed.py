"""A run that is killed at any moment comes to the same end, bit by bit, but for the times.

``GROUNDUP_KILLS=20`` kills each task's run twenty times instead of twice.
"""

import multiprocessing
import os
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from groundup.checkup import examine_directory
from groundup.model.gpt import GPTModel
from groundup.tokenizers import BPETokenizer
from groundup.weights.checkpoint import save_model
from tests.conftest import tiny_config
from tests.tasks.killed import remains, train

KILLS = int(os.environ.get("GROUNDUP_KILLS", "2"))
AT_ONCE = 4
"""Kills of one run before it may end; then there is another."""


@pytest.mark.parametrize("task", ["pretrain", "classify", "instruct"])
def test_a_killed_run_comes_to_the_same_end(
    tmp_path: Path, tokenizer: BPETokenizer, task: str
) -> None:
    base, whole = tmp_path / "base", tmp_path / "whole" / "run"
    save_model(base, GPTModel(tiny_config(context_length=32)), tokenizer)
    # Processes that have all modules loaded, and have never computed anything.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tasks.killed"])

    first = context.Process(target=os.getpid)  # waits until they are loaded
    first.start()
    first.join()

    def started(out: Path) -> BaseProcess:
        child = context.Process(target=train, args=(task, out, base))
        child.start()
        return child

    begun = time.monotonic()
    child = started(whole)
    child.join()
    assert child.exitcode == 0
    duration, expected = time.monotonic() - begun, remains(whole)
    moments, killed, number = random.Random(), 0, 0
    while killed < KILLS:
        out = tmp_path / str(number) / "run"  # of the same name, which the model card has
        number += 1
        told = []
        for _ in range(min(AT_ONCE, KILLS - killed)):
            child = started(out)
            told.append(moments.uniform(0.0, duration))
            child.join(told[-1])
            if child.exitcode is None:
                child.kill()
                killed += 1
            child.join()
        child = started(out)
        child.join()
        assert child.exitcode == 0, told
        found = remains(out)
        assert found.keys() == expected.keys(), told
        differing = [name for name in found if found[name] != expected[name]]
        assert not differing, told
        assert {check.level for check in examine_directory(out)} == {"ok"}, told
