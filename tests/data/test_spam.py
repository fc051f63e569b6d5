from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from groundup.data.spam import SpamDataset, create_balanced_dataset, random_split
from groundup.errors import UserError
from groundup.tokenizers import BPETokenizer, get_gpt2_tokenizer


@pytest.fixture(scope="module")
def balanced(data_dir: Path) -> pd.DataFrame:
    """The course's DataFrame, labels as numbers."""
    path = data_dir / "SMSSpamCollection"
    df = create_balanced_dataset(pd.read_csv(path, sep="\t", header=None, names=["Label", "Text"]))
    assert df["Label"].value_counts().to_dict() == {"ham": 747, "spam": 747}
    df["Label"] = df["Label"].map({"ham": 0, "spam": 1}.get)
    return df


def test_the_courses_numbers(balanced: pd.DataFrame, tmp_path: Path) -> None:
    splits = random_split(balanced, 0.7, 0.1)
    assert [len(split) for split in splits] == [1045, 149, 300]
    assert sorted(pd.concat(splits)["Text"]) == sorted(balanced["Text"])
    splits[0].to_csv(tmp_path / "train.csv", index=False)
    tokenizer = get_gpt2_tokenizer()
    train = SpamDataset(tmp_path / "train.csv", tokenizer)
    assert train.max_length == 120
    assert len(train) == 1045
    assert train.encoded_texts == SpamDataset(splits[0], tokenizer).encoded_texts
    loader = torch.utils.data.DataLoader(train, batch_size=8, drop_last=True)
    assert len(loader) == 130
    ids, labels = next(iter(loader))
    assert ids.shape == (8, 120) and ids.dtype == torch.long
    assert labels.shape == (8,) and labels.dtype == torch.long
    assert labels.tolist() == splits[0]["Label"][:8].tolist()


def test_texts_are_cut_and_padded(tokenizer: BPETokenizer) -> None:
    df = pd.DataFrame({"Label": [0, 1], "Text": ["The quick brown fox, what a fox!", "fox"]})
    ids = [tokenizer.encode(text) for text in df["Text"]]
    assert len(ids[0]) > 4 > len(ids[1])
    data = SpamDataset(df, tokenizer, max_length=4, pad_token_id=7)
    assert data.encoded_texts == [ids[0][:4], ids[1] + [7] * (4 - len(ids[1]))]
    assert data[1][1].item() == 1
    assert SpamDataset(df, tokenizer).max_length == len(ids[0])


def test_whole_numbers_of_any_kind_are_labels(tokenizer: BPETokenizer) -> None:
    for labels in ([0, 1], [True, False], np.array([2, 0], "int8"), pd.array([1, 0], "Int64")):
        data = SpamDataset(pd.DataFrame({"Label": labels, "Text": ["fox", "dog"]}), tokenizer)
        assert data[0][1].item() == int(labels[0])


def test_na_is_a_text(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Label,Text\n0,NA\n1,null\n", "utf-8")
    assert SpamDataset(path, tokenizer).data["Text"].tolist() == ["NA", "null"]


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"Label": ["ham", "spam"], "Text": ["a", "b"]}, ["2 labels", "'ham'", "df['Label'].map("]),
        ({"Label": [0.0, float("nan")], "Text": ["a", "b"]}, ["not whole numbers"]),
        ({"label": [0, 1], "Text": ["a", "b"]}, ["no column 'Label'; did you mean 'label'?"]),
        ({"x": [0, 1]}, ["no column 'Label'; and no column 'Text'; there are x"]),
        ({"Label": [0, 1, 0], "Text": ["a", "", None]}, ["no text in row 2, 3"]),
        ({"Label": [0] * 12, "Text": [""] * 12}, ["row 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"]),
        ({"Label": [], "Text": []}, ["no rows"]),
    ],
)
def test_bad_rows(columns: dict[str, list], parts: list[str], tokenizer: BPETokenizer) -> None:
    with pytest.raises(UserError) as caught:
        SpamDataset(pd.DataFrame(columns), tokenizer)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_bad_arguments(tmp_path: Path, tokenizer: BPETokenizer) -> None:
    df = pd.DataFrame({"Label": [0], "Text": ["a"]})
    for max_length in (0, -1):
        with pytest.raises(UserError, match="max_length is .*; expected at least 1"):
            SpamDataset(df, tokenizer, max_length=max_length)
    with pytest.raises(UserError, match="cannot read .*none.csv"):
        SpamDataset(tmp_path / "none.csv", tokenizer)
    (tmp_path / "latin.csv").write_bytes("Label,Text\n0,Käse\n".encode("latin-1"))
    with pytest.raises(UserError, match="latin.csv is not a CSV file"):
        SpamDataset(tmp_path / "latin.csv", tokenizer)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(UserError, match="empty.csv is not a CSV file"):
        SpamDataset(tmp_path / "empty.csv", tokenizer)
    for fractions in ((0.9, 0.2), (-0.1, 0.1), (0.5, -0.1)):
        with pytest.raises(UserError, match="at most 1 together"):
            random_split(df, *fractions)


def test_balancing_needs_spam_and_ham() -> None:
    for labels in (["ham", "ham"], ["ham", "spam", "spam"], [0, 1]):
        with pytest.raises(
            UserError, match="labelled ham and .* labelled spam.* groundup.balance, which"
        ):
            create_balanced_dataset(pd.DataFrame({"Label": labels}))
    with pytest.raises(UserError, match="no column 'Label'"):
        create_balanced_dataset(pd.DataFrame({"Text": ["a"]}))
