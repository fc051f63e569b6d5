"""PyTorch's AdamW, without loading PyTorch's compiler for it.

Its optimizers load the compiler (two seconds of a core, 100 MB) only to tell it to look away from
them. The compiler has no part in our steps: with ``--compile`` it gets the model, nothing else. So
here the optimizers' methods are those that PyTorch wrapped; what they compute is the same.
"""

from __future__ import annotations

from inspect import unwrap

import torch


class Eager(torch.optim.Optimizer):
    """An optimizer of which the compiler doesn't hear."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(Eager, torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter 2019)."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
