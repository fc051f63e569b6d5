import pytest

from groundup.errors import UserError
from groundup.judge import course
from groundup.judge.course import generate_model_scores, query_model
from tests.data.fault_server import closed_port
from tests.judge.conftest import rows
from tests.judge.fake_llm import FakeLLM, Handler, broken_off, cut, says, status


def test_the_answer_is_put_together(llm: FakeLLM) -> None:
    llm.answer = lambda prompt: f"Llamas eat 🌿 und Bäume; {prompt}"
    answer = query_model("What do llamas eat?", url=f"{llm.url}/api/chat")
    assert answer == "Llamas eat 🌿 und Bäume; What do llamas eat?"
    (asked,) = llm.asked
    assert asked["model"] == "llama3" and "format" not in asked
    assert asked["messages"] == [{"role": "user", "content": "What do llamas eat?"}]
    assert asked["options"] == {"seed": 123, "temperature": 0, "num_ctx": 2048}  # the course's


def test_what_goes_wrong_is_told(llm: FakeLLM) -> None:
    url = f"{llm.url}/api/chat"
    llm.faults = [status(404, "model 'phi9' not found"), cut, broken_off]
    with pytest.raises(UserError, match="404 model 'phi9' not found; `ollama pull phi9` fetches"):
        query_model("?", model="phi9", url=url)
    with pytest.raises(UserError, match="cut off; ask again"):
        query_model("?", url=url)
    with pytest.raises(UserError, match="refuses to answer as llama3: 500 the runner has crashed"):
        query_model("?", url=url)
    with pytest.raises(UserError, match="nothing listens .* start Ollama with `ollama serve`"):
        query_model("?", url=f"http://127.0.0.1:{closed_port()}/api/chat")
    with pytest.raises(UserError, match="expected http://HOST:11434/api/chat"):
        query_model("?", url=llm.url)
    for url in ("http://[::1/api/chat", "http://localhost:abc/api/chat", "localhost/api/chat"):
        with pytest.raises(UserError, match="is no address .*expected http://HOST:11434/api/chat"):
            query_model("?", url=url)


def test_scores_are_whole_numbers_and_what_is_none_is_printed(
    llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(prompt: str, model: str) -> str:
        return query_model(prompt, model, f"{llm.url}/api/chat")

    monkeypatch.setattr(course, "query_model", ask)
    entries = rows(5)
    entries[2]["model_response"] = ""

    def no_score(handler: Handler, body: dict[str, object]) -> None:
        says("quite good")(handler, body)

    llm.faults = [says("80"), no_score, says("Score: 90"), says("100")]
    assert generate_model_scores(entries, "model_response") == [80, 0, 90, 100]
    assert "Could not convert score of entry 2: quite good" in capsys.readouterr().out
    assert "score the model response `The number is 1.`" in llm.asked[0]["messages"][0]["content"]
    assert len(llm.asked) == 4
