"""Saved tokenizers come back, open in transformers, and damaged or foreign files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as LibraryTokenizer

from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer, Tokenizer, load_tokenizer
from groundup.tokenizers.byte_level import END_OF_TEXT, to_bytes, to_characters

SAMPLE = "It was the best of times, it was the worst of times. Don't you think so?\n\n中文 🙂\n" * 3
SAMPLE_TOKENIZER = BPETokenizer.train(SAMPLE, 320, [END_OF_TEXT, "<|user|>"])


def test_load_gives_back_what_was_saved(tmp_path):
    tokenizer: Tokenizer = SAMPLE_TOKENIZER
    tokenizer.save(tmp_path / "new" / "folder")
    for path in (tmp_path / "new" / "folder", tmp_path / "new" / "folder" / "tokenizer.json"):
        loaded = BPETokenizer.load(path)
        assert loaded.vocabulary == SAMPLE_TOKENIZER.vocabulary
        assert loaded.encode(SAMPLE) == SAMPLE_TOKENIZER.encode(SAMPLE)


def test_files_of_a_saved_tokenizer(tmp_path):
    SAMPLE_TOKENIZER.save(tmp_path, model_max_length=256)
    assert sorted(file.name for file in tmp_path.iterdir()) == (
        ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]
    )
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert list(vocab.values()) == list(range(SAMPLE_TOKENIZER.vocab_size))
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[0] == "#version: 0.2"
    assert [tuple(map(to_bytes, line.split())) for line in merges[1:]] == SAMPLE_TOKENIZER.merges
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "model_max_length": 256,
    }
    assert "Ġ" in (tmp_path / "tokenizer.json").read_text(encoding="utf-8"), "JSON as UTF-8"


def test_saving_twice_writes_the_same_bytes(tmp_path):
    SAMPLE_TOKENIZER.save(tmp_path / "a")
    BPETokenizer.load(tmp_path / "a").save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_saving_over_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("precious", "utf-8")
    with pytest.raises(UserError, match="it is a file"):
        SAMPLE_TOKENIZER.save(tmp_path / "file")
    assert (tmp_path / "file").read_text("utf-8") == "precious"


def test_auto_tokenizer_opens_it(tmp_path, data_text):
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    trained = BPETokenizer.train(data_text[:200_000], 1000)
    trained.save(tmp_path, model_max_length=1024)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', "utf-8")
    theirs: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tmp_path)

    text = data_text + END_OF_TEXT + data_text[:100]
    ids = trained.encode(text, allowed_special="all")
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids) == text
    assert len(theirs) == trained.vocab_size
    assert theirs.eos_token_id == theirs.bos_token_id == trained.eot_token
    assert theirs.model_max_length == 1024


def test_auto_tokenizer_adds_nothing_where_there_is_no_end_of_text(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = BPETokenizer.train(SAMPLE, 300, [])
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', "utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eot_token is None
    assert len(theirs) == tokenizer.vocab_size
    assert theirs(SAMPLE)["input_ids"] == tokenizer.encode(SAMPLE)


# --- tokenizer.json files of others


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A saved tokenizer and the content of its tokenizer.json."""
    SAMPLE_TOKENIZER.save(tmp_path)
    return tmp_path, json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))


def write(directory: Path, content: object) -> None:
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def test_older_layout_loads(saved):
    directory, content = saved
    model = content["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    for key in ("type", "byte_fallback", "ignore_merges"):
        del model[key]
    model |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": END_OF_TEXT}
    content["post_processor"] = content["pre_tokenizer"] | {"add_prefix_space": True}
    del content["pre_tokenizer"]["use_regex"]
    content["added_tokens"][0]["normalized"] = True
    write(directory, content)
    assert BPETokenizer.load(directory).vocabulary == SAMPLE_TOKENIZER.vocabulary


def test_ids_in_another_order_and_two_merges_of_one_token(saved):
    """As the library writes them: special tokens first; some files spell a token in two ways."""
    directory, content = saved
    base = [END_OF_TEXT, *map(to_characters, (bytes([byte]) for byte in range(256)))]
    tokens = [*base, "aa", "ab", "aab"]
    merges = [["a", "a"], ["a", "b"], ["a", "ab"], ["aa", "b"]]
    content["added_tokens"] = [content["added_tokens"][0] | {"id": 0}]
    content["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    content["model"]["merges"] = merges
    write(directory, content)
    ours, library = (
        BPETokenizer.load(directory),
        LibraryTokenizer.from_file(str(directory / "tokenizer.json")),
    )
    assert ours.eot_token == 0
    for text in ("aab", "aaab", "aaaab aab", END_OF_TEXT, "ab\naa"):
        assert ours.encode(text, allowed_special="all") == library.encode(text).ids
    ours.save(directory)
    vocab = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    assert list(vocab.items()) == list(content["model"]["vocab"].items())
    assert BPETokenizer.load(directory).vocabulary == ours.vocabulary


@pytest.mark.parametrize(
    ("part", "change", "problem"),
    [
        ("model", {"type": "WordPiece"}, 'model has type = "WordPiece"'),
        ("model", {"ignore_merges": True}, "ignore_merges = true"),
        ("model", {"dropout": 0.1}, "dropout = 0.1"),
        ("model", {"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ("pre_tokenizer", {"add_prefix_space": True}, "add_prefix_space = true"),
        ("pre_tokenizer", {"use_regex": False}, "use_regex = false"),
        ("pre_tokenizer", {"type": "Metaspace"}, 'pre_tokenizer has type = "Metaspace"'),
        ("pre_tokenizer", None, "pre_tokenizer has type = null"),
        ("decoder", {"type": "WordPiece"}, "decoder has type"),
        ("normalizer", {"type": "NFC"}, 'normalizer has type = "NFC"'),
        ("post_processor", {"type": "TemplateProcessing"}, "not laid out"),
        ("model", {"merges": [["a", "zz"]]}, "token b'zz', which is not in the vocabulary"),
        ("model", {"merges": [["a", "q"]]}, "token b'aq', which is not in the vocabulary"),
        ("model", {"merges": [["a"]]}, "not a pair"),
        ("model", {"merges": ["a b c"]}, "not a pair"),
        ("model", {"merges": [["▁a", "b"]]}, "not a byte-level vocabulary"),
        ("model", {"merges": None}, "not laid out"),
        ("model", {"vocab": {"a": 0}, "merges": []}, "ids of a vocabulary of 3 .* 0 to 2"),
        ("model", {"vocab": {"a": "x"}}, "not laid out"),
    ],
)
def test_what_is_not_implemented_or_inconsistent_is_refused(saved, part, change, problem):
    directory, content = saved
    content[part] = change if change is None else (content[part] or {}) | change
    write(directory, content)
    with pytest.raises(UserError, match=problem) as caught:
        BPETokenizer.load(directory)
    assert str(directory / "tokenizer.json") in str(caught.value)


def test_missing_byte_and_wrong_special_ids_are_refused(saved):
    directory, content = saved
    vocab = content["model"]["vocab"]
    vocab["zzz"] = vocab.pop("!")
    write(directory, content)
    with pytest.raises(UserError, match="no token for the byte 0x21"):
        BPETokenizer.load(directory)

    vocab["!"] = vocab.pop("zzz")
    content["added_tokens"][0]["id"] += 1
    write(directory, content)
    with pytest.raises(UserError, match="two ids"):
        BPETokenizer.load(directory)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_special_tokens_with_flags_are_refused(saved, flag):
    directory, content = saved
    content["added_tokens"][0][flag] = True
    write(directory, content)
    with pytest.raises(UserError, match=f"added token '<.endoftext.>' has {flag} = true"):
        BPETokenizer.load(directory)


def test_truncated_missing_and_foreign_files(saved):
    directory, content = saved
    file = directory / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="not valid JSON.*truncated"):
        BPETokenizer.load(directory)
    file.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UserError, match="not valid JSON"):
        BPETokenizer.load(file)
    for foreign in ([content], "text", {}, {"model": 3}):
        write(directory, foreign)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            BPETokenizer.load(file)
    file.unlink()
    (directory / "vocab.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*tokenizer\.json \(No such file"):
        BPETokenizer.load(directory)
    with pytest.raises(UserError, match="nowhere"):
        BPETokenizer.load(directory / "nowhere")


@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "LlamaTokenizerFast"])
def test_two_files_of_a_tokenizer_that_splits_otherwise_are_refused(
    kind: str, tmp_path: Path
) -> None:
    """Nothing in them says how a text is split: with GPT-2's split the ids would be wrong."""
    BPETokenizer.train("a text of some words", 260).save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).encode("some")
    config = json.dumps({"tokenizer_class": kind})
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(UserError, match=f"do not say how a {kind} splits texts"):
        load_tokenizer(tmp_path)
