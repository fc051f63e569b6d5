import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import UserError
from groundup.weights.tensor_bundle import TensorBundle
from groundup.weights.tensor_bundle_format import masked_crc, read_table
from tests.openai_files import DTYPES, write_bundle
from tests.systems import needs_links
from tests.weights.data.make_openai_tiny import SETTINGS, make, shapes, values

FIXTURE = Path(__file__).parent / "data" / "openai-tiny"  # written by TensorFlow
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of TensorFlow's checkpoint, to damage."""
    return shutil.copytree(FIXTURE, tmp_path / "openai-tiny")


def read(path: Path) -> dict[str, torch.Tensor]:
    return dict(TensorBundle.open(path))


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[n].dtype == theirs[n].dtype and torch.equal(ours[n], theirs[n]) for n in ours
    )


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value)


def test_tensorflows_own_checkpoint() -> None:
    bundle = TensorBundle.open(FIXTURE)
    expected = shapes(SETTINGS)
    assert bundle.names == sorted(expected) and len(bundle) == len(expected) == 28
    for name, shape in expected.items():
        assert bundle.shape_of(name) == shape and bundle.dtype_of(name) == torch.float32
        np.testing.assert_array_equal(bundle[name].numpy(), values(name, shape))
    assert same(read(FIXTURE / "model.ckpt"), dict(bundle))
    with pytest.raises(KeyError):
        bundle["model/h2/ln_1/g"]


def test_what_the_tests_write_is_what_tensorflow_wrote(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt", TensorBundle.open(FIXTURE).items())
    assert (tmp_path / DATA).read_bytes() == (FIXTURE / DATA).read_bytes()
    ours, theirs = (list(read_table((d / INDEX).read_bytes())) for d in (tmp_path, FIXTURE))
    assert ours == theirs
    # The first block, which holds all entries, is the same byte for byte; the index after it
    # names it by any key between it and the next block, and TensorFlow chooses a shorter one.
    block = 5 + len(theirs[-1][1]) + (FIXTURE / INDEX).read_bytes().rindex(theirs[-1][1])
    assert (tmp_path / INDEX).read_bytes()[:block] == (FIXTURE / INDEX).read_bytes()[:block]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 4), max_size=4)),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_tensors_of_any_name_type_and_shape(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any], random: Any
) -> None:
    wanted = {n: spec for n, spec in wanted.items() if n.encode(errors="ignore").decode() == n}
    prefix = tmp_path_factory.mktemp("bundle") / "model.ckpt"
    tensors = {n: torch.randint(-99, 99, shape).to(dtype) for n, (dtype, shape) in wanted.items()}
    items = list(tensors.items())
    random.shuffle(items)
    write_bundle(prefix, items)
    assert same(read(prefix), tensors)
    assert TensorBundle.open(prefix).names == sorted(tensors)


def test_an_index_of_many_blocks(tmp_path: Path) -> None:
    tensors = {f"layer/{i:05d}/" + "x" * 90: torch.tensor(i) for i in range(6000)}
    write_bundle(tmp_path / "model.ckpt", tensors.items())
    assert (tmp_path / INDEX).stat().st_size > 2 << 18
    bundle = TensorBundle.open(tmp_path / "model.ckpt")
    assert bundle.names == list(tensors)
    assert all(torch.equal(bundle[name], tensors[name]) for name in bundle.names[::97])


def test_the_crc_is_leveldbs() -> None:
    # CRC32C of 32 zero bytes is 0x8A9136AA (RFC 3720, B.4); masked as in LevelDB's crc32c.h.
    crc = 0x8A9136AA
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc(bytes(32)) == masked_crc(np.zeros(32, np.uint8)) == masked
    long = np.arange(3 << 20, dtype=np.uint32).view(np.uint8)
    assert masked_crc(long) == masked_crc(long.tobytes()) != masked_crc(long[:-1])


def test_opening_reads_no_tensor(folder: Path) -> None:
    (folder / DATA).write_bytes(bytes((folder / DATA).stat().st_size))
    bundle = TensorBundle.open(folder)
    assert "model/wte" in bundle and "model/wtf" not in bundle
    assert bundle.shape_of("model/wte") == (50, 8)
    with pytest.raises(UserError, match=f"{DATA} is damaged: the checksum of model/wte is wrong"):
        bundle["model/wte"]


@pytest.mark.parametrize("gone", [INDEX, DATA, "checkpoint"])
def test_a_missing_file(folder: Path, gone: str) -> None:
    (folder / gone).unlink()
    assert refusal(folder) == f"{folder} is not a complete checkpoint: {gone} is missing"
    (folder / gone).mkdir()
    assert f"{gone} is missing" in refusal(folder)


def test_nothing_there(tmp_path: Path) -> None:
    assert "model.ckpt.index is missing" in refusal(tmp_path / "nowhere" / "model.ckpt")
    assert "checkpoint is missing" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / ("long" * 100))


@needs_links
@pytest.mark.parametrize("gone", [INDEX, DATA, "checkpoint"])
def test_links_out_of_the_directory_are_refused(folder: Path, gone: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / gone).rename(outside / gone)
    for target in (outside / gone, Path("..") / "outside" / gone):
        (folder / gone).symlink_to(target)
        assert f"{folder / gone} is a link out of its directory" in refusal(folder)
        (folder / gone).unlink()
    shutil.move(outside / gone, folder / "inside")
    (folder / gone).symlink_to("inside")
    assert len(read(folder)) == 28
    (folder / gone).unlink()
    (folder / gone).symlink_to(gone)  # to itself
    assert f"{gone} is missing" in refusal(folder)


def other_places(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    other = shutil.copytree(folder, folder.parent / "other")
    yield "../other/model.ckpt", lambda: None
    yield str(other / "model.ckpt"), lambda: None
    yield "sub/../../other/model.ckpt", lambda: (folder / "sub").mkdir()
    yield "link/model.ckpt", lambda: (folder / "link").symlink_to(other)
    yield ".", lambda: None
    yield "sub/..", lambda: None


@needs_links
def test_a_checkpoint_that_names_another_place_is_refused(folder: Path) -> None:
    for name, prepare in other_places(folder):
        prepare()
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n', "utf-8")
        assert f"names {name!r}, which is outside the directory" in refusal(folder)


def test_places_inside_the_directory(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in (str(folder / "model.ckpt"), "./model.ckpt", "sub/../model.ckpt"):
        (folder / "checkpoint").write_text(
            f'# TensorFlow\nmodel_checkpoint_path: "{name}"\n', "utf-8"
        )
        assert len(read(folder)) == 28


@pytest.mark.parametrize("text", ["", "model.ckpt", 'model_checkpoint_path: ""', "\xff\0"])
def test_a_checkpoint_file_that_names_nothing(folder: Path, text: str) -> None:
    (folder / "checkpoint").write_bytes(text.encode("latin-1"))
    assert "checkpoint is damaged: it does not say model_checkpoint_path" in refusal(folder)


@pytest.mark.oracle
def test_tensorflow_agrees(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="pip install tensorflow-cpu")
    tf: Any = importlib.import_module("tensorflow")
    make(tmp_path / "saved", SETTINGS)
    for file in (INDEX, DATA):
        assert (tmp_path / "saved" / file).read_bytes() == (FIXTURE / file).read_bytes()
    many = {f"layer/{i:05d}/" + "x" * 90: np.full((i % 3, 2), i) for i in range(6000)}
    mixed = {str(d).removeprefix("torch."): torch.randn(3, 1, 5).mul(99).to(d) for d in DTYPES}
    theirs = {n: tf.cast(t.double().numpy(), getattr(tf, n)) for n, t in mixed.items()}
    theirs |= {n: tf.constant(a) for n, a in many.items()}
    ours = mixed | {n: torch.from_numpy(a) for n, a in many.items()}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"),
        tensor_names=list(theirs),
        shape_and_slices=[""] * len(theirs),
        tensors=list(theirs.values()),
    )
    assert same(read(tmp_path / "theirs"), ours)
    write_bundle(tmp_path / "ours", ours.items())
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert sorted(reader.get_variable_to_shape_map()) == sorted(ours)
    dtypes = reader.get_variable_to_dtype_map()
    for name, tensor in ours.items():
        found = reader.get_tensor(name)
        assert found.shape == tensor.shape and dtypes[name] == theirs[name].dtype
        np.testing.assert_array_equal(found.astype(np.float64), tensor.double().numpy())
