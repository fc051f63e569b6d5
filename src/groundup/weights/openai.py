"""OpenAI's GPT-2 files: ``hparams.json`` and a TensorFlow checkpoint.

Also the course's way to the same weights: nested parameters, copied into a model that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.config import ModelConfig
from groundup.data.download import download_openai
from groundup.errors import UserError
from groundup.files import read_json
from groundup.model.gpt import GPTModel
from groundup.model.hollow import hollow
from groundup.weights.architectures import GPT2, architecture_of
from groundup.weights.checkpoint import build_model
from groundup.weights.names import Row, from_theirs, openai_rows
from groundup.weights.tensor_bundle import TensorBundle

HPARAMS, CHECKPOINT = "hparams.json", "checkpoint"
_SETTINGS = {  # hparams.json's names and ours
    "n_vocab": "vocab_size",
    "n_ctx": "context_length",
    "n_embd": "emb_dim",
    "n_head": "n_heads",
    "n_layer": "n_layers",
}


def is_openai_directory(path: str | Path) -> bool:
    """Whether this folder holds a model as OpenAI published GPT-2."""
    return all((Path(path) / name).is_file() for name in (HPARAMS, CHECKPOINT))


def load_openai_model(
    directory: str | Path,
    device: torch.device | str = "cpu",
    drop_rate: float | None = None,
) -> GPTModel:
    """Open a folder with OpenAI's files; the model is tied, in fp32 and in eval mode.

    Peak memory is the model and one tensor more.

    Args:
        directory: where ``hparams.json``, ``checkpoint`` and the checkpoint are.
        device: where the weights go.
        drop_rate: dropout probability, to train on; the files do not say one.

    Raises:
        UserError: a file is missing or damaged, or the weights do not match ``hparams.json``.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no model directory {str(directory)!r}")
    bundle = TensorBundle.open(directory)
    cfg = _config(read_json(directory / HPARAMS), bundle, str(directory / HPARAMS))
    if drop_rate is not None:
        cfg = cfg.replace(drop_rate=drop_rate)
    _check_floating(bundle)
    return build_model(cfg, bundle, openai_rows(cfg), str(directory)).to(device)


def download_and_load_gpt2(
    model_size: str, models_dir: str | Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Have OpenAI's GPT-2 in ``models_dir/model_size``; return its settings and parameters.

    The course's function, without TensorFlow.

    Args:
        model_size: 124M, 355M, 774M or 1558M.
        models_dir: where it is downloaded to, unless it is there.

    Raises:
        UserError: it cannot be downloaded, or is damaged.
    """
    folder = download_openai(model_size, models_dir)
    settings = read_json(folder / HPARAMS)
    return settings, load_gpt2_params_from_tf_ckpt(folder, settings)


def load_gpt2_params_from_tf_ckpt(
    ckpt_path: str | Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Read OpenAI's checkpoint as the course's nested parameters.

    Args:
        ckpt_path: the folder with the file ``checkpoint``, or the checkpoint's prefix.
        settings: the contents of ``hparams.json``.

    Returns:
        ``params["wte"]``, ``["wpe"]``, ``["g"]`` and ``["b"]`` (the last norm's scale and shift),
        and a list ``params["blocks"]`` of dicts such as ``["attn"]["c_attn"]["w"]``; float32
        arrays without dimensions of size 1.

    Raises:
        UserError: a file is missing or damaged, or the tensors' names do not match ``settings``.
    """
    bundle = TensorBundle.open(ckpt_path)
    cfg = _config(settings, bundle, "settings")
    _check_floating(bundle)
    with hollow():
        shapes = _shapes(GPTModel(cfg))
    rows = list(openai_rows(cfg))
    _check_shapes({n: bundle.shape_of(n) for n in bundle}, rows, shapes, str(ckpt_path))
    params: dict[str, Any] = {"blocks": [{} for _ in range(cfg.n_layers)]}
    for row in rows:
        target: Any = params
        *path, last = _place(row)
        for key in path:
            target = target[key] if isinstance(key, int) else target.setdefault(key, {})
        target[last] = np.squeeze(bundle[row.theirs].float().numpy())
    return params


def load_weights_into_gpt(gpt: GPTModel, params: Mapping[str, Any]) -> None:
    """Copy the course's nested parameters into a model, whose dtype and device stay as they are.

    An output layer of its own (not tied) gets a copy of the token embedding.

    Raises:
        UserError: the model has no query, key and value biases, or parameters are missing,
            unexpected or misshapen (every one is listed); the model is as it was.
    """
    if architecture_of(gpt.cfg) is not GPT2:
        raise UserError(
            f"these are GPT-2's weights, and the model is a {architecture_of(gpt.cfg).title}"
        )
    if not gpt.cfg.qkv_bias:
        raise UserError(
            "GPT-2 has biases in its query, key and value projections, but this model has not; "
            'build it with them: GPTModel({**cfg, "qkv_bias": True})'
        )
    shapes = _shapes(gpt)
    rows = {_place(row): row for row in openai_rows(gpt.cfg)}
    arrays: dict[str, np.ndarray] = {}
    for path, value in _leaves(params):
        row = rows.get(path)
        name = row.theirs if row else "params/" + "/".join(map(str, path))
        array = np.asarray(value)
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise UserError(f"{name} holds {array.dtype}; expected an array of floating point")
        arrays[name] = array.reshape(_unsqueezed(array.shape, row, shapes)) if row else array
    given = {name: array.shape for name, array in arrays.items()}
    _check_shapes(given, list(rows.values()), shapes, "params")
    state = gpt.state_dict()
    with torch.no_grad():
        for row in rows.values():  # one at a time, for the sake of memory
            tensor = torch.from_numpy(np.array(arrays[row.theirs], order="C"))
            for name, part in from_theirs({row.theirs: tensor}, [row], shapes, "params").items():
                state[name].copy_(part)
        if not gpt.cfg.tie_weights:
            gpt.out_head.weight.copy_(gpt.tok_emb.weight)


def _config(settings: Mapping[str, Any], bundle: TensorBundle, source: str) -> ModelConfig:
    """The shape that OpenAI's settings describe; GPT-2 is tied and has all biases."""
    missing = [name for name in _SETTINGS if name not in settings]
    if missing:
        raise UserError(f"{source} lacks {', '.join(missing)}")
    try:
        cfg = ModelConfig(
            **{ours: settings[theirs] for theirs, ours in _SETTINGS.items()},
            qkv_bias=True,
            tie_weights=True,
        )
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    if cfg.n_layers > len(bundle):
        # Said before a model of that size is laid out.
        raise UserError(
            f"{source} describes another model than the {len(bundle)} tensors beside it"
        )
    return cfg


def _check_shapes(
    given: Mapping[str, tuple[int, ...]],
    rows: list[Row],
    shapes: Mapping[str, torch.Size],
    source: str,
) -> None:
    """Raise ``UserError`` if tensors of the given shapes would not fill the model."""
    shaped = {name: torch.empty(shape, device="meta") for name, shape in given.items()}
    from_theirs(shaped, rows, shapes, source)


def _shapes(model: GPTModel) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _check_floating(bundle: TensorBundle) -> None:
    for name in bundle:
        if not bundle.dtype_of(name).is_floating_point:
            raise UserError(f"{name} is {bundle.dtype_of(name)}; expected floating point weights")


def _place(row: Row) -> tuple[str | int, ...]:
    """Where the course's nested parameters hold a tensor: ``model/h0/ln_1/g`` in block 0, say."""
    _, *path = row.theirs.split("/")
    if path[0] == "ln_f":
        return tuple(path[1:])
    if re.fullmatch(r"h\d+", path[0]):
        return ("blocks", int(path[0][1:]), *path[1:])
    return tuple(path)


def _leaves(
    value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """All that is in nested dicts and lists, with the keys and indices that lead there."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[str | int, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, inner in items:
        yield from _leaves(inner, (*path, key))


def _unsqueezed(
    given: tuple[int, ...], row: Row, shapes: Mapping[str, torch.Size]
) -> tuple[int, ...]:
    """The shape with the dimensions of size 1 that the course's ``np.squeeze`` took away."""
    parts = [shapes[name][::-1] if row.transposed else shapes[name] for name in row.ours]
    leading = (1,) if row.leading_one else ()
    whole = (*leading, *parts[0][:-1], sum(part[-1] for part in parts))
    same = [n for n in given if n != 1] == [n for n in whole if n != 1]
    return whole if same else given
