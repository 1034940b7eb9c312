"""A busy Hub is asked again after the time it names, visibly and not without an end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from huggingface_hub.errors import HfHubHTTPError

from llmprobe.errors import SourceError
from llmprobe.weights import patience
from llmprobe.weights.http_client import httpx
from llmprobe.weights.patience import asked_pause, patiently


def answer(status: int = 429, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, request=httpx.Request("GET", "http://127.0.0.1/x"))


def failing(times: int, error: Exception) -> Callable[[], int]:
    left = iter(range(times))

    def ask() -> int:
        if next(left, None) is not None:
            raise error
        return 7

    return ask


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


def test_the_named_time_is_waited_and_said(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    busy = HfHubHTTPError("busy", response=answer(Retry_After="3"))
    with caplog.at_level(logging.WARNING):
        assert patiently("me/m", 5.0, failing(2, busy)) == 7
    assert pauses == [3.0, 3.0]
    assert "waiting 3 s for me/m" in caplog.text


def test_without_a_named_time_pauses_double_and_end(pauses: list[float]) -> None:
    with pytest.raises(SourceError, match="me/m could not be read: status 503, 6 times"):
        patiently("me/m", 5.0, failing(99, HfHubHTTPError("busy", response=answer(503))))
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_wait_beyond_the_limit_is_an_error_at_once(pauses: list[float]) -> None:
    with pytest.raises(SourceError, match=r"asks to wait 3600 s.*HF_TOKEN"):
        patiently("me/m", 5.0, failing(1, HfHubHTTPError("busy", response=answer(Retry_After="3600"))))
    assert pauses == []


def test_what_another_try_would_not_mend_is_raised(pauses: list[float]) -> None:
    with pytest.raises(HfHubHTTPError):
        patiently("me/m", 5.0, failing(1, HfHubHTTPError("gone", response=answer(404))))
    with pytest.raises(httpx.ConnectError):
        patiently("me/m", 5.0, failing(1, httpx.ConnectError("no route")), broken=False)
    assert patiently("me/m", 5.0, failing(1, httpx.ConnectError("no route"))) == 7
    assert pauses == [0.5]


def test_every_way_to_name_a_time() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40))
    assert asked_pause(answer(Retry_After="2.5")) == 2.5
    assert 35 < asked_pause(answer(Retry_After=soon)) <= 40
    assert asked_pause(answer(RateLimit='"api";r=0;t=55')) == 55
    assert asked_pause(answer(Retry_After="soon")) == 0
    assert asked_pause(answer()) == 0
