"""A judged run: questions to a judge, its answers kept as they arrive, a report of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.files import atomic_file, read_json, write_json
from groundup.judge.answers import ANSWERS, Answer, AnswersFile, Question
from groundup.judge.asking import Asker, in_parallel
from groundup.judge.calibration import (
    CALIBRATION,
    calibration_work,
    find_calibration,
    summarize,
)
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import Failed
from groundup.judge.output import CALIBRATING, RUN, check_output, locked, remove_ours
from groundup.judge.responses import check_same_tasks, read_tasks
from groundup.judge.results import RESULTS, compare, gather, read_earlier
from groundup.judge.servers import connect
from groundup.judge.work import Work, choose_template, differences, read_work
from groundup.judge.written import write_report
from groundup.output import progress_bar

Say = Callable[[str], None]


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
    config, responses = config or JudgeConfig(), Path(responses)
    template, against, reference, compare_with = (
        None if path is None else Path(path)
        for path in (template, against, reference, compare_with)
    )
    if against is not None and compare_with is not None:
        raise UserError("--compare compares scores, and --against gives none; leave out one")
    work = read_work(responses, config, template, against, reference)
    earlier = None
    if compare_with is not None and work.template.scale is not None:
        earlier = read_earlier(compare_with, work.entries, work.template.scale)
    folder = Path(out) if out is not None else default_output(responses, against)
    check_output(folder, overwrite)
    with locked(folder):
        run, answers = _ask_all(work, config, folder, overwrite, say)
        given = {"responses": str(responses), "against": str(against) if against else None}
        told = given | {"key": config.key, "settings": config.deciding()}
        results = gather(work, run | told, answers)
        if compare_with is not None and earlier is not None:
            results["comparison"] = compare(results, compare_with, earlier)
        results |= _calibrated(folder, run, say)
        with atomic_file(folder / RESULTS) as temporary:
            write_json(temporary, results)
        write_report(folder, results)
    return results


def calibrate_judge(
    responses: str | Path,
    config: JudgeConfig | None = None,
    *,
    out: str | Path | None = None,
    template: str | Path | None = None,
    against: str | Path | None = None,
    reference: str | Path | None = None,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Find out whether a judge can tell right from wrong, before its judgements are believed.

    It gets the question that :func:`judge_responses` would ask, about answers of known worth to
    ``config.calibration_tasks`` of the tasks: the references, other tasks' references, and one
    that says nothing. With ``against``, it compares references with other tasks', in both orders.
    The reports of later runs with the same judge, question and settings show what came out.

    Args:
        responses: entries with instruction, input and output; responses need not be there.
        config: who judges, and how.
        out: the directory of the judged run, beside the responses by default.
        template: as for the judged run.
        against: as for the judged run.
        reference: the data set with the same tasks whose outputs count.
        overwrite: replace the calibration that ``out`` holds.
        say: told what is going on.

    Returns:
        What ``calibration.json`` holds; ``summary`` is what :func:`.calibration.summarize` says.

    Raises:
        UserError: something given is wrong, or the judge does not answer.
        KeyboardInterrupt: Ctrl-C; the answers so far are kept.
    """
    config, responses = config or JudgeConfig(), Path(responses)
    pairwise = against is not None
    tasks = read_tasks(responses, None if reference is None else Path(reference))
    if against is not None:
        against = Path(against)
        check_same_tasks(responses, tasks, against, read_tasks(against, needs_output=False))
    question = choose_template(None if template is None else Path(template), pairwise=pairwise)
    count, seed = config.calibration_tasks, config.seed
    work = calibration_work(tasks, question, count, seed, pairwise=pairwise)
    folder = Path(out) if out is not None else default_output(responses, against)
    check_output(folder, overwrite)
    check_output(folder / CALIBRATING, overwrite)
    with locked(folder), locked(folder / CALIBRATING):
        run, answers = _ask_all(work, config, folder / CALIBRATING, overwrite, say)
        results = run | {"summary": summarize(work, answers)}
        with atomic_file(folder / CALIBRATION) as temporary:
            write_json(temporary, results)
    return results


def default_output(responses: Path, against: Path | None = None) -> Path:
    """``responses.judge`` beside ``responses.json``; names that are the same get their folder's."""
    versus = ""
    if against is not None:
        folder = f"{against.parent.resolve().name}-" if against.stem == responses.stem else ""
        versus = f"-against-{folder}{against.stem}"
    return responses.with_name(f"{responses.stem}{versus}.judge")


def _calibrated(folder: Path, run: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """What is known of the judge; a warning if its judgements mean nothing."""
    calibration = find_calibration(folder, run)
    if calibration is None:
        return {}
    if not calibration["can_tell"]:
        say(f"warning: {calibration['verdict']} ({calibration['from']})")
    return {"calibration": calibration}


def _ask_all(
    work: Work, config: JudgeConfig, folder: Path, overwrite: bool, say: Say
) -> tuple[dict[str, Any], list[Answer]]:
    """Ask what has not been answered yet; return what describes the run, and every answer."""
    recorded = None
    if (folder / RUN).exists() and not overwrite:
        recorded = read_json(folder / RUN)
        asked_of = recorded.get("asked_of", {})
        same = not differences(work.description(config, asked_of), recorded)
        if same and asked_of.get("judge") == config.judge:
            kept = AnswersFile(folder / ANSWERS).answers
            keys = [question.key for question in work.questions(recorded)]
            if kept.keys() >= set(keys):  # then the judge need not even be there
                say(f"all answers are in {folder} already; nothing is asked")
                return recorded, [kept[key] for key in keys]
    client = connect(config)
    run = work.description(config, client.preflight())
    if overwrite:
        remove_ours(folder)
    if recorded is None:
        run["server_version"] = client.server_version()
        with atomic_file(folder / RUN) as temporary:
            write_json(temporary, run)
    elif differ := differences(run, recorded):
        raise UserError(
            f"{folder} holds another run ({', '.join(differ)} differ); use --overwrite to replace "
            "it, or another --out"
        )
    else:
        run = recorded
    kept = AnswersFile(folder / ANSWERS)
    questions = work.questions(run)
    stop = threading.Event()
    asker = Asker(client, work.template, config, stop)
    try:
        _ask_left(questions, asker, kept, say)
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


def _so_far(questions: Sequence[Question], kept: AnswersFile, folder: Path) -> str:
    count = sum(question.key in kept.answers for question in questions)
    return (
        f"{count} of {len(questions)} answers are kept in {folder}; "
        "the same command goes on from there"
    )


def _ask_left(questions: Sequence[Question], asker: Asker, kept: AnswersFile, say: Say) -> None:
    """Ask what is left: first alone, while the server loads the model, then several at once.

    Raises:
        UserError: the server takes none of several questions, and never took one.
        Failed: it keeps failing.
    """
    config = asker.config
    left = [question for question in questions if question.key not in kept.answers]
    done = len(questions) - len(left)
    say(
        f"{config.judge} at {asker.client.url} judges {len(questions)} questions"
        + (f", of which {done} are answered already" if done else "")
    )
    if not left:
        return

    def ask(question: Question) -> None:
        kept.add(asker.ask(question))  # before this thread asks the next one

    say("waiting for the first answer, while the server loads the model")
    first = _ask_first(left, asker, kept)
    if first[-1].texts and not first[-1].structured:
        say("note: the server cannot hold answers to a JSON schema; they are read as they come")
    bar = progress_bar(
        desc="judging",
        total=len(questions),
        initial=done + len(first),
        unit="answer",
    )
    with bar:
        for _ in in_parallel(left[len(first) :], ask, config.concurrency, asker.stop):
            bar.update()


def _ask_first(left: Sequence[Question], asker: Asker, kept: AnswersFile) -> list[Answer]:
    """Ask one question alone, and further ones if the server refuses it.

    Raises:
        UserError: the server takes none of several questions, and never took one.
    """
    first: list[Answer] = []  # kept only when it is clear that not everything is refused
    for question in left:
        first.append(asker.ask(question, asker.config.warmup_timeout))
        if first[-1].texts:
            break
    took_one = first[-1].texts or any(answer.texts for answer in kept.answers.values())
    if not took_one and len(first) > 1:
        raise UserError(
            f"{asker.config.judge} at {asker.client.url} takes none of the {len(first)} questions "
            f"(entry {first[0].entry}: {first[0].note}); choose another --judge, or shorten the "
            "entries if they are too long"
        )
    for answer in first:
        kept.add(answer)
    return first
