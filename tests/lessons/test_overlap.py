import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from groundup.lessons.overlap import local_judge, word_overlap, word_overlap_scores


@contextmanager
def ollama(body: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/tags" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["phi3:latest", "llama3:8b"], "llama3:8b"),
        (["phi3:latest", "llama3.2:1b"], "phi3:latest"),
        ([], None),
    ],
)
def test_the_courses_judge_is_preferred(names: list[str], chosen: str | None) -> None:
    with ollama(json.dumps({"models": [{"name": name} for name in names]})) as url:
        assert local_judge(url) == chosen


@pytest.mark.parametrize("body", ["<html>", "[]", '{"models": null}', '{"models": [1]}'])
def test_another_server_is_no_judge(body: str) -> None:
    with ollama(body) as url:
        assert local_judge(url) is None


def test_nobody_is_no_judge() -> None:
    with ollama("{}") as url:
        pass
    assert local_judge(url) is None


def test_common_words_are_counted_whatever_their_order_and_case() -> None:
    assert word_overlap("The cat saw the dog.", "the dog saw THE CAT") == 100
    assert word_overlap("The capital of Japan is Tokyo.", "The capital of Peru is Lima.") == 67
    assert word_overlap("yes", "no") == 0 == word_overlap("yes", "")
    assert word_overlap("", "") == 100
    assert word_overlap("the the the", "the") == 50


def test_it_says_that_it_is_no_judge(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [{"output": "Yes.", "mine": "yes"}, {"output": "Yes.", "mine": "no"}]
    assert word_overlap_scores(entries, "mine") == [100, 0]
    assert "not a judge" in capsys.readouterr().out
