import json
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.data import tokens
from groundup.data.tokens import encode_documents, encode_each
from groundup.tokenizers import BPETokenizer
from tests.conftest import TEXT
from tests.systems import needs

DOCS = [TEXT * 30, "", "Another one.\n" * 500]


def test_documents_are_separated_by_the_end_token(tokenizer: BPETokenizer) -> None:
    first, _, last = (tokenizer.encode(text) for text in DOCS)
    end = tokenizer.eot_token
    assert encode_documents(DOCS, tokenizer).tolist() == [*first, end, end, *last]
    assert encode_documents(DOCS[1:], tokenizer).tolist() == last
    assert [ids.tolist() for ids in encode_each(DOCS, tokenizer)] == [first, [], last]
    assert len(encode_documents([], tokenizer)) == len(encode_documents([""], tokenizer)) == 0


def test_who_waits_is_told_for_how_long(
    tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    encode_documents(DOCS, tokenizer, said.append)
    assert not said
    monkeypatch.setattr(tokens, "MUCH", 100)
    monkeypatch.setattr(tokens, "WORTH_TELLING", 0.0)
    ids = encode_documents(DOCS, tokenizer, said.append)
    characters = sum(map(len, DOCS))
    assert len(said) == 1 and said[0].startswith(f"tokenizing {characters:,} characters takes some")
    assert ids.tolist() == encode_documents(DOCS, tokenizer).tolist()


MEASURE = """
import json, re, sys
from pathlib import Path
from groundup.data.text import read_documents
from groundup.data.tokens import encode_documents
from groundup.data.windows import TokenWindows
from groundup.tokenizers import BPETokenizer, train_with_library

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

small = "Some words, and 12 others.\\n" * 100
tokenizer = train_with_library(small, 300)
TokenWindows(encode_documents([small], tokenizer), 16, 16).collate([0, 1])
before = peak()
documents = read_documents([sys.argv[1]])
read = peak()
windows = TokenWindows(encode_documents(documents, tokenizer), 128, 128)
windows.collate([0, 1])
encoded = peak()
train_with_library(documents, 300)
print(json.dumps([read - before, encoded - before, peak() - before]))
"""


@needs("/proc/self/status")
def test_a_long_text_takes_few_bytes_per_byte(tmp_path: Path) -> None:
    """90 for encoding it and 100 for training on it, before it was done in parts."""
    path, size = tmp_path / "long.txt", 6_000_000
    line = "Some words, and {} others; and so on, as texts do.\n"
    text = "".join(line.format(i) for i in range(size // 50)) + "🙂"  # so: 4 bytes per character
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read, encoded, trained = (peak / path.stat().st_size for peak in json.loads(done.stdout))
    assert read < 12 and encoded < 20 and trained < 40, (read, encoded, trained)
