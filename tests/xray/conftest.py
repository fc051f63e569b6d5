import pytest
import torch

from groundup import BPETokenizer, GPTModel
from groundup.xray import XRay, take_xray
from tests.conftest import ARCHITECTURES

READ = "the quick brown fox\n"

EVIL = (
    "</script><script>document.title='evil'</script><img src=x onerror=alert(1)>&amp;"
    "\x1b[31mred\x07 \u202etxt.exe\u2066 \u2028 日本"
)
"""Markup, a terminal's colours, turned directions of writing, characters of several tokens."""


def grown(name: str, **changes: object) -> GPTModel:
    """A model of this architecture whose answers are not all alike."""
    torch.manual_seed(3)
    model = GPTModel(ARCHITECTURES[name].replace(**changes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def xray(tokenizer: BPETokenizer) -> XRay:
    """One that several tests look at."""
    return take_xray(grown("gpt2"), tokenizer, READ, name="tiny")
