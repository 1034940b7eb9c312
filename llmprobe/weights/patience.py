"""Asking a busy server again: after the time it names where it names one, visibly, and never without an end."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError

from llmprobe.errors import SourceError
from llmprobe.weights.deadline import within
from llmprobe.weights.http_client import httpx

log = logging.getLogger(__name__)
TRIES = 6
WAIT = 0.5  # seconds before the first retry, doubled each time
LONGEST = 300.0  # seconds that are waited for a server that asks for it: the Hub's window of requests
RETRIED = {408, 429, 500, 502, 503, 504}
Answer = TypeVar("Answer")


def patiently(what: str, seconds: float, ask: Callable[[], Answer], *, broken: bool = True) -> Answer:
    """What `ask` gives, asked again while the server is busy or the connection breaks.

    Parameters
    ----------
    what
        What is asked for, in errors and warnings.
    seconds
        Limit of each try.
    broken
        Whether a broken or refused connection is tried again, too.

    Raises
    ------
    SourceError
        No answer in time or in `TRIES` tries, or the server asks for a wait of more than `LONGEST` seconds.
    HfHubHTTPError, httpx.TransportError
        An answer or a failure that another try would not mend.
    """
    problem = ""
    for attempt in range(TRIES):
        pause = WAIT * 2**attempt
        try:
            return within(seconds, what, ask)
        except httpx.TransportError as error:
            if not broken:
                raise
            problem = f"{type(error).__name__} {error}".strip()
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in RETRIED:
                raise
            problem = f"status {error.response.status_code}"
            pause = asked_pause(error.response) or pause
        if pause > LONGEST:
            raise SourceError(
                f"the Hub asks to wait {pause:.0f} s before it answers for {what}",
                expected=f"at most {LONGEST:.0f} s",
                fix="run the command again then: it resumes from what arrived; a token (HF_TOKEN) raises the limit",
            )
        if attempt < TRIES - 1:
            if pause >= 1:
                log.warning("the Hub is busy (%s): waiting %.3g s for %s", problem, pause, what)
            time.sleep(pause)
    raise SourceError(
        f"{what} could not be read: {problem}, {TRIES} times",
        fix="run the command again: it resumes from the pieces that arrived",
    )


def asked_pause(response: httpx.Response) -> float:
    """Seconds that an answer asks to be left alone (``Retry-After``, or ``t=`` of ``RateLimit``); 0 if it does not."""
    given = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", given):
        return float(given)
    if given:
        try:
            return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return 0.0
    limit = re.search(r"\bt=(\d+)", response.headers.get("RateLimit", ""))
    return float(limit[1]) if limit and response.status_code == 429 else 0.0
