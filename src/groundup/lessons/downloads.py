"""The course's download functions, by the one downloader: it resumes, retries and checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groundup.data.download import fetch
from groundup.data.sources import KnownFile
from groundup.errors import UserError


def download_file(url: str, destination: str | Path, backup_url: str | None = None) -> None:
    """Download a file, unless it is there.

    Args:
        url: where from.
        destination: the file to be.
        backup_url: where from, if that fails.

    Raises:
        UserError: neither delivered it, or it cannot be written.
    """
    target = Path(destination)
    fetch(KnownFile(target.name, tuple(filter(None, (url, backup_url)))), target)


def download_and_load_file(file_path: str | Path, url: str) -> Any:
    """Read a JSON file, downloading it first if it is not there.

    Raises:
        UserError: it cannot be downloaded, or is no JSON.
    """
    download_file(url, file_path)
    try:
        return json.loads(Path(file_path).read_text("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file_path} is not valid JSON: {error}; delete it to get it anew"
        ) from error


def download_and_unzip_spam_data(
    url: str, zip_path: str | Path, extracted_path: str | Path, data_file_path: str | Path
) -> None:
    """Have the SMS Spam Collection in ``data_file_path``, out of the archive at ``url``.

    Neither ``zip_path`` nor ``extracted_path`` is written: the archive is read as it is.

    Raises:
        UserError: it cannot be downloaded, or is no such archive.
    """
    target = Path(data_file_path)
    fetch(KnownFile(target.name, (url,), member="SMSSpamCollection"), target)
