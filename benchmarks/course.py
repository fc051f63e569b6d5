"""The losses of a run of ``groundup pretrain the-verdict.txt --recipe course``, as the course
measures them: in eval mode, over the course's own windows of the training and validation text.

    python benchmarks/course.py RUN the-verdict.txt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import report
from groundup import calc_loss_loader, create_dataloader_v1, load_model
from groundup.train.tracking import is_evaluation, read_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description="the course's losses of a run")
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    args = parser.parse_args()

    model, tokenizer = load_model(
        args.run, checkpoint="last"
    )  # not the best, which is an early one
    text = args.text.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    losses = {}
    for name, part in (("train_loss", text[:cut]), ("val_loss", text[cut:])):
        loader = create_dataloader_v1(
            part, 2, 256, 256, shuffle=False, drop_last=False, tokenizer=tokenizer
        )
        losses[name] = round(calc_loss_loader(loader, model, "cpu"), 4)
    records = read_metrics(args.run)
    keys = ("step", "epoch", "tokens_seen", "loss", "running_loss", "val_loss", "seconds")
    curve = [{k: round(r[k], 4) for k in keys if k in r} for r in records if is_evaluation(r)]
    report("course", {"at_the_end": losses, "curve": curve})


if __name__ == "__main__":
    main()
