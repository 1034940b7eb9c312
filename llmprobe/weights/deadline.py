"""An end to waiting for a server, however slowly or endlessly it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from llmprobe.errors import SourceError

ANSWER_SECONDS = 30.0  # for a listing, or the facts about a file
SLOWEST = 20_000  # bytes a second: a transfer below that is given up
Answer = TypeVar("Answer")


def within(seconds: float, what: str, ask: Callable[[], Answer]) -> Answer:
    """What `ask` gives or raises, if it does so in time.

    Raises
    ------
    SourceError
        It has not after that many seconds; it is left behind in a thread that ends with the process.
    """
    answers: list[Answer] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # raised again in the thread that asked
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not answers:
        raise SourceError(
            f"{what} was not answered within {seconds:.0f} s",
            expected=f"at least {SLOWEST // 1000} kB/s",
            fix="try again later; what arrived whole is kept",
        )
    return answers[0]
