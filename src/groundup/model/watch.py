"""The window: see, by the names of its modules, what happens inside a model while it runs.

    with watch(model) as seen:
        model(idx)
    print(seen.shapes)            # how a tensor flows: every module, in the order of execution
    seen.attention[0][0, 3]       # which token looks at which: layer 0, first text, head 3
    seen.logit_lens(5)[0, -1]     # what would come next if layer 5 were the last

It looks through forward hooks, which are gone afterwards: who does not watch pays nothing.

Shapes: ``B`` batch, ``T`` new tokens, ``S`` tokens attended to (cached + new), ``H`` heads,
``D`` columns per head, ``C = H * D`` embedding width, ``V`` vocabulary size (or classes).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from groundup.errors import UserError, did_you_mean
from groundup.model.cache import LayerCache
from groundup.model.door import unwrapped

Edit = Callable[[Tensor], Tensor | None]
"""Gets a copy of a value; returns what shall take its place, or changes the copy itself."""


@contextmanager
def watch(
    model: nn.Module, *, edit: Mapping[str, Edit] | None = None, keep: int | None = 1
) -> Iterator[Seen]:
    """Record what the model's modules give, and replace some of it if asked to.

    Within the ``with`` block attention weights are spelled out, as on the ladder, since PyTorch's
    kernel never writes them down; that changes results by rounding (1e-5 at most in fp32). A
    compiled model runs as it is written, and a loss computes all of its logits.

    Args:
        model: any module; the per-layer views are for those with the course's names.
        edit: functions by name. Each gets a copy of what that module gives, and what it returns
            goes on in its place (if it returns nothing: the copy, which it has changed). Beside
            the modules' names there is ``trf_blocks.0.att.context`` (B, H, T, D), what each head
            has gathered: ``x[:, 3] = 0`` silences head 3. The model itself has the name ``""``.
        keep: of how many calls of the model the values are kept, the newest ones; ``None`` for all
            of them. Each takes about as much memory as the activations of a training step.

    Yields:
        What was seen, which can still be asked after the block.

    Raises:
        UserError: there is no such name in ``edit``, its function returned something of another
            shape, or nothing of that name was computed (raised at the block's end).
    """
    inner = unwrapped(model)
    seen = Seen(inner, keep)
    hooks = _Hooks(seen, edit or {})
    try:
        with _as_written(model):
            hooks.attach(inner)
            yield seen
    finally:
        hooks.remove()
    hooks.check_all_edited()


class Seen:
    """What was seen: ``seen[name]`` is what the module of that name gave in the newest call.

    All tensors are detached copies, taken after hooks and edits. A call begins when the watched
    model is called; modules that are called on their own add to the call before. A module that
    runs twice in one call is seen as it was the second time.
    """

    def __init__(self, model: nn.Module, keep: int | None) -> None:
        if keep is not None and keep < 1:
            raise UserError(f"keep is {keep}; expected how many calls to keep, or None for all")
        self._model = model
        self._calls: deque[dict[str, Tensor]] = deque(maxlen=keep)

    def __getitem__(self, name: str) -> Tensor:
        newest = self._newest()
        if name not in newest:
            raise _unknown(name, newest, "nothing was recorded of")
        return newest[name]

    def __contains__(self, name: object) -> bool:
        return bool(self._calls) and name in self._calls[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest())

    def __len__(self) -> int:
        return len(self._calls[-1]) if self._calls else 0

    def calls(self, name: str) -> list[Tensor]:
        """What a module gave in each of the calls that are kept (``keep=``), oldest first."""
        found = [call[name] for call in self._calls if name in call]
        return found or [self[name]]  # which says what is wrong

    @property
    def shapes(self) -> Shapes:
        """The newest call's shapes by name, in the order of execution; printed, a table.

        After an error they end where it happened.
        """
        return Shapes((name, tuple(value.shape)) for name, value in self._newest().items())

    @property
    def attention(self) -> list[Tensor]:
        """Each layer's attention weights ``(B, H, T, S)``: row ``t`` is where token ``t`` looks.

        Its numbers add up to 1; in training mode they are what dropout has left of that.
        """
        return self._layers(".att.dropout")

    @property
    def values(self) -> list[Tensor]:
        """Each layer's values ``(B, K, S, D)`` of ``K`` heads, those from the cache included."""
        return self._layers(".att.values")

    @property
    def context(self) -> list[Tensor]:
        """What each layer's heads gather, ``(B, H, T, D)``: its ``attention @ values``."""
        return self._layers(".att.context")

    @property
    def residual(self) -> list[Tensor]:
        """The residual stream after each layer, ``(B, T, C)``."""
        return self._layers("")

    @torch.no_grad()
    def logit_lens(self, layer: int) -> Tensor:
        """What the model would have said after that layer: scores ``(B, T, V)``.

        The final norm and the output layer, applied to the residual stream there (nostalgebraist,
        "interpreting GPT: the logit lens", 2020). Of the last layer it is what the model does say.
        """
        norm, head = (self._model.get_submodule(name) for name in ("final_norm", "out_head"))
        # Past the hooks: this is no part of the call that was watched.
        return head.forward(norm.forward(self.residual[layer]))

    def _layers(self, part: str) -> list[Tensor]:
        newest = self._newest()
        names = takewhile(newest.__contains__, (f"trf_blocks.{i}{part}" for i in count()))
        found = [newest[name] for name in names]
        if not found:
            raise _unknown(f"trf_blocks.0{part}", newest, "nothing was recorded of")
        return found

    def _newest(self) -> dict[str, Tensor]:
        if not self._calls:
            raise UserError("nothing was recorded; call the model within `with watch(model)`")
        return self._calls[-1]


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes by name; printed, one per line."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name or '(model)':{width}}  {shape}" for name, shape in self.items())


class _Hooks:
    """The hooks on a model's modules, which record into a :class:`Seen` and edit."""

    def __init__(self, seen: Seen, edit: Mapping[str, Edit]) -> None:
        self.seen, self.edit = seen, edit
        self.edited: set[str] = set()
        self.caches: dict[str, LayerCache | None] = {}  # of the attention that is running
        self.handles: list[RemovableHandle] = []

    def attach(self, model: nn.Module) -> None:
        """Hook every module; refuse edits of what there is not."""
        modules = dict(model.named_modules())
        attentions = {name: m for name, m in modules.items() if _is_attention(m)}
        names = [*modules, *(_join(name, "context") for name in attentions)]
        for name in self.edit:
            if name not in names:
                raise _unknown(name, names, "cannot edit")
        add = self.handles.append
        add(model.register_forward_pre_hook(lambda *_: self.seen._calls.append({})))
        for name, module in attentions.items():
            before = partial(self._before_attention, name)
            add(module.register_forward_pre_hook(before, with_kwargs=True))
            kv_heads = getattr(module, "num_kv_heads", module.num_heads)
            before = partial(self._before_projection, name, int(module.num_heads), int(kv_heads))  # pyright: ignore[reportArgumentType]
            add(module.get_submodule("out_proj").register_forward_pre_hook(before))
        for name, module in modules.items():
            add(module.register_forward_hook(partial(self._after, name)))

    def remove(self) -> None:
        """Leave the modules as they were."""
        for handle in self.handles:
            handle.remove()

    def check_all_edited(self) -> None:
        """Raise ``UserError`` if there was a call, but an edit never had its turn."""
        missed = [name for name in self.edit if name not in self.edited]
        if missed and self.seen._calls:
            raise UserError(
                f"the edit of {missed[0]!r} changed nothing, since nothing of that name was "
                f"computed; these were: {_listed(self.seen)}"
            )

    def _after(self, name: str, module: nn.Module, args: Any, output: object) -> Tensor | None:
        if isinstance(output, Tensor):
            return self._take(name, output)
        if name in self.edit:
            raise UserError(f"cannot edit {name!r}: it gives {_kind(output)}; expected a tensor")
        return None

    def _before_attention(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        given = (value for value in (*args, *kwargs.values()) if isinstance(value, LayerCache))
        self.caches[name] = next(given, None)

    def _before_projection(
        self, name: str, num_heads: int, kv_heads: int, module: nn.Module, args: tuple[Tensor, ...]
    ) -> Tensor | None:
        """Take the values and what the heads have gathered of them, just before it is projected."""
        cache, projected = self.caches.pop(name, None), _join(name, "W_value")
        if cache is not None:
            self._take(_join(name, "values"), cache.values[:, :, : cache.length])
        elif projected in self.seen:
            self._take(_join(name, "values"), _split_heads(self.seen[projected], kv_heads))
        context = self._take(_join(name, "context"), _split_heads(args[0], num_heads))
        return None if context is None else context.transpose(-3, -2).flatten(-2)  # (B, T, C)

    def _take(self, name: str, value: Tensor) -> Tensor | None:
        """Edit a value if asked to, and record it; return what replaces it, if something does."""
        replacement = self._edited(name, value) if name in self.edit else None
        if not self.seen._calls:  # a part of the model was called on its own
            self.seen._calls.append({})
        kept = value if replacement is None else replacement
        self.seen._calls[-1][name] = kept.detach().clone()  # somebody may change it in place
        return replacement

    def _edited(self, name: str, value: Tensor) -> Tensor:
        given = value.clone()
        found: object = self.edit[name](given)
        found = given if found is None else found
        if not isinstance(found, Tensor) or found.shape != value.shape:
            raise UserError(
                f"the edit of {name!r} returned {_kind(found)}; expected {_kind(value)}"
            )
        self.edited.add(name)
        return found.to(value)


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"an object of type {type(value).__name__}"


def _is_attention(module: nn.Module) -> bool:
    """Whether it has the parts of the course's ``MultiHeadAttention``."""
    return all(hasattr(module, part) for part in ("W_value", "out_proj", "num_heads"))


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``(B, T, H * D) -> (B, H, T, D)``."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


def _as_written(model: nn.Module) -> AbstractContextManager[object]:
    """Compiled code has no hooks in it: within this, a compiled model runs uncompiled."""
    compiled = any(
        m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _listed(names: Iterable[str]) -> str:
    """The names of a model, but of its many equal layers those of the first only."""
    names = list(names)
    first = [name for name in names if not re.match(r"trf_blocks\.[1-9]", name)]
    text = ", ".join(name or "'' (the model)" for name in first)
    return text if first == names else f"{text} (and trf_blocks.1, … likewise)"


def _unknown(name: str, known: Iterable[str], problem: str) -> UserError:
    hint = did_you_mean(name, known) or ";"
    return UserError(f"{problem} {name!r}{hint} there are: {_listed(known)}")
