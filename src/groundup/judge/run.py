"""A judged run: questions to a judge, its answers kept as they arrive, a report of them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from groundup.data.transfer import Failed, Patience
from groundup.errors import UserError
from groundup.files import atomic_file, read_json, write_json
from groundup.judge.answers import AnswersFile
from groundup.judge.asking import Answer, Asker, Question, in_parallel
from groundup.judge.clients import connect
from groundup.judge.config import JudgeConfig
from groundup.judge.output import ANSWERS, RUN, check_output, locked, remove_ours
from groundup.judge.report import write_report
from groundup.judge.responses import Entry, check_same_tasks, read_entries
from groundup.judge.results import (
    RESULTS,
    check_comparable,
    compare,
    pair_rows,
    pair_summary,
    read_results,
    score_rows,
    score_summary,
)
from groundup.judge.scoring import COURSE, PAIRWISE, Template, read_template

BACKOFF = 1.0
"""Seconds before a failed request is repeated; they double every time."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What is to be judged: entries, the second response to each (or None), and the question."""

    entries: Sequence[Entry]
    others: Sequence[Entry] | None
    template: Template

    def questions(self, asked_of: Mapping[str, Any]) -> list[Question]:
        """Every question; its key says what is asked, of whom, and for which entry."""
        found = []
        for number, entry in enumerate(self.entries):
            other = self.others[number] if self.others else None
            if entry.empty or (other is not None and other.empty):
                continue
            if other is None:
                prompts = {"": self.template.fill(entry)}
            else:
                prompts = {
                    "AB": self.template.fill(entry, other.response),
                    "BA": self.template.fill(_with_response(entry, other), entry.response),
                }
            for order, prompt in prompts.items():
                key = _digest([asked_of, self.template.schema, prompt, entry.number, order])
                found.append(Question(key, entry.number, order, prompt))
        return found


def judge_responses(
    responses: str | Path,
    config: JudgeConfig | None = None,
    *,
    out: str | Path | None = None,
    template: str | Path | None = None,
    against: str | Path | None = None,
    reference: str | Path | None = None,
    compare_with: str | Path | None = None,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Let a language model judge responses, and write a report.

    A run that was killed goes on where it was when it is started again; nothing is asked twice.

    Args:
        responses: entries with instruction, input, output and the response, as JSON or JSON lines.
        config: who judges, and how.
        out: the directory to write; beside the responses by default.
        template: a file with another question than the course's (see :func:`read_template`).
        against: other responses to the same tasks: the judge says which of the two is better.
        reference: the data set that was answered, whose outputs count; every entry of it must
            have its response.
        compare_with: the directory of an earlier run over the same tasks, to compare scores with.
        overwrite: replace the run that ``out`` holds.
        say: told what is going on.

    Returns:
        What ``results.json`` holds.

    Raises:
        UserError: something given is wrong, or the judge does not answer.
        KeyboardInterrupt: Ctrl-C; the answers so far are kept.
    """
    config = config or JudgeConfig()
    responses = Path(responses)
    against = Path(against) if against is not None else None
    if against is not None and compare_with is not None:
        raise UserError("--compare compares scores, and --against gives none; leave out one")
    work = _read_work(responses, config, template, against, reference)
    earlier = None
    if compare_with is not None and work.template.scale is not None:
        earlier = read_results(Path(compare_with))
        check_comparable(work.entries, work.template.scale, Path(compare_with), earlier)
    folder = Path(out) if out is not None else default_output(responses, against)
    check_output(folder, overwrite)
    with locked(folder):
        run, answers = _ask_all(work, config, folder, overwrite, say)
        given = {"responses": str(responses), "against": str(against) if against else None}
        results = _results(work, run | given | {"key": config.key}, answers, config.seed)
        if earlier is not None:
            results["comparison"] = compare(results, Path(compare_with or ""), earlier)
        with atomic_file(folder / RESULTS) as temporary:
            write_json(temporary, results)
        write_report(folder, results)
    return results


def default_output(responses: Path, against: Path | None = None) -> Path:
    """``responses.judge`` beside ``responses.json``; names that are the same get their folder's."""
    versus = ""
    if against is not None:
        folder = f"{against.parent.resolve().name}-" if against.stem == responses.stem else ""
        versus = f"-against-{folder}{against.stem}"
    return responses.with_name(f"{responses.stem}{versus}.judge")


def _read_work(
    responses: Path,
    config: JudgeConfig,
    template: str | Path | None,
    against: Path | None,
    reference: str | Path | None,
) -> Work:
    entries = read_entries(responses, config.key, Path(reference) if reference else None)
    others = None
    if against is not None:
        others = read_entries(against, config.key, needs_output=False)
        check_same_tasks(responses, entries, against, others)
    if template is not None:
        chosen = read_template(Path(template), pairwise=against is not None)
    else:
        chosen = COURSE if against is None else PAIRWISE
    return Work(entries, others, chosen)


def _ask_all(
    work: Work, config: JudgeConfig, folder: Path, overwrite: bool, say: Say
) -> tuple[dict[str, Any], list[Answer]]:
    """Ask what has not been answered yet; return what describes the run, and every answer."""
    recorded = None
    if (folder / RUN).exists() and not overwrite:
        recorded = read_json(folder / RUN)
        finished = _finished(work, config, folder, recorded)
        if finished is not None:  # then the judge need not even be there
            say(f"all answers are in {folder} already; nothing is asked")
            return recorded, finished
    client = connect(config)
    run = _description(work, config, client.preflight())
    if overwrite:
        remove_ours(folder)
    if recorded is not None and not _same(run, recorded):
        differ = [name for name in _IDENTITY if run[name] != recorded.get(name)]
        raise UserError(
            f"{folder} holds another run ({', '.join(_IDENTITY[name] for name in differ)} "
            "differ); use --overwrite to replace it, or another --out"
        )
    if recorded is None:
        run["server_version"] = client.server_version()
        with atomic_file(folder / RUN) as temporary:
            write_json(temporary, run)
    else:
        run = recorded
    kept = AnswersFile(folder / ANSWERS)
    questions = work.questions(run["asked_of"] | run["settings"])
    left = [question for question in questions if question.key not in kept.answers]
    done = len(questions) - len(left)
    say(
        f"{config.judge} at {client.url} judges {len(questions)} questions"
        + (f", of which {done} are answered already" if done else "")
    )
    stop = threading.Event()
    patience = Patience(
        connect=0, read=config.timeout, attempts=config.retries + 1, backoff=BACKOFF
    )
    asker = Asker(client, work.template, config.seed, config.tries, patience, stop)
    try:
        _ask_left(left, done, asker, config, kept, say)
    except Failed as failure:
        raise UserError(
            f"the judge at {client.url} does not answer ({failure}); "
            + _so_far(questions, kept, folder)
        ) from None
    except (UserError, KeyboardInterrupt):
        say(_so_far(questions, kept, folder))
        raise
    finally:
        stop.set()
    return run, [kept.answers[question.key] for question in questions]


def _finished(
    work: Work, config: JudgeConfig, folder: Path, recorded: Mapping[str, Any]
) -> list[Answer] | None:
    """Every answer, if the run that ``folder`` holds is this one and lacks none."""
    asked_of = recorded.get("asked_of", {})
    run = _description(work, config, asked_of)
    if asked_of.get("judge") != config.judge or not _same(run, recorded):
        return None
    kept = AnswersFile(folder / ANSWERS).answers
    questions = work.questions(asked_of | run["settings"])
    whole = all(question.key in kept for question in questions)
    return [kept[question.key] for question in questions] if whole else None


def _so_far(questions: Sequence[Question], kept: AnswersFile, folder: Path) -> str:
    count = sum(question.key in kept.answers for question in questions)
    return (
        f"{count} of {len(questions)} answers are kept in {folder}; "
        "the same command goes on from there"
    )


def _ask_left(
    left: Sequence[Question],
    done: int,
    asker: Asker,
    config: JudgeConfig,
    kept: AnswersFile,
    say: Say,
) -> None:
    """Ask these questions: one alone, for which the server loads the model, then several at once.

    Raises:
        UserError: the server takes none of several questions, and never took one.
        Failed: it keeps failing.
    """
    if not left:
        return
    from tqdm import tqdm

    def ask(question: Question) -> None:
        kept.add(asker.ask(question))  # before this thread asks the next one

    say("waiting for the first answer, while the server loads the model")
    took_one = any(answer.texts for answer in kept.answers.values())
    first: list[Answer] = []  # kept only when it is clear that not everything is refused
    for question in left:
        first.append(asker.ask(question, config.warmup_timeout))
        if first[-1].texts:
            break
    if not (took_one or first[-1].texts) and len(first) > 1:
        raise UserError(
            f"{config.judge} at {asker.client.url} takes none of the {len(first)} questions "
            f"(entry {first[0].entry}: {first[0].note}); choose another --judge, or shorten the "
            "entries if they are too long"
        )
    for answer in first:
        kept.add(answer)
    rest = left[len(first) :]
    if first[-1].texts and not first[-1].structured:
        say("note: the server cannot hold answers to a JSON schema; they are read as they come")
    bar = tqdm(
        desc="judging",
        total=len(left) + done,
        initial=done + len(first),
        unit="answer",
        dynamic_ncols=True,
        disable=None,  # only where somebody watches
    )
    with bar:
        for _ in in_parallel(rest, ask, config.concurrency, asker.stop):
            bar.update()


_IDENTITY = {
    "asked_of": "the judge or its digest",
    "settings": "the settings",
    "template": "the question or its scale",
    "tasks": "the responses",
}
"""What of a run must be the same to go on with it, and what to call it."""


def _description(work: Work, config: JudgeConfig, asked_of: Mapping[str, Any]) -> dict[str, Any]:
    groups = [work.entries, work.others or ()]
    return {
        "asked_of": dict(asked_of),
        "settings": config.deciding(),
        "template": {
            "prompt": work.template.text,
            "scale": list(work.template.scale) if work.template.scale else None,
        },
        "tasks": _digest([[asdict(entry) for entry in group] for group in groups]),
        "versions": {name: version(name) for name in ("groundup", config.kind)},
    }


def _same(run: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    return all(run[name] == recorded.get(name) for name in _IDENTITY)


def _results(
    work: Work, run: Mapping[str, Any], answers: Sequence[Answer], seed: int
) -> dict[str, Any]:
    if work.others is None:
        scale = work.template.scale or (0, 100)
        rows = score_rows(work.entries, {answer.entry: answer for answer in answers}, scale)
        summary = score_summary(rows, seed)
    else:
        by_order = {(answer.entry, answer.order): answer for answer in answers}
        rows = pair_rows(work.entries, work.others, by_order)
        summary = pair_summary(rows)
    judge = run["asked_of"]
    cut = [a.entry for a in answers if (a.prompt_tokens or 0) >= run["settings"]["num_ctx"] - 1]
    return {
        "judge": judge["judge"],
        "digest": judge.get("digest"),
        "base_url": judge.get("base_url"),
        "server_version": run.get("server_version"),
        "settings": run["settings"],
        "template": run["template"],
        "versions": run["versions"],
        "responses": run["responses"],
        "against": run["against"],
        "key": run["key"],
        "structured": all(answer.structured for answer in answers if answer.texts),
        "prompts_cut": sorted(set(cut)),
        "summary": summary,
        "entries": rows,
    }


def _with_response(entry: Entry, other: Entry) -> Entry:
    """The entry's task and reference with the other's response."""
    return replace(entry, response=other.response)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
