"""Training from a corpus on the disk is training from the text in memory, bit for bit."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from groundup.data import corpus as corpus_module
from groundup.data.corpus import INDEX, Corpus
from groundup.data.corpus_cache import BigText
from groundup.data.corpus_windows import CorpusWindows
from groundup.data.prepare import prepare
from groundup.data.text import fingerprint, read_documents
from groundup.data.windows import TokenWindows
from groundup.errors import UserError
from groundup.model.gpt import GPTModel
from groundup.tasks import texts as texts_module
from groundup.tasks.pretrain import pretrain
from groundup.tokenizers import BPETokenizer
from groundup.train.objective import NextToken
from groundup.train.tracking import read_metrics
from tests.conftest import LAST, SMALL, TEXT, Run, facts_of, small, tiny_config

Fails = Callable[..., str]
QUICK = [*SMALL, "--max-steps=6", "--eval-freq=3", "--document-separator=|"]
CONSTANT = ["--lr-schedule=constant", "--warmup-steps=0"]
NO_SIZE = [option for option in small("--max-steps=4") if not option.startswith("--vocab-size")]


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    words = TEXT.split()
    parts = [" ".join(words[n % 20 :] * (1 + n % 3)) for n in range(30)]
    path.write_text("|".join(parts), "utf-8")
    return path


@pytest.fixture
def corpus(tmp_path: Path, text: Path, tokenizer: BPETokenizer) -> Corpus:
    how = {"separator": "|", "workers": 1, "shard_tokens": 97, "say": quiet}
    return prepare([str(text)], tmp_path / "corpus", tokenizer, **how)


def everything(out: Path) -> tuple[Any, ...]:
    """What a run has learned and recorded, without what tells the time."""
    times = ("seconds", "tokens_per_second")
    records = [{k: v for k, v in r.items() if k not in times} for r in read_metrics(out)]
    last = out / LAST
    weights = load_file(last / "model.safetensors")
    moments = load_file(last / "training_state" / "optimizer.safetensors")
    state = json.loads((last / "training_state" / "state.json").read_text(encoding="utf-8"))
    tensors = {k: v.numpy().tobytes() for k, v in (weights | moments).items()}
    return records, tensors, state["data"], facts_of(out).data.sha256


@pytest.mark.parametrize("stride", [1, 5, 16, 40])
@pytest.mark.parametrize("part", [(0, None), (31, 500)])
def test_windows_are_those_in_memory(corpus: Corpus, stride: int, part: tuple[int, int]) -> None:
    begin, end = part[0], part[1] or corpus.index.tokens
    ids = np.concatenate([corpus.read(n, n + 1) for n in range(begin, end)])
    ours = CorpusWindows(corpus, begin, end, 16, stride, documents=True)
    starts = np.array(corpus.starts, dtype=np.int64) - begin
    theirs = TokenWindows(ids, 16, stride, starts=starts)
    assert len(ours) == len(theirs) and ours.num_tokens == theirs.num_tokens
    rows = [0, len(ours) - 1, len(ours) // 2, 3]
    for a, b in zip(ours.collate(rows), theirs.collate(rows), strict=True):
        assert a.dtype == b.dtype == torch.long and torch.equal(a, b)
    assert len(CorpusWindows(corpus, 0, 16, 16, 1)) == 0
    assert len(CorpusWindows(corpus, 0, 17, 16, 1)) == 1


def test_a_corpus_split_by_characters_trains_as_its_text(
    run: Run, tmp_path: Path, text: Path, tokenizer: BPETokenizer
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    of = f"--tokenizer={tmp_path / 'tokenizer'}"
    options = [option for option in QUICK if "vocab-size" not in option]
    assert run("pretrain", text, "--out", tmp_path / "a", of, *options).status == 0
    prepared = "data", "prepare", text, "--out", tmp_path / "c", of, "--document-separator=|"
    result = run(*prepared, "--train-ratio=0.9", "--workers=1")
    assert result.status == 0 and "31 documents" in result.err  # one is cut in two, result.err
    result = run("pretrain", tmp_path / "c", "--out", tmp_path / "b", *options[:-1])
    assert result.status == 0, result.err
    a, b = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert a[:3] == b[:3]
    assert facts_of(tmp_path / "b").data.files == [str(tmp_path / "c")]
    assert facts_of(tmp_path / "b").data.description.startswith("31 documents, ")


@pytest.mark.parametrize("more", [False, True])
def test_a_big_text_takes_the_way_over_the_cache_and_comes_out_the_same(
    run: Run,
    tmp_path: Path,
    text: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: bool,
) -> None:
    """Begun in memory, a run goes on from the cache, too."""
    options = [*QUICK, *CONSTANT]
    if more:
        (tmp_path / "val.txt").write_text(TEXT * 4, "utf-8")
        options += [f"--validation={tmp_path / 'val.txt'}", "--pack=documents"]
    memory, cached = tmp_path / "memory", tmp_path / "cached"
    assert run("pretrain", text, "--out", memory, *options).status == 0
    monkeypatch.setattr(texts_module, "BIG", 1000)
    result = run("pretrain", text, "--out", cached, *options)
    assert result.status == 0, result.err
    assert f"much text, so they go to {cache / 'corpora'}" in result.err
    assert everything(memory) == everything(cached)
    for out in (memory, cached):
        result = run("pretrain", "--out", out, "--resume", "--max-steps=8")
        assert result.status == 0 and "tokens: those of an earlier run" in result.err
    assert everything(memory) == everything(cached)


def test_a_damaged_cache_is_made_anew(text: Path, cache: Path, tokenizer: BPETokenizer) -> None:
    said: list[str] = []
    first = BigText([str(text)], "|").tokens(tokenizer, 0.9, said.append)
    for shard in cache.glob("corpora/*/shard-00000.bin"):
        shard.write_bytes(shard.read_bytes()[:-2])
    again = BigText([str(text)], "|").tokens(tokenizer, 0.9, said.append)
    assert again.index == first.index and any("it is made anew" in line for line in said)
    BigText([str(text)], "|").tokens(tokenizer, 0.9, said.append)
    assert said[-1].startswith("tokens: those of an earlier run")


def test_a_big_texts_fingerprint_is_that_of_its_documents(text: Path) -> None:
    documents = read_documents([str(text)], "|")
    big = BigText([str(text)], "|")
    assert (big.documents, big.characters) == (30, sum(map(len, documents)))
    assert big.sha256 == BigText([str(text)], "|").sha256 == fingerprint(documents)
    assert big.fingerprint_with(["mőre"]) == fingerprint([*documents, "mőre"])
    text.write_text("changed", encoding="utf-8")
    assert BigText([str(text)], "|").sha256 == fingerprint(["changed"])


def test_a_run_on_a_corpus_resumes(run: Run, tmp_path: Path, corpus: Corpus) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for out, steps in ((a, 4), (b, 9)):
        how = [*NO_SIZE[:-1], *CONSTANT, f"--max-steps={steps}"]
        result = run("pretrain", corpus.directory, "--out", out, *how)
        assert result.status == 0, result.err
    assert run("pretrain", "--out", a, "--resume", "--max-steps=9").status == 0
    assert everything(a)[1:] == everything(b)[1:]


def test_another_tokenizer_is_refused_with_both_fingerprints(
    run: Run, fails: Fails, tmp_path: Path, corpus: Corpus, text: Path
) -> None:
    other = BPETokenizer.train(TEXT * 2, 290)
    other.save(tmp_path / "other")
    both = (corpus.index.tokenizer_sha256[:16], other.vocabulary.fingerprint[:16])
    message = fails(
        "pretrain",
        corpus.directory,
        "--out",
        tmp_path / "a",
        f"--tokenizer={tmp_path / 'other'}",
        *NO_SIZE,
    )
    assert all(fingerprint in message for fingerprint in both)
    options = [*NO_SIZE, f"--tokenizer={tmp_path / 'other'}"]
    assert run("pretrain", text, "--out", tmp_path / "model", *options).status == 0
    message = fails(
        "pretrain", corpus.directory, f"--init-from={tmp_path / 'model'}", "--out", tmp_path / "b"
    )
    assert all(fingerprint in message for fingerprint in both)
    assert "was made with another tokenizer" in message


def test_damage_is_told_by_name(fails: Fails, run: Run, tmp_path: Path, corpus: Corpus) -> None:
    shard = corpus.directory / "shard-00002.bin"
    data = shard.read_bytes()
    train = "pretrain", corpus.directory, "--out", tmp_path / "run", *NO_SIZE
    shard.write_bytes(data[:-2])
    assert f"{shard} has 192 bytes instead of 194" in fails(*train)
    shard.unlink()
    assert f"{shard} is missing" in fails(*train)
    shard.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert f"{shard} is not as it was made" in fails(*train)
    assert f"{shard} is not as it was made" in fails("data", "info", corpus.directory, "--verify")
    assert "shards" in run("data", "info", corpus.directory).out
    said = json.loads(run("data", "info", corpus.directory, "--json").out)
    assert said["documents"] == 30 and said["sha256"] == corpus.index.sha256
    assert run(*train, "--no-verify").status == 0
    assert not (tmp_path / "none").exists()


def test_a_large_corpus_is_verified_while_it_is_read(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "AT_ONCE", 0)
    shard = corpus.directory / "shard-00001.bin"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    corpus.watch()
    with pytest.raises(UserError, match="shard-00001.bin is not as it was made"):
        for _ in range(10**6):
            corpus.read(0, 10)


def test_a_damaged_index(fails: Fails, tmp_path: Path, corpus: Corpus) -> None:
    path = corpus.directory / INDEX
    values = json.loads(path.read_text(encoding="utf-8"))
    for change, message in (
        ({"version": 9}, "is of version 9; this groundup reads up to version 1"),
        ({"tokens": "many"}, "is damaged: see its tokens"),
        ({"dtype": "int8"}, "is damaged: see its dtype"),
    ):
        path.write_text(json.dumps(values | change), encoding="utf-8")
        assert message in fails("data", "info", corpus.directory)
    path.write_text("{", encoding="utf-8")
    assert "corpus.json" in fails("data", "info", corpus.directory)
    assert "no prepared corpus" in fails("data", "info", tmp_path)


def test_what_does_not_go_with_a_corpus(
    fails: Fails, tmp_path: Path, corpus: Corpus, text: Path, tokenizer: BPETokenizer
) -> None:
    train = "pretrain", corpus.directory, "--out", tmp_path / "run"
    assert "vocab_size is 301, but the corpus" in fails(*train, *small("--vocab-size=301"))
    assert "brings its tokenizer" in fails(*train, *NO_SIZE, "--tokenizer=bpe")
    assert "separated already" in fails(*train, *NO_SIZE, "--document-separator=x")
    assert "--mix FIRST=0.7" in fails(*train, text, *NO_SIZE)
    split = tmp_path / "split"
    prepare([str(text)], split, tokenizer, train_ratio=0.8, workers=1, say=quiet)
    message = fails("pretrain", split, "--out", tmp_path / "run", *NO_SIZE, "--train-ratio=0.5")
    assert "prepared with --train-ratio 0.8" in message


def test_a_corpus_validates_another(run: Run, tmp_path: Path, corpus: Corpus) -> None:
    out = tmp_path / "run"
    options = [*NO_SIZE, f"--validation={corpus.directory}"]
    result = run("pretrain", corpus.directory, "--out", out, *options)
    assert result.status == 0, result.err
    counts = facts_of(out).data
    assert counts.train_tokens == counts.val_tokens == corpus.index.tokens


def test_python_takes_a_corpus(tmp_path: Path, corpus: Corpus) -> None:
    shape = {"context_length": 16, "emb_dim": 32, "n_heads": 4, "n_layers": 1}
    record = pretrain(corpus, tmp_path / "run", {"max_steps": 2}, shape, say=quiet)
    assert math.isfinite(record["val_loss"])
    assert facts_of(tmp_path / "run").shape["vocab_size"] == corpus.tokenizer.vocab_size


@pytest.mark.parametrize("length", [16, 50])
def test_packed_documents_are_those_read_apart(corpus: Corpus, length: int) -> None:
    """The loss of each window is the sum over its documents, each of them alone."""
    model = GPTModel(tiny_config(context_length=64)).init_gpt2().eval()
    windows = CorpusWindows(corpus, 0, corpus.index.tokens, length, length, documents=True)
    batch = windows.collate(range(6))
    inputs, targets, documents = batch
    assert any(len(set(row.tolist())) > 1 for row in documents)
    with torch.no_grad():
        packed = NextToken().loss(model, batch)
        apart = 0.0
        for row in range(len(inputs)):
            for number in documents[row].unique():
                own = documents[row] == number
                one = inputs[row][own][None], targets[row][own][None]
                apart += NextToken().loss(model, one).item()
                within = inputs[row][own].tolist()[1:]
                assert corpus.index.end_of_text not in within  # only a document's first token
        whole = NextToken().loss(model, (inputs, targets))
    assert packed.item() == pytest.approx(apart, rel=1e-5)
    assert abs(whole.item() - apart) > 1e-3
    assert NextToken().count(batch) == targets.numel()


def test_packing_is_refused_where_the_model_cannot(tmp_path: Path) -> None:
    class Plain(GPTModel):
        def forward(self, in_idx: torch.Tensor) -> torch.Tensor:  # pyright: ignore
            return super().forward(in_idx)

    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(UserError, match="forward of Plain takes no documents="):
        NextToken().loss(Plain(tiny_config()), (ids, ids, ids))


def test_packing_is_not_changed_on_resume(
    fails: Fails, run: Run, tmp_path: Path, text: Path
) -> None:
    assert run("pretrain", text, "--out", tmp_path / "run", *QUICK).status == 0
    again = "pretrain", "--out", tmp_path / "run", "--resume", "--max-steps=9"
    assert "pack 'windows' to 'documents'" in fails(*again, "--pack=documents")
