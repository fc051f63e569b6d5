import base64
import re
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from groundup.errors import UserError
from groundup.judge.address import is_local, proxy_hint
from groundup.judge.config import JudgeConfig
from groundup.judge.failures import (
    Endless,
    Failed,
    Unanswerable,
    no_connection,
    retry_after,
    tidy,
)
from groundup.judge.scoring import COURSE
from groundup.judge.servers import connect, ollama_url
from tests.data.fault_server import closed_port
from tests.judge.conftest import Configure
from tests.judge.fake_llm import (
    DIGEST,
    FakeLLM,
    Fault,
    Handler,
    broken_off,
    cut,
    flood,
    garbage,
    stall,
    status,
    without_end,
)

SCHEMA = COURSE.schema
HTML = (200, "<!doctype html><html><h1>Welcome</h1></html>", "text/html")


def test_ollama_is_asked_as_in_the_course_and_held_to_the_schema(llm: FakeLLM) -> None:
    client = connect(JudgeConfig(base_url=llm.url, num_ctx=1024))
    reply = client.ask("How good?", SCHEMA, 7, 5)
    assert (reply.text, reply.structured, reply.prompt_tokens) == ('{"score": 85}', True, 20)
    (asked,) = llm.asked
    assert asked["model"] == "llama3"
    assert asked["messages"] == [{"role": "user", "content": "How good?"}]
    assert asked["options"] == {"temperature": 0, "seed": 7, "num_ctx": 1024}
    assert asked["format"] == SCHEMA


def test_openai_is_asked_the_same(llm: FakeLLM) -> None:
    client = connect(JudgeConfig(judge="openai:llama3:latest", base_url=f"{llm.url}/v1/"))
    reply = client.ask("How good?", SCHEMA, 7, 5)
    assert (reply.text, reply.structured) == ('{"score": 85}', True)
    (asked,) = llm.asked
    assert (asked["model"], asked["temperature"], asked["seed"]) == ("llama3:latest", 0, 7)
    assert asked["messages"] == [{"role": "user", "content": "How good?"}]
    assert asked["response_format"]["type"] == "json_schema"
    assert asked["response_format"]["json_schema"]["schema"] == SCHEMA
    assert asked["response_format"]["json_schema"]["strict"] is True


def test_the_judge_is_identified(llm: FakeLLM) -> None:
    ollama = connect(JudgeConfig(base_url=llm.url))
    assert ollama.preflight() == {"judge": "ollama:llama3", "digest": DIGEST}
    assert ollama.server_version() == "0.5.7"
    openai = connect(JudgeConfig(judge="openai:llama3:latest", base_url=f"{llm.url}/v1"))
    assert openai.preflight() == {"judge": "openai:llama3:latest", "base_url": f"{llm.url}/v1"}


def test_the_environment_names_the_server(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", llm.url.removeprefix("http://"))
    assert connect(JudgeConfig()).preflight()["digest"] == DIGEST
    monkeypatch.setenv("OPENAI_BASE_URL", f"{llm.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    connect(JudgeConfig(judge="openai:llama3:latest")).preflight()
    assert llm.seen[-1][1]["authorization"] == "Bearer secret"


def test_characters_split_over_chunks_are_put_together(llm: FakeLLM, configure: Configure) -> None:
    llm.answer = lambda prompt: "Näive café, 日本語, 🙂! " * 5
    assert connect(configure()).ask("?", SCHEMA, 1, 5).text == "Näive café, 日本語, 🙂! " * 5


def test_a_server_without_schemas_is_asked_without(llm: FakeLLM, configure: Configure) -> None:
    llm.knows_no_schema = True
    client = connect(configure())
    assert not client.ask("?", SCHEMA, 1, 5).structured
    assert not client.ask("?", SCHEMA, 1, 5).structured
    assert len(llm.asked) == 3  # it was learnt the first time


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(500, "<b>the runner\nhas crashed</b>"), "500 the runner has crashed"),
        (status(503, "busy"), "503 busy"),
        (cut, "the answer was cut off"),
        (garbage, "form|cut off"),
        (broken_off, "500 the runner has crashed|has crashed|error"),
    ],
)
def test_what_may_pass_is_worth_another_try(
    llm: FakeLLM, configure: Configure, fault: Fault, message: str
) -> None:
    llm.faults = [fault]
    client = connect(configure())
    with pytest.raises(Failed, match=message):
        client.ask("?", SCHEMA, 1, 5)
    assert client.ask("?", SCHEMA, 1, 5).text == '{"score": 85}'


def test_a_stalled_answer_is_given_up(llm: FakeLLM, configure: Configure) -> None:
    llm.faults = [stall]
    with pytest.raises(Failed, match="nothing came for 0.2 s"):
        connect(configure()).ask("?", SCHEMA, 1, 0.2)


def test_retry_after_is_passed_on(llm: FakeLLM, configure: Configure) -> None:
    llm.faults = [status(429, "slower", Retry_After="17")]
    with pytest.raises(Failed, match="429 slower") as caught:
        connect(configure()).ask("?", SCHEMA, 1, 5)
    assert caught.value.wait == 17


def test_nobody_listens_any_more(configure: Configure) -> None:
    port = closed_port()
    client = connect(configure(base_url=f"http://127.0.0.1:{port}/v1"))
    with pytest.raises(Failed, match="the connection is refused"):
        client.ask("?", SCHEMA, 1, 5)


def test_a_question_that_is_too_long(llm: FakeLLM, configure: Configure) -> None:
    llm.faults = [status(400, "exceeds the context")] * 2
    client = connect(configure())
    with pytest.raises(Unanswerable, match="400 exceeds the context"):
        client.ask("?", SCHEMA, 1, 5)
    assert client.ask("?", SCHEMA, 1, 5).structured  # it was not the schema's fault


def test_an_answer_without_end_is_broken_off(llm: FakeLLM, configure: Configure) -> None:
    client = connect(configure())
    client.longest_answer = 50
    llm.answer = lambda prompt: "na " * 40
    assert len(client.ask("?", SCHEMA, 1, 5).text) == 51


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_empty_tokens_are_silence(llm: FakeLLM, configure: Configure, token: str) -> None:
    llm.faults = [without_end(token, pause=0.02)]
    client = connect(configure(timeout=0.3))
    with pytest.raises(Failed, match="only empty tokens came for 0.3 s"):
        client.ask("?", SCHEMA, 1, 5)  # the long patience is for a model that is loaded


def test_an_answer_that_takes_too_long_is_broken_off(llm: FakeLLM, configure: Configure) -> None:
    llm.faults = [without_end("x", pause=0.02), without_end("", pause=0.02)]
    client = connect(configure(answer_timeout=0.3))
    assert set(client.ask("?", SCHEMA, 1, 5).text) == {"x"}  # of no use, but an answer
    with pytest.raises(Endless, match="had not ended after 0.3 s"):
        client.ask("?", SCHEMA, 1, 5)


@pytest.mark.parametrize("code", [200, 500])
def test_a_flood_is_not_held_in_memory(llm: FakeLLM, configure: Configure, code: int) -> None:
    tracemalloc.start()
    try:
        llm.faults = [flood(2**26) if code == 200 else status(code, "x" * 2**22)]
        with pytest.raises(Failed, match="more than 8 MiB" if code == 200 else "^500 .*x{100,}"):
            connect(configure()).ask("?", SCHEMA, 1, 5)
        if code == 200:  # else the server of the test holds it
            assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_what_is_compressed_is_refused(llm: FakeLLM, configure: Configure) -> None:
    def compressed(handler: Handler, body: dict[str, Any]) -> None:
        handler.whole(200, "x", "text/plain", Content_Encoding="gzip")

    llm.faults = [compressed]
    with pytest.raises(Failed, match="compressed, which was not asked for"):
        connect(configure()).ask("?", SCHEMA, 1, 5)
    assert {headers.get("accept-encoding") for _, headers in llm.seen} == {"identity"}


def test_a_password_is_used_and_nowhere_told(llm: FakeLLM, configure: Configure) -> None:
    config = configure()
    assert config.base_url is not None
    address = config.base_url.replace("//", "//me:se%2Fcret@")
    client = connect(replace(config, base_url=address))
    identity = client.preflight()
    client.ask("?", SCHEMA, 1, 5)
    client.server_version()
    basic = "Basic " + base64.b64encode(b"me:se/cret").decode()
    assert {headers.get("authorization") for _, headers in llm.seen} == {basic}
    assert "cret" not in client.url + str(identity)
    llm.models = {}
    assert "cret" not in refused(replace(config, base_url=address))


@pytest.mark.parametrize(
    "given", ["http://me:se/cret@h", "http://me:cret@h:port", "ftp://me:cret@h", "me:cret@h:x"]
)
@pytest.mark.parametrize("judge", ["ollama:m", "openai:m"])
def test_a_bad_address_tells_no_password(given: str, judge: str) -> None:
    with pytest.raises(UserError, match="is no address of a server") as caught:
        connect(JudgeConfig(judge=judge, base_url=given))
    assert "cret" not in str(caught.value)


def test_thoughts_may_be_long(llm: FakeLLM, configure: Configure) -> None:
    client = connect(configure())
    client.longest_answer = 50
    llm.answer = lambda prompt: f"<think>{'hm ' * 40}</think>85"
    assert client.ask("?", SCHEMA, 1, 5).text.endswith("</think>85")


def test_only_ollama_is_told_and_tells_its_context() -> None:
    assert "num_ctx" in JudgeConfig().deciding()
    assert "num_ctx" not in JudgeConfig(judge="openai:m").deciding()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            status(500, "model requires more system memory (5.6 GiB) than is available (2 GiB)"),
            "there is not enough memory for the judge .* (5.6 GiB) .*; choose a smaller model",
        ),
        (status(401, "who are you?"), "401 who are you?; the environment variable OPENAI_API_KEY"),
        (status(404, "model 'llama3' not found"), "refuses to answer as .*404 model 'llama3' not"),
    ],
)
def test_what_will_not_pass(llm: FakeLLM, configure: Configure, fault: Fault, message: str) -> None:
    llm.faults = [fault]
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(UserError, match=pattern):
        connect(configure()).ask("?", SCHEMA, 1, 5)


def refused(config: JudgeConfig) -> str:
    with pytest.raises(UserError) as caught:
        connect(config).preflight()
    return str(caught.value)


def test_preflight_nothing_listens() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    message = refused(JudgeConfig(base_url=url))
    assert f"nothing listens at {url} (the connection is refused); start Ollama with" in message
    assert "`ollama serve`" in message and "https://ollama.com/download" in message
    message = refused(JudgeConfig(judge="openai:m", base_url=f"{url}/v1"))
    assert f"nothing listens at {url}/v1" in message and "--base-url" in message


def test_preflight_the_model_is_not_pulled(llm: FakeLLM) -> None:
    llm.models = {"llama3:8b": "1", "phi3:latest": "2"}
    message = refused(JudgeConfig(base_url=llm.url))
    assert "has no model 'llama3'; did you mean 'llama3:8b'?" in message
    assert "`ollama pull llama3` fetches it; there are: llama3:8b, phi3:latest" in message
    llm.models = {}
    assert "fetches it; it has none yet" in refused(JudgeConfig(base_url=llm.url))


def test_preflight_another_model_is_served(llm: FakeLLM) -> None:
    message = refused(JudgeConfig(judge="openai:gpt", base_url=f"{llm.url}/v1"))
    assert "has no model 'gpt'" in message and "there are: llama3:latest" in message


@pytest.mark.parametrize(
    "page",
    [
        HTML,
        (404, "404 page not found", "text/plain"),
        (502, "<html>Bad Gateway</html>", "text/html"),
        (200, '{"data": 5}', "application/json"),
        (200, "[]", "application/json"),
    ],
)
def test_preflight_another_server_answers(
    llm: FakeLLM, configure: Configure, page: tuple[int, str, str]
) -> None:
    llm.pages = {"/api/tags": page, "/v1/models": page}
    message = refused(configure())
    assert "does not answer as" in message and "check --base-url" in message
    assert "<" not in message


def test_preflight_a_proxy_answers(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", llm.url.replace("//", "//user:secret@"))
    message = refused(JudgeConfig(base_url="http://judge.example:11434"))
    assert "http://judge.example:11434 does not answer as Ollama does (404" in message
    assert "go through the proxy 127.0.0.1" in message and "NO_PROXY=judge.example" in message
    assert "secret" not in message
    judge = JudgeConfig(judge="openai:m", base_url="http://judge.example/v1")
    assert "go through the proxy 127.0.0.1" in refused(judge)


def test_a_local_server_is_reached_past_any_proxy(
    llm: FakeLLM, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    client = connect(configure())
    client.preflight()
    assert client.ask("?", SCHEMA, 1, 5).text == '{"score": 85}'
    local = JudgeConfig(base_url=llm.url.replace("127.0.0.1", "localhost"))
    assert connect(local).server_version() == "0.5.7"


def test_an_address_without_v1_is_told(llm: FakeLLM) -> None:
    message = refused(JudgeConfig(judge="openai:llama3", base_url=llm.url))
    assert "such addresses usually end in /v1" in message


def test_openai_itself_wants_a_key(llm: FakeLLM) -> None:
    with pytest.raises(UserError, match="OPENAI_API_KEY must hold a key"):
        connect(JudgeConfig(judge="openai:gpt-4o-mini"))
    with pytest.raises(UserError, match="is no address of a server"):
        connect(JudgeConfig(judge="openai:m", base_url="localhost:8080"))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("10.0.0.5", "http://10.0.0.5:11434"),
        (":8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("https://judge.example", "https://judge.example:443"),
        ("http://judge.example/ollama/", "http://judge.example:80/ollama"),
        ("[::1]", "http://[::1]:11434"),
    ],
)
def test_addresses_are_completed_as_ollama_does(
    given: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert ollama_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        "http://[::1",
        "http://[zz]/v1",
        "http://a:port",
        "http://a:99999/v1",
        "http://a:-1",
        "http://a\x07b",
        "http://é..x",
        "ftp://a",
    ],
)
@pytest.mark.parametrize("judge", ["ollama:m", "openai:m"])
def test_what_is_no_address(given: str, judge: str) -> None:
    with pytest.raises(UserError, match="is no address of a server.*; expected .*http://"):
        connect(JudgeConfig(judge=judge, base_url=given))


def test_an_address_for_openai_needs_a_host() -> None:
    with pytest.raises(UserError, match="'http://:8080/v1' is no address of a server; expected"):
        connect(JudgeConfig(judge="openai:m", base_url="http://:8080/v1"))


def test_which_servers_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://localhost:1", "http://127.0.0.1", "http://127.3.2.1/v1", "http://[::1]:5"):
        assert is_local(url)
    for url in ("http://localhost.example", "http://10.0.0.5:1", "https://api.openai.com/v1"):
        assert not is_local(url)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert "the proxy proxy.example" in proxy_hint("http://judge.example")
    monkeypatch.setenv("no_proxy", "judge.example")
    assert proxy_hint("http://judge.example") == proxy_hint("http://localhost") == ""


def test_reasons_for_no_connection() -> None:
    reasons = [no_connection(text) for text in ("[Errno -2] Name or service not known", "SSL: X")]
    assert reasons == ["the name does not resolve", "its TLS certificate is not accepted"]


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("3") == 3
    assert (retry_after("Fri, 31 Dec 9999 23:59:59 GMT") or 0) > 1e9
    assert retry_after("") is retry_after("soon") is None


def test_a_server_s_words_are_tidied() -> None:
    assert tidy("<p>Bad\n <b>Gateway</b></p>") == "Bad Gateway"
    assert len(tidy("x" * 900)) == 200
    assert tidy("a\x1b]0;b\x07") == "a\\x1b]0;b\\x07"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "olama:llama3"}, "expected ollama:MODEL or openai:MODEL, .*mean 'ollama'"),
        ({"judge": "llama3"}, "judge is 'llama3'; expected ollama:MODEL"),
        ({"judge": "ollama:"}, "judge is 'ollama:'; expected"),
        ({"num_ctx": 0, "tries": 0}, "num_ctx is 0; expected at least 1; tries is 0"),
        ({"timeout": float("nan")}, "timeout is nan; expected more than 0 seconds"),
        ({"concurrency": 100}, "concurrency is 100; expected 1 to 64"),
        ({"retries": -1}, "retries is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        JudgeConfig(**options)
