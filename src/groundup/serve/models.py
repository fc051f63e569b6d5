"""The models that a server has, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from groundup.errors import UserError, did_you_mean
from groundup.facts import Facts
from groundup.model.gpt import GPTModel
from groundup.model.quantized import count_parameters
from groundup.prompts import PromptStyle
from groundup.serve.runner import Runner, Use
from groundup.tokenizers import Tokenizer

T = TypeVar("T")


class NotServed(UserError):
    """There is no model of the name that a request says."""


@dataclass(eq=False)
class Served:
    """One model, as it is served.

    Attributes:
        name: how clients call it.
        source: what was opened.
        model: in eval mode; called through :meth:`work` only.
        tokenizer: its tokenizer.
        facts: what it says of itself.
        runner: the thread that computes with it; the adapters of one model share it.
        directory: the run's or the model's, if it is one.
        style: the prompt style that it is asked in, if it has one.
        adapter: the LoRA adapter that makes it this one, among those of the same model.
        since: when it was opened, in seconds since 1970.
        parameters: how many it has, without an adapter's.
    """

    name: str
    source: str
    model: GPTModel
    tokenizer: Tokenizer
    facts: Facts
    runner: Runner
    directory: Path | None = None
    style: PromptStyle | None = None
    adapter: str | None = None
    since: float = field(default_factory=time.time)
    parameters: int = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = count_parameters(self.model)  # now: adapters come and go

    @classmethod
    def of(
        cls,
        name: str,
        model: GPTModel,
        tokenizer: Tokenizer,
        *,
        source: str = "",
        directory: Path | None = None,
        style: PromptStyle | None = None,
        max_batch: int = 16,
        queue: int = 64,
        use_adapter: Use | None = None,
    ) -> Served:
        """Serve a model that is in memory; its thread begins."""
        facts = model.facts or Facts()
        runner = Runner(
            model.eval(),
            tokenizer,
            writes=not facts.is_classifier,
            max_batch=max_batch,
            queue=queue,
            use_adapter=use_adapter,
        )
        return cls(name, source or name, model, tokenizer, facts, runner, directory, style)

    @property
    def is_classifier(self) -> bool:
        """Whether it sorts texts instead of continuing them."""
        return self.facts.is_classifier

    @property
    def context_length(self) -> int:
        """The most tokens that the model can look at."""
        return self.model.cfg.context_length

    @property
    def style_stops(self) -> Sequence[str]:
        """The strings that end an answer in its prompt style."""
        return () if self.style is None else self.style.stop

    async def work(self, function: Callable[[], T]) -> T:
        """What ``function()`` gives in the thread that computes with this model.

        It runs between two steps of the engine, without gradients, its adapter switched on.
        """
        return await self.runner.call(function, self.adapter)


class Models:
    """All models that are served, in the order in which they were named.

    Raises:
        UserError: two have the same name.
    """

    def __init__(self, served: Iterable[Served]) -> None:
        self._by_name: dict[str, Served] = {}
        for model in served:
            if (other := self._by_name.get(model.name)) is not None:
                raise UserError(
                    f"two models are called {model.name}: {other.source} and {model.source}; "
                    f"give one another name, as in other={model.source}"
                )
            self._by_name[model.name] = model

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Served:
        """The model of this name.

        Raises:
            NotServed: there is none; the message lists them.
        """
        if name not in self._by_name:
            hint = did_you_mean(name, self._by_name) or ";"
            raise NotServed(
                f"there is no model {name!r:.200} here{hint} there are: {', '.join(self._by_name)}"
            )
        return self._by_name[name]

    def stop(self) -> None:
        """Take no more requests, and end those that there are."""
        for runner in {served.runner for served in self}:
            runner.stop()

    def close(self) -> None:
        """The same, and wait for the threads."""
        self.stop()
        for runner in {served.runner for served in self}:
            runner.close()
