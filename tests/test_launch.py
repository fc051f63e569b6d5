import pytest

from groundup import launch
from groundup.errors import UserError
from groundup.runtime import resolve_device
from tests.conftest import Run

SAID = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SAID |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What a launcher says to one of four processes on two machines."""
    for name, value in SAID.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # left over from something else
    assert (launch.world_size(), launch.rank(), launch.local_rank()) == (1, 0, 0)
    assert launch.is_main()
    launch.check()


def test_a_launcher_says_which_process_this_is(said: pytest.MonkeyPatch) -> None:
    launch.check()
    assert (launch.world_size(), launch.rank(), launch.is_main()) == (4, 3, False)
    assert (launch.local_rank(), launch.local_world_size()) == (1, 2)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WORLD_SIZE", "none", "WORLD_SIZE is 'none' in the environment; expected a whole number"),
        ("WORLD_SIZE", "0", "from 1 to"),
        ("WORLD_SIZE", "-2", "from 1 to"),
        ("RANK", "4", r"RANK is 4, but of 4 processes \(WORLD_SIZE\) the last is number 3"),
        ("RANK", "x", "RANK is 'x' in the environment"),
        ("RANK", None, "WORLD_SIZE is 4, but RANK is not set"),
        ("MASTER_ADDR", None, "MASTER_ADDR is not set: .*torchrun does"),
        (
            "MASTER_PORT",
            "70000",
            "MASTER_PORT is '70000' .*a whole number from 0 to 65535",
        ),
        ("MASTER_PORT", "http", "MASTER_PORT is 'http'"),
    ],
)
def test_what_no_launcher_says_is_refused(
    said: pytest.MonkeyPatch, run: Run, name: str, value: str | None, sentence: str
) -> None:
    if value is None:
        said.delenv(name)
    else:
        said.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        launch.check()


def test_only_the_main_process_prints(said: pytest.MonkeyPatch, run: Run) -> None:
    assert run("inspect", "gpt2").out == ""
    said.setenv("RANK", "0")
    assert "12" in run("inspect", "gpt2").out


def test_each_process_takes_a_gpu_of_its_own(said: pytest.MonkeyPatch) -> None:
    said.setattr("torch.cuda.is_available", lambda: True)
    said.setattr("torch.cuda.device_count", lambda: 2)
    assert str(resolve_device("auto")) == str(resolve_device("cuda")) == "cuda:1"
    assert str(resolve_device("cpu")) == "cpu"
    with pytest.raises(UserError, match="4 processes were started, and each takes a GPU of"):
        resolve_device("cuda:0")
    said.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="'cuda:2' is not there: PyTorch sees 2"):
        resolve_device("auto")
