"""A corpus has the ids of the same text in memory, however often its making is broken off."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from groundup.data import reading, shards, stream
from groundup.data.corpus import DOCUMENTS, INDEX, SOURCES, Corpus
from groundup.data.prepare import prepare
from groundup.data.text import read_documents, split_documents
from groundup.data.tokens import encode_documents
from groundup.errors import UserError
from groundup.files import LOCK, JsonLines
from groundup.tokenizers import BPETokenizer, train_with_library
from tests.conftest import TEXT


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces and jobs, and an entry of the journal for each."""
    monkeypatch.setattr(stream, "PIECE", 100)
    monkeypatch.setattr(reading, "JOB", 300)
    monkeypatch.setattr(shards, "COMMIT", -1.0)


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(TEXT * 9, "utf-8")
    (tmp_path / "texts" / "b.md").write_text("|".join([TEXT * 2, " \n", "short", TEXT]), "utf-8")
    (tmp_path / "texts" / "c.txt").write_text("The end.", "utf-8")
    return [str(tmp_path / "texts")]


def all_ids(corpus: Corpus) -> list[int]:
    return corpus.read(0, corpus.index.tokens).tolist()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shard_tokens", [64, 2**20])
def test_its_ids_are_those_of_the_text_in_memory(
    tmp_path: Path, tokenizer: BPETokenizer, texts: list[str], workers: int, shard_tokens: int
) -> None:
    corpus = prepare(
        texts,
        tmp_path / "corpus",
        tokenizer,
        separator="|",
        workers=workers,
        shard_tokens=shard_tokens,
        say=quiet,
    )
    documents = read_documents(texts, "|")
    expected = encode_documents(documents, tokenizer).tolist()
    assert len(documents) == 5 and all_ids(corpus) == expected
    assert len(corpus.index.shards) == -(-len(expected) // shard_tokens)
    assert [expected[int(place)] for place in corpus.starts[1:]] == [tokenizer.eot_token] * 4
    assert corpus.starts[0] == 0 and corpus.index.characters == sum(map(len, documents))
    assert corpus.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    corpus.verify()
    sources = JsonLines(corpus.directory / SOURCES).read()
    for source in sources:
        data = Path(source["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (source["bytes"], source["sha256"])
    assert len(sources) == 3


@pytest.mark.parametrize("ratio", [0.001, 0.5, 0.77, 0.9, 0.999, 1.0])
def test_a_split_by_characters_is_that_of_the_text_in_memory(
    tmp_path: Path, tokenizer: BPETokenizer, texts: list[str], ratio: float
) -> None:
    how = {"separator": "|", "train_ratio": ratio, "workers": 1, "say": quiet}
    corpus = prepare(texts, tmp_path / "corpus", tokenizer, **how)
    train, val = split_documents(read_documents(texts, "|"), ratio)
    ids, split = all_ids(corpus), corpus.index.split
    assert ids[:split] == encode_documents(train, tokenizer).tolist()
    assert ids[split:] == encode_documents(val, tokenizer).tolist()
    assert corpus.index.documents == len(train) + len(val)


def test_a_split_between_two_documents(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    (tmp_path / "a.txt").write_text("abcd|efgh", encoding="utf-8")
    how = {"separator": "|", "train_ratio": 0.5, "workers": 1, "say": quiet}
    corpus = prepare([str(tmp_path / "a.txt")], tmp_path / "corpus", tokenizer, **how)
    first, second = tokenizer.encode("abcd"), tokenizer.encode("efgh")
    assert all_ids(corpus) == first + second and corpus.index.split == len(first)
    assert corpus.starts.tolist() == [0, len(first)]


def test_a_tokenizer_trained_on_the_part_that_trains(tmp_path: Path, texts: list[str]) -> None:
    how = {"separator": "|", "train_ratio": 0.6, "workers": 1, "say": quiet}
    corpus = prepare(texts, tmp_path / "c", lambda parts: train_with_library(parts, 280), **how)
    train, _ = split_documents(read_documents(texts, "|"), 0.6)
    assert corpus.tokenizer.merges == BPETokenizer.train(train, 280).merges


def test_large_vocabularies_have_four_bytes(
    tmp_path: Path, texts: list[str], tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tokenizer), "vocab_size", 70_000)
    corpus = prepare(texts, tmp_path / "corpus", tokenizer, workers=1, say=quiet)
    assert corpus.index.dtype == "uint32"
    assert all_ids(corpus) == encode_documents(read_documents(texts), tokenizer).tolist()


def content(corpus: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in corpus.iterdir() if path.name != LOCK}


EVENTS: list[tuple[object, str]] = [
    (os, "fsync"),
    (shards.ShardWriter, "put"),
    (shards.ShardWriter, "_write"),
    (JsonLines, "append"),
    (os, "replace"),
    (Path, "unlink"),
]
"""What a process may be ended before: everything that changes the disk."""


def killed(work: Callable[[], object], at: int) -> bool:
    """Do something in a process of its own, killed before the nth event; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*args: object, **named: object) -> object:
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **named)

            return wrapper

        for owner, name in EVENTS:
            setattr(owner, name, counted(getattr(owner, name)))
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize("ratio", [None, 0.7])
def test_after_a_kill_at_any_moment_it_goes_on(
    tmp_path: Path, tokenizer: BPETokenizer, texts: list[str], ratio: float | None
) -> None:
    """Byte for byte the same as without; several kills on the way, each a bit later."""

    def work(out: Path) -> Corpus:
        how = {"separator": "|", "train_ratio": ratio, "workers": 1, "shard_tokens": 100}
        return prepare(texts, out, tokenizer, **how, say=quiet)

    whole = content(work(tmp_path / "whole").directory)
    kills = 0
    for step in (3, 8, 21, 55):
        out = tmp_path / f"broken-{step}"
        at = step
        while killed(lambda out=out: work(out), at):
            kills += 1
            at += step
            if (out / INDEX).exists():  # all that lacked was to tidy up
                Corpus(out).verify()
                continue
            with pytest.raises(UserError, match="no prepared corpus"):
                Corpus(out)
        assert content(out) == whole, step
    assert kills > 12


def test_work_that_goes_on_does_not_begin_anew(
    tmp_path: Path, tokenizer: BPETokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    how = {"separator": "|", "workers": 1, "shard_tokens": 100}
    assert killed(lambda: prepare(texts, tmp_path / "c", tokenizer, **how, say=quiet), 40)
    encoded: list[str] = []
    encode = BPETokenizer.encode
    monkeypatch.setattr(
        BPETokenizer,
        "encode",
        lambda self, text, **named: encoded.append(text) or encode(self, text),
    )
    corpus = prepare(texts, tmp_path / "c", tokenizer, **how, say=said.append)
    assert said[0].startswith(f"going on with {tmp_path / 'c'} after ")
    assert 0 < sum(map(len, encoded)) < 0.8 * corpus.index.characters


def test_unfinished_work_of_something_else_is_left_alone(
    tmp_path: Path, tokenizer: BPETokenizer, texts: list[str]
) -> None:
    out = tmp_path / "corpus"
    assert killed(lambda: prepare(texts, out, tokenizer, workers=1, say=quiet), 20)
    before = content(out)
    with pytest.raises(UserError, match="cannot be gone on with .*: separator"):
        prepare(texts, out, tokenizer, separator="|", say=quiet)
    with pytest.raises(UserError, match="of another tokenizer: its fingerprint is") as error:
        prepare(texts, out, BPETokenizer.train(TEXT, 270), workers=1, say=quiet)
    assert tokenizer.vocabulary.fingerprint[:16] in str(error.value)
    (Path(texts[0]) / "a.txt").write_text("changed meanwhile", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be gone on with .*: files"):
        prepare(texts, out, tokenizer, workers=1, say=quiet)
    assert content(out) == before
    corpus = prepare(texts, out, tokenizer, workers=1, overwrite=True, say=quiet)
    assert all_ids(corpus) == encode_documents(read_documents(texts), tokenizer).tolist()


def test_nothing_is_overwritten_unasked(
    tmp_path: Path, tokenizer: BPETokenizer, texts: list[str]
) -> None:
    out = tmp_path / "corpus"
    prepare(texts, out, tokenizer, workers=1, say=quiet)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds a corpus; use --overwrite"):
        prepare(texts, out, tokenizer, say=quiet)
    prepare([texts[0] + "/c.txt"], out, tokenizer, overwrite=True, workers=1, say=quiet)
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine" and Corpus(
        out
    ).index.documents == 1
    with pytest.raises(UserError, match="is not empty and holds no corpus"):
        prepare(texts, tmp_path / "texts", tokenizer, overwrite=True, say=quiet)
    with pytest.raises(UserError, match="is a file"):
        prepare(texts, out / "notes.txt", tokenizer, say=quiet)


def test_mistakes(tmp_path: Path, tokenizer: BPETokenizer, texts: list[str]) -> None:
    with pytest.raises(UserError, match="no text given"):
        prepare([], tmp_path / "c", tokenizer)
    with pytest.raises(UserError, match="train_ratio is 1.5"):
        prepare(texts, tmp_path / "c", tokenizer, train_ratio=1.5)
    with pytest.raises(UserError, match="workers"):
        prepare(texts, tmp_path / "c", tokenizer, workers=0)
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(UserError, match="there is no text in"):
        prepare([str(tmp_path / "blank.txt")], tmp_path / "c", tokenizer, workers=1, say=quiet)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_encoded_is_named(tmp_path: Path, workers: int) -> None:
    letters = BPETokenizer.from_characters({letter: n for n, letter in enumerate("ab\n ")})
    (tmp_path / "a.jsonl").write_text('{"text": "abba"}\n{"text": "abbc"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a.jsonl, line 2: the tokenizer knows only .*'c'"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "c", letters, workers=workers, say=quiet)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    yield {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_command_is_killed_with_its_processes_and_goes_on(
    tmp_path: Path, texts: list[str], tokenizer: BPETokenizer, environment: dict[str, str]
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "long.txt").write_text(TEXT * 20_000, "utf-8")  # that a fast machine is busy with
    command = [sys.executable, "-m", "groundup", "data", "prepare", str(tmp_path / "long.txt")]
    command += ["--tokenizer", str(tmp_path / "tokenizer"), "--workers=2", "--out"]
    broken = subprocess.Popen([*command, str(tmp_path / "broken")], env=environment)
    journal = tmp_path / "broken" / ".preparing.jsonl"
    while broken.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    time.sleep(0.1)
    assert broken.poll() is None, "it was over before it could be killed"
    children = (
        Path(f"/proc/{broken.pid}/task/{broken.pid}/children").read_text(encoding="utf-8").split()
    )
    broken.kill()
    broken.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "its processes go on"
        time.sleep(0.05)
    subprocess.run([*command, str(tmp_path / "broken")], env=environment, check=True, timeout=120)
    prepare([str(tmp_path / "long.txt")], tmp_path / "whole", tokenizer, workers=1, say=quiet)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")
    assert (
        json.loads((tmp_path / "whole" / "corpus.json").read_text(encoding="utf-8"))["documents"]
        == 1
    )
    assert np.fromfile(tmp_path / "whole" / DOCUMENTS, "<u8").tolist() == [0]
