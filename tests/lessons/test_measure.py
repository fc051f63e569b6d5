import time

import torch
from torch import nn

from groundup.lessons.measure import kept_for_backward, seconds
from groundup.model.attention import MultiHeadAttention
from groundup.model.ladder import MultiHeadAttentionSpelledOut


def test_seconds_is_the_shortest_run_without_the_first() -> None:
    pauses = iter([0.0, 0.3, 0.05, 0.3])
    assert 0.05 <= seconds(lambda: time.sleep(next(pauses)), repeat=3) < 0.3
    assert next(pauses, None) is None


def test_a_matrix_keeps_its_input_and_not_itself() -> None:
    assert kept_for_backward(nn.Linear(16, 4), torch.randn(8, 16)) == 8 * 16 * 4


def test_what_several_steps_need_is_counted_once() -> None:
    x = torch.randn(8, 16)
    twice = nn.Sequential(nn.Linear(16, 16), nn.Identity())
    assert kept_for_backward(twice, x) == x.nbytes

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(16, 4), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.b(x)

    assert kept_for_backward(Two(), x) == x.nbytes


def test_spelled_out_attention_keeps_weights_that_the_fused_kernel_never_writes() -> None:
    x, shape = torch.randn(1, 128, 32), (32, 32, 128, 0.0, 4)
    spelled = kept_for_backward(MultiHeadAttentionSpelledOut(*shape), x)
    fused = kept_for_backward(MultiHeadAttention(*shape), x)
    assert spelled - fused > 4 * 128 * 128 * 4  # (H, T, T) in fp32
