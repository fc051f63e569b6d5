"""Make ``openai-tiny/``: a GPT-2 checkpoint in OpenAI's layout, written by TensorFlow itself.

    pip install tensorflow-cpu numpy
    python tests/weights/data/make_openai_tiny.py [FOLDER]

The values follow from :func:`values`, so that a test knows them without reading the checkpoint.
"""

from __future__ import annotations

import importlib
import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SETTINGS = {"n_vocab": 50, "n_ctx": 12, "n_embd": 8, "n_head": 2, "n_layer": 2}


def shapes(settings: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The variables of OpenAI's ``model.py`` (github.com/openai/gpt-2) and their shapes."""
    n = settings["n_embd"]
    found: dict[str, tuple[int, ...]] = {
        "model/wpe": (settings["n_ctx"], n),
        "model/wte": (settings["n_vocab"], n),
    }
    for i in range(settings["n_layer"]):
        for norm in ("ln_1", "ln_2"):
            found[f"model/h{i}/{norm}/g"] = found[f"model/h{i}/{norm}/b"] = (n,)
        for layer, n_in, n_out in (
            ("attn/c_attn", n, 3 * n),
            ("attn/c_proj", n, n),
            ("mlp/c_fc", n, 4 * n),
            ("mlp/c_proj", 4 * n, n),
        ):
            found[f"model/h{i}/{layer}/w"] = (1, n_in, n_out)
            found[f"model/h{i}/{layer}/b"] = (n_out,)
    found["model/ln_f/g"] = found["model/ln_f/b"] = (n,)
    return found


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Pseudo-random float32 numbers in [-0.5, 0.5), the same everywhere; scales are around 1."""
    count = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
    count = (count ^ (count >> np.uint32(16))) * np.uint32(0x45D9F3B)
    count = (count ^ (count >> np.uint32(16))) * np.uint32(0x45D9F3B)
    count ^= count >> np.uint32(16)
    unit = (count >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)  # exact in float32
    return (unit + np.float32(0.5 if name.endswith("/g") else -0.5)).reshape(shape)


def make(folder: Path, settings: Mapping[str, int]) -> None:
    """Write ``hparams.json`` and, with TensorFlow's own Saver, the checkpoint."""
    tf = importlib.import_module("tensorflow").compat.v1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(settings) + "\n", "utf-8")
    with tf.Graph().as_default(), tf.Session() as session:
        for name, shape in shapes(settings).items():
            tf.get_variable(name, initializer=values(name, shape), use_resource=False)
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(save_relative_paths=True)
        saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)


if __name__ == "__main__":
    here = Path(__file__).parent / "openai-tiny"
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else here, SETTINGS)
