"""What comparing the SHA-256 costs when a GPT-2 124M is opened: ``python benchmarks/verify.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import report, rounds
from groundup.config import preset
from groundup.model.gpt import GPTModel
from groundup.tokenizers import get_gpt2_tokenizer
from groundup.weights.checkpoint import save_model
from groundup.weights.load import load_model


def main() -> None:
    """Open one directory with and without verifying, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        model = GPTModel(preset("gpt2-small")).init_gpt2()
        save_model(folder, model, get_gpt2_tokenizer())
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        seconds = rounds(
            {
                "verified": lambda: load_model(folder),
                "not verified": lambda: load_model(folder, verify=False),
            },
            7,
        )
    report("verify", {"megabytes": round(size / 1e6), "seconds": seconds})


if __name__ == "__main__":
    main()
