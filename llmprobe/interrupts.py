"""How a command ends when it is told to: one line, status 128 + the signal, within `SECONDS`, whatever it is doing.

A signal becomes `Interrupted`, so that what is open is closed and what is finished is kept. While modules are being
imported it waits a moment, since compiled modules do not survive an exception there. What swallows the exception, or
takes too long over it, is cut off.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SECONDS = 8.0  # from the signal to the end at the latest
IMPORT_SECONDS = 2.0  # that an import may still take
GLANCE = 0.05
WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


class Interrupted(KeyboardInterrupt):
    """The process was told to end.

    Attributes
    ----------
    status
        What it shall exit with: 128 + the signal's number.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number, self.status = number, 128 + number

    def line(self) -> str:
        """What is said at the end."""
        word = WORDS.get(signal.Signals(self.number).name, "ended")
        return f"{word}; what was measured is stored, run the same command to resume"


_first: Interrupted | None = None  # the first signal of this process; later ones change nothing
_raised = False
_said = False


def watch() -> None:
    """Heed SIGINT, SIGTERM and SIGHUP from now on, where nobody else does; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _heed)


@contextmanager
def withheld() -> Iterator[None]:
    """Processes started inside do not see SIGINT, which a terminal sends to all: their parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed(number: int, frame: FrameType | None) -> None:
    global _first, _raised
    if _first is None:
        _first = Interrupted(number)
        if not threading.main_thread().is_alive():  # the interpreter is ending, and raises into nobody's hands
            tell(_first)
            os._exit(_first.status)
        threading.Thread(target=_see_to_it, args=(_first,), daemon=True).start()
    if not _raised and not _importing(frame):
        _raised = True
        raise _first


def _see_to_it(ending: Interrupted) -> None:
    began = time.monotonic()
    while not _raised and time.monotonic() < began + IMPORT_SECONDS:
        time.sleep(GLANCE)
        os.kill(os.getpid(), ending.number)  # looks again whether the import is over
    if _raised:
        time.sleep(max(0.0, began + SECONDS - time.monotonic()))
    tell(ending)
    os._exit(ending.status)


def tell(ending: Interrupted) -> None:
    """Say once, on stderr, that the process was told to end."""
    global _said
    if not _said:
        _said = True
        start = "\n" if os.isatty(2) else ""  # the terminal's ^C stands on this line
        with suppress(OSError):  # the terminal may be what went away
            os.write(2, f"{start}{ending.line()}\n".encode())


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def quiet_stdout() -> None:
    """Drop what stdout still holds, so that the interpreter's last flush says nothing."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for the rest of the process)
        finally:
            os.close(null)
