"""What a turn of a conversation costs: the model reads what is new, not everything again.

    python benchmarks/chat.py SMOLLM2

The same conversation twice, in turns: by one ``Chat``, whose engine remembers what it has read, and
by a new one for every turn. Seconds to the first piece of each answer, medians of three rounds, and
how many tokens the conversation has by then.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

from common import report
from groundup.decoding.chat import Chat
from groundup.decoding.config import SamplingConfig
from groundup.tasks.assistant import Assistant

ASKED = [
    "Tell me about the harbour of a small fishing town, in three sentences.",
    "What do the people there do in winter?",
    "Who lights the lamp at the end of the pier?",
    "What does he see from there on a clear night?",
    "And when there is fog?",
    "How does the story end?",
]


def turn(chat: Chat, text: str) -> float:
    """Seconds to the first piece; the answer is written to its end."""
    begin, first = time.perf_counter(), None
    for _ in chat.ask(text):
        first = first or time.perf_counter() - begin
    return first or time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description="what a turn of a conversation costs")
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    assistant = Assistant.load(args.model)
    config = SamplingConfig(max_new_tokens=64)

    def begin() -> Chat:
        return Chat(assistant.model, assistant.tokenizer, assistant.style, config)

    found: list[dict[str, list[float]]] = [{"goes on": [], "begins anew": []} for _ in ASKED]
    tokens = [0] * len(ASKED)
    for _ in range(args.rounds):
        chat = begin()
        for number, text in enumerate(ASKED):
            fresh = begin()
            fresh.turns = list(chat.turns)
            found[number]["begins anew"].append(turn(fresh, text))
            found[number]["goes on"].append(turn(chat, text))
            words = "".join(part for both in chat.turns for part in both)
            tokens[number] = len(assistant.tokenizer.encode(words))
    rows = [
        {"tokens": count} | {name: round(median(times), 3) for name, times in row.items()}
        for count, row in zip(tokens, found, strict=True)
    ]
    report("chat", rows)


if __name__ == "__main__":
    main()
