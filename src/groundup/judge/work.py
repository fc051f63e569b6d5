"""What is to be judged: responses, and the question about each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from groundup.judge.answers import Question
from groundup.judge.config import JudgeConfig
from groundup.judge.responses import Entry, check_same_tasks, read_entries
from groundup.judge.scoring import COURSE, PAIRWISE, Template, read_template

IDENTITY = {
    "asked_of": "the judge or its digest",
    "settings": "the settings",
    "template": "the question or its scale",
    "tasks": "the responses",
}
"""What of a run must be the same to go on with it, and what to call it."""


@dataclass(frozen=True)
class Work:
    """What is to be judged: entries, the second response to each (or None), and the question."""

    entries: Sequence[Entry]
    others: Sequence[Entry] | None
    template: Template

    def questions(self, run: Mapping[str, Any]) -> list[Question]:
        """Every question; its key says what is asked, of whom, and for which entry.

        Args:
            run: the run's description (see :meth:`description`).
        """
        asked_of = run["asked_of"] | run["settings"]
        found = []
        for number, entry in enumerate(self.entries):
            other = self.others[number] if self.others else None
            if entry.empty or (other is not None and other.empty):
                continue
            if other is None:
                prompts = {"": self.template.fill(entry)}
            else:
                swapped = replace(entry, response=other.response)
                prompts = {
                    "AB": self.template.fill(entry, other.response),
                    "BA": self.template.fill(swapped, entry.response),
                }
            for order, prompt in prompts.items():
                key = _digest([asked_of, self.template.schema, prompt, entry.number, order])
                found.append(Question(key, entry.number, order, prompt))
        return found

    def description(self, config: JudgeConfig, asked_of: Mapping[str, Any]) -> dict[str, Any]:
        """What ``run.json`` says: what is asked, of whom, and how."""
        groups = [self.entries, self.others or ()]
        return {
            "asked_of": dict(asked_of),
            "settings": config.deciding(),
            "template": {
                "prompt": self.template.text,
                "scale": list(self.template.scale) if self.template.scale else None,
            },
            "tasks": _digest([[asdict(entry) for entry in group] for group in groups]),
            "versions": {name: version(name) for name in ("groundup", config.kind)},
        }


def read_work(
    responses: Path,
    config: JudgeConfig,
    template: Path | None,
    against: Path | None,
    reference: Path | None,
) -> Work:
    """Read what :func:`judge_responses` is given.

    Raises:
        UserError: a file is not what it should be, or two do not hold the same tasks.
    """
    entries = read_entries(responses, config.key, reference)
    others = None
    if against is not None:
        others = read_entries(against, config.key, needs_output=False)
        check_same_tasks(responses, entries, against, others)
    return Work(entries, others, choose_template(template, pairwise=against is not None))


def choose_template(path: Path | None, *, pairwise: bool) -> Template:
    """The question in a file, or the usual one."""
    if path is not None:
        return read_template(path, pairwise=pairwise)
    return PAIRWISE if pairwise else COURSE


def differences(run: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """What a run would have to have the same as a recorded one, and has not."""
    settings = recorded.get("settings", {})
    if "num_ctx" not in run["settings"]:  # which the first version recorded of every judge
        settings = {name: value for name, value in settings.items() if name != "num_ctx"}
    recorded = {**recorded, "settings": settings}
    return [what for name, what in IDENTITY.items() if run[name] != recorded.get(name)]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
