"""How a model is opened to be used: the options that every command that does so offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.config import PrecisionChoice, Quantization
from groundup.options import option

if TYPE_CHECKING:
    from groundup.runtime import Runtime


@dataclass(frozen=True)
class OpenConfig:
    """How a model is opened: on which device, which checkpoint of it, how exact."""

    style: str | None = option(
        None,
        "the prompt style (alpaca, chatml, phi3, plain; model is its own chat template) of a model "
        "that does not say it",
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: PrecisionChoice = option(
        "auto", "fp32, bf16, or auto: bf16 where the hardware is fast at it"
    )
    quantize: Quantization | None = option(
        None, "keep the matrices in fewer bytes, which is faster and a little less exact"
    )
    checkpoint: str | None = option(
        None, "of a run: last, step-N, or history/step-N (its best one unless given)"
    )
    tokenizer: str | None = option(None, "gpt2 or a directory, for a .pth that brings none")
    n_heads: int | None = option(None, "attention heads, for a .pth that cannot say it")
    verify: bool = option(True, "open it only if its files are as they were saved")

    @property
    def runtime(self) -> Runtime:
        """The device and the precision.

        Raises:
            UserError: there is no such device.
        """
        from groundup.runtime import resolve_runtime

        return resolve_runtime(self.device, self.precision)

    @property
    def how(self) -> dict[str, Any]:
        """What :func:`~groundup.weights.load.load_model` is told beside the device."""
        names = ("quantize", "checkpoint", "tokenizer", "n_heads", "verify")
        return {name: getattr(self, name) for name in names}
