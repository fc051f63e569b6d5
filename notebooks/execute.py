"""Run the notebooks from top to bottom and write what they show into them.

    python notebooks/execute.py         # all of them
    python notebooks/execute.py 1 3     # some

``make notebooks`` calls this; the tests run the notebooks too and compare with what is written.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat

FOLDER = Path(__file__).parent
SECONDS_PER_CELL = 300


def paths() -> list[Path]:
    """All notebooks, in the course's order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> Any:
    """A notebook as it is written."""
    return nbformat.read(path, as_version=4)


def execute(path: Path, folder: Path) -> Any:
    """A notebook after a run from top to bottom in a new kernel whose directory is ``folder``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell has failed; the message shows which.
    """
    notebook = read(path)
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress bars and warnings are nobody's result
            cell.outputs = [o for o in cell.outputs if not _is_progress(o)]
    return notebook


def _is_progress(output: Any) -> bool:
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or output.get("name") == "stderr"


def kinds(notebook: Any) -> list[tuple[str, list[str]]]:
    """Each cell's source and the kinds of its outputs, such as ``text`` and ``image/png``."""
    return [(cell.source, [_kind(o) for o in cell.get("outputs", [])]) for cell in notebook.cells]


def sources(notebook: Any) -> list[str]:
    """The code that ``show(...)`` has shown, which must be the package's as it stands."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return [o["data"]["text/plain"] for o in outputs if "text/latex" in o.get("data", {})]


def _kind(output: Any) -> str:
    if output.output_type == "stream":
        return "text"
    return ", ".join(sorted(set(output.get("data", {})) - {"text/plain"})) or "text/plain"


def write(notebook: Any, path: Path) -> None:
    """Write a notebook so that two runs differ in what they show only."""
    about = notebook.metadata["groundup"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {
        "groundup": about,
        "kernelspec": kernel,
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def main() -> None:
    """Run those whose numbers are given, or all."""
    chosen = {int(argument) for argument in sys.argv[1:]}
    for path in paths():
        if chosen and int(path.name[:2]) not in chosen:
            continue
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            write(execute(path, Path(folder)), path)
        print(f"{path.name}: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
