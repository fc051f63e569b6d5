"""Opening what is to be served: models by name, and LoRA adapters that share their base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from groundup.data.model_style import style_of
from groundup.errors import UserError
from groundup.facts import Facts
from groundup.files import read_json
from groundup.model.gpt import GPTModel
from groundup.model.lora import lora_layers
from groundup.prompts import PromptStyle
from groundup.serve.config import ServeConfig
from groundup.serve.models import Models, Served
from groundup.tasks.assistant import choose_style
from groundup.tokenizers import Tokenizer
from groundup.weights.finding import resolve_source
from groundup.weights.load import expect_language_model, load_model, read_facts, says_heads
from groundup.weights.lora import ADAPTER_CONFIG, put_adapter, read_adapter
from groundup.weights.open_config import OpenConfig

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Named:
    """A model of the command line: its name, what is opened, and an adapter's base."""

    name: str
    source: str
    base: str | None

    @property
    def place(self) -> Path:
        return resolve_source(self.base or self.source).resolve()


def open_models(
    sources: Sequence[str], opening: OpenConfig, options: ServeConfig, say: Say
) -> Models:
    """Open what the command line names: ``MODEL``, or ``NAME=MODEL``.

    Adapters of one base model share its weights, with each other and with the base itself.

    Raises:
        UserError: one cannot be opened, two have the same name, or the style is none of theirs.
    """
    opener = _Opener(opening, options, say, several=len(sources) > 1)
    named = [opener.named(source) for source in sources]
    _check_names(named)
    places = [one.place for one in named]
    served: dict[str, Served] = {}
    try:
        for place in dict.fromkeys(places):
            group = [one for one, its in zip(named, places, strict=True) if its == place]
            if len(group) > 1 and any(one.base is not None for one in group):
                served |= opener.together(group)
            else:
                served |= {one.name: opener.alone(one) for one in group}
    except BaseException:
        Models(served.values()).close()
        raise
    return Models(served[one.name] for one in named)


class Adapters:
    """A model's LoRA adapters, of which one is on at a time; what they share is there once."""

    def __init__(self, model: GPTModel) -> None:
        self.model = model
        self._plain = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        self._layers: dict[str, dict[str, nn.Module]] = {}

    def add(self, name: str, directory: Path) -> None:
        """Read an adapter; it is off until :meth:`use` is called.

        Raises:
            UserError: it is damaged, or does not fit the model.
        """
        try:
            put_adapter(directory, self.model, read_adapter(directory, self.model.cfg))
            self._layers[name] = {n: m.eval() for n, m in lora_layers(self.model).items()}
        finally:
            self.use(None)

    def use(self, name: str | None) -> None:
        """Put this adapter's layers in the model, or none."""
        on = {} if name is None else self._layers[name]
        for place, plain in self._plain.items():
            wanted = on.get(place, plain)
            if self.model.get_submodule(place) is not wanted:
                self.model.set_submodule(place, wanted)


@dataclass(frozen=True)
class _Opener:
    opening: OpenConfig
    options: ServeConfig
    say: Say
    several: bool

    def named(self, source: str) -> _Named:
        """What one word of the command line means."""
        name, equals, rest = source.partition("=")
        if not equals or Path(source).exists():
            name, rest = _default_name(source), source
        if not name or not name.isprintable() or name != name.strip() or not rest:
            raise UserError(f"{source!r} is no model; expected MODEL or NAME=MODEL")
        return _Named(name, rest, self._base(rest))

    def alone(self, one: _Named) -> Served:
        """A model of its own; an adapter is merged into it."""
        model, tokenizer = self._load(one.source)
        style = self._style(one.source, model.facts or Facts(), tokenizer)
        return self._served(one, model, tokenizer, style=style)

    def together(self, group: Sequence[_Named]) -> dict[str, Served]:
        """A base model and its adapters; the base itself need not be served."""
        base = next(one.base for one in group if one.base is not None)
        model, tokenizer = self._load(base, read_facts(group[-1].source).base.n_heads)
        adapters = Adapters(model)
        facts = {}
        for one in group:
            facts[one.name] = read_facts(one.source, verify=self.opening.verify)
            if one.base is not None:
                adapters.add(one.name, resolve_source(one.source))
        first = self._served(group[0], model, tokenizer, use_adapter=adapters.use)
        return {
            one.name: Served(
                one.name,
                one.source,
                model,
                tokenizer,
                facts[one.name],
                first.runner,
                _directory(one.source),
                self._style(one.source, facts[one.name], tokenizer),
                adapter=None if one.base is None else one.name,
            )
            for one in group
        }

    def _load(self, source: str, n_heads: int | None = None) -> tuple[GPTModel, Tokenizer]:
        how, runtime = self.opening.how, self.opening.runtime
        if how["n_heads"] is None and n_heads is not None and not says_heads(source):
            how["n_heads"] = n_heads
        model, tokenizer = load_model(source, runtime.device, **how)
        model.to(runtime.dtype)
        return model, tokenizer

    def _style(self, source: str, facts: Facts, tokenizer: Tokenizer) -> PromptStyle | None:
        asked = self.opening.style
        if facts.is_classifier or (facts.prompt_style is None and asked is None):
            return None
        if facts.prompt_style is not None and self.several:
            asked = None  # it is for those that do not say it
        return style_of(choose_style(source, facts, asked, None, self.say), tokenizer)

    def _served(self, one: _Named, model: GPTModel, tokenizer: Tokenizer, **more: object) -> Served:
        limits = {"max_batch": self.options.max_batch, "queue": self.options.queue}
        where = {"source": one.source, "directory": _directory(one.source)}
        return Served.of(one.name, model, tokenizer, **where, **limits, **more)  # pyright: ignore[reportArgumentType]

    def _base(self, source: str) -> str | None:
        """The language model that an adapter adapts, if its layers can be switched on and off."""
        config = resolve_source(source, self.opening.checkpoint) / ADAPTER_CONFIG
        if self.opening.quantize or not config.is_file():
            return None
        facts = read_facts(source, verify=self.opening.verify)
        if facts.kind != "adapter" or facts.is_classifier:
            return None
        base = str(read_json(config).get("base_model_name_or_path"))
        try:
            expect_language_model(read_facts(base), base)
        except UserError:
            return None  # opening the adapter will tell
        return base


def _check_names(named: Sequence[_Named]) -> None:
    """Raise ``UserError`` if two have the same name, before any is opened."""
    seen: dict[str, _Named] = {}
    for one in named:
        if (other := seen.setdefault(one.name, one)) is not one:
            raise UserError(
                f"two models are called {one.name}: {other.source} and {one.source}; give one "
                f"another name, as in {one.name}-2={one.source}"
            )


def _default_name(source: str) -> str:
    path = Path(source)
    return (path.stem if path.is_file() else path.resolve().name) or source


def _directory(source: str) -> Path | None:
    path = resolve_source(source)
    return path if path.is_dir() else None
