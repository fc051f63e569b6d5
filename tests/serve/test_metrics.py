from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from groundup.serve.models import Served
from tests.serve.conftest import client_of


def test_what_was_done_is_counted(lively: Served) -> None:
    with client_of(lively) as client:
        asked = {"model": "lively", "prompt": "The quick", "max_tokens": 5, "n": 2}
        usage = client.post("/v1/completions", json=asked).json()["usage"]
        client.post("/v1/completions", json={"model": "no", "prompt": "x"})
        client.get("/nowhere/at/all")
        answer = client.get("/metrics")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["groundup_requests_total", "/v1/completions", "200"] == 1
    assert samples["groundup_errors_total", "/v1/completions", "404"] == 1
    assert samples["groundup_requests_total", "404", "other"] == 1
    assert samples["groundup_tokens_total", "lively"] == usage["completion_tokens"] == 10
    assert samples["groundup_prompt_tokens_total", "lively"] == usage["prompt_tokens"]
    assert samples["groundup_time_to_first_token_seconds_count", "lively"] == 1
    assert samples["groundup_tokens_per_second_count", "lively"] == 1
    assert samples["groundup_running", "lively"] == samples["groundup_waiting", "lively"] == 0
