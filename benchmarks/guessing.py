"""What guessing what repeats itself saves: a real model, with and without, in turns.

    python benchmarks/guessing.py SMOLLM2

``editing`` asks a chat model to give back a paragraph with a word changed, ``prose`` to write on
freely. Greedy, batch 1; ``calls`` is how often the model was called per token. The texts must be
the same.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

from common import report
from groundup.decoding.chat import Chat
from groundup.decoding.config import SamplingConfig
from groundup.tasks.assistant import Assistant

PARAGRAPH = (
    "The old harbour of Larnwick lies behind two stone piers. In winter the boats are drawn up on "
    "the beach of Larnwick, and the fishermen mend their nets in the long sheds behind the church. "
    "A lamp burns at the end of the northern pier, and on clear nights it is seen from the hills."
)
TASKS = {
    "editing": [
        f"Write the following text again, with 'stone' replaced by 'wooden':\n\n{PARAGRAPH}",
        f"Repeat this text, but call the place Harwick instead of Larnwick:\n\n{PARAGRAPH}",
        f"Copy this text word for word:\n\n{PARAGRAPH}",
    ],
    "prose": [
        "Write a short story about a lighthouse keeper and a stray dog.",
        "Explain to a child why the sky is blue.",
        "Describe how bread is baked.",
    ],
}
NEW = 96


def answer(assistant: Assistant, text: str, guess: bool) -> tuple[str, int, int, float]:
    """The text, its tokens, how often the model was called for it, and the seconds."""
    config = SamplingConfig(max_new_tokens=NEW, guess=guess)
    chat = Chat(assistant.model, assistant.tokenizer, assistant.style, config)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = assistant.model.register_forward_pre_hook(count)
    begin = time.perf_counter()
    written = "".join(chat.ask(text))
    seconds = time.perf_counter() - begin
    hook.remove()
    return written, len(assistant.tokenizer.encode(written)), calls, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="with and without guesses")
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in (None, "int8"):
        assistant = Assistant.load(args.model, quantize=kind)
        for task, asked in TASKS.items():
            seconds: dict[bool, list[float]] = {True: [], False: []}
            tokens, calls, same = 0, 0, True
            for _ in range(args.rounds):
                took = {True: 0.0, False: 0.0}
                tokens, calls = 0, 0
                for text in asked:
                    (one, count, called, s1), (other, _, _, s2) = (
                        answer(assistant, text, guess) for guess in (True, False)
                    )
                    took[True], took[False] = took[True] + s1, took[False] + s2
                    tokens, calls, same = tokens + count, calls + called, same and one == other
                for guess, value in took.items():
                    seconds[guess].append(value)
            ratios = [b / a for a, b in zip(seconds[True], seconds[False], strict=True)]
            found[f"{task}, {kind or 'fp32'}"] = {
                "calls_per_token": round(calls / tokens, 2),
                "times_faster": round(median(ratios), 2),
                "same_text": same,
            }
            print(found, flush=True)
    report("guessing", found)


if __name__ == "__main__":
    main()
