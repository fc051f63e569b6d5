"""The course's functions for the SMS Spam Collection, with the course's results."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from groundup.data.encodings import conversion, marked_encoding
from groundup.errors import UserError, did_you_mean, first_ten
from groundup.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pandas import DataFrame

SEED = 123
"""The course's."""


def create_balanced_dataset(df: DataFrame) -> DataFrame:
    """All rows whose ``Label`` is spam and, drawn at random before them, as many that are ham.

    Raises:
        UserError: there is no such column, no spam, or more spam than ham.
    """
    import pandas as pd

    _check_columns(df, "the DataFrame", ["Label"])
    ham, spam = df.loc[df["Label"] == "ham"], df.loc[df["Label"] == "spam"]
    if not 0 < len(spam) <= len(ham):
        raise UserError(
            f"the DataFrame has {len(ham)} rows labelled ham and {len(spam)} labelled spam; "
            "expected some spam and at least as much ham (for any classes there is "
            "groundup.balance, which takes what groundup.read_labelled reads)"
        )
    return pd.concat([ham.sample(len(spam), random_state=SEED), spam])


def random_split(
    df: DataFrame, train_frac: float, validation_frac: float
) -> tuple[DataFrame, DataFrame, DataFrame]:
    """Shuffle the rows and split them into training, validation and test rows.

    Copies of a text may end up on both sides, as in the course; ``split_labelled`` keeps them
    together.

    Raises:
        UserError: the fractions are negative or more than 1 together.
    """
    if not (train_frac >= 0 and validation_frac >= 0 and train_frac + validation_frac <= 1 + 1e-9):
        raise UserError(
            f"train_frac is {train_frac} and validation_frac {validation_frac}; expected numbers "
            "from 0 that are at most 1 together"
        )
    df = df.sample(frac=1, random_state=SEED).reset_index(drop=True)
    train_end = int(len(df) * train_frac)
    validation_end = train_end + int(len(df) * validation_frac)
    return df.iloc[:train_end], df.iloc[train_end:validation_end], df.iloc[validation_end:]


class SpamDataset(Dataset[tuple[Tensor, Tensor]]):
    """Texts as token ids, all padded to one length, with their labels.

    Args:
        csv_file: a CSV file with the columns ``Label`` (whole numbers) and ``Text``, or a
            DataFrame.
        tokenizer: GPT-2's in the course.
        max_length: tokens per text, T; longer ones are cut. By default, the longest text's.
        pad_token_id: what fills up the shorter ones.

    Raises:
        UserError: the file cannot be read, a column is missing, a text is empty, a label is not a
            whole number, or ``max_length`` is below 1.
    """

    def __init__(
        self,
        csv_file: str | Path | DataFrame,
        tokenizer: Tokenizer,
        max_length: int | None = None,
        pad_token_id: int = 50256,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise UserError(f"max_length is {max_length}; expected at least 1")
        source = str(csv_file) if isinstance(csv_file, str | Path) else "the DataFrame"
        self.data = _read_csv(csv_file) if isinstance(csv_file, str | Path) else csv_file
        _check_columns(self.data, source, ["Label", "Text"])
        _check_rows(self.data, source)
        self.labels = torch.tensor([int(label) for label in self.data["Label"]])  # (N,)
        encoded = [tokenizer.encode(text) for text in self.data["Text"]]
        self.max_length = max_length or max(map(len, encoded))
        self.encoded_texts = [
            ids[: self.max_length] + [pad_token_id] * (self.max_length - len(ids))
            for ids in encoded
        ]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Token ids ``(T,)`` and a label ``()``."""
        return torch.tensor(self.encoded_texts[index]), self.labels[index]

    def __len__(self) -> int:
        return len(self.data)


def _read_csv(path: str | Path) -> DataFrame:
    import pandas as pd

    bad = f"{path} is not a CSV file that pandas can read"
    try:
        encoding = None
        if Path(path).is_file():  # it may be an address
            with open(path, "rb") as file:
                encoding = marked_encoding(file.read(4))
        # "NA" is a text like any other
        return pd.read_csv(path, encoding=encoding, keep_default_na=False)
    except UnicodeDecodeError as error:
        advice = conversion(error.object, str(path))
        raise UserError(f"{bad}: {error}; {advice}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # pandas' own errors are such
        raise UserError(f"{bad}: {error}") from error


def _check_columns(df: DataFrame, source: str, wanted: list[str]) -> None:
    columns = [str(column) for column in df.columns]
    missing = [
        f"no column {name!r}{did_you_mean(name, columns) or ';'}"
        for name in wanted
        if name not in columns
    ]
    if missing:
        raise UserError(f"{source} has {' and '.join(missing)} there are {', '.join(columns)}")
    if df.empty:
        raise UserError(f"{source} has no rows")


def _check_rows(df: DataFrame, source: str) -> None:
    labels = [label for label in df["Label"] if not _is_whole(label)]
    rows = enumerate(df["Text"], 1)
    empty = [str(row) for row, text in rows if not isinstance(text, str) or not text]
    if labels:
        raise UserError(
            f"{source} has {len(labels)} labels that are not whole numbers, such as {labels[0]!r}; "
            "map them first, for example df['Label'] = df['Label'].map({'ham': 0, 'spam': 1})"
        )
    if empty:
        raise UserError(f"{source} has no text in row {first_ten(empty)}")


def _is_whole(label: object) -> bool:
    return isinstance(label, numbers.Integral | np.bool_)
