"""What every command line of the project shares: parsing, errors in one line, JSON on stdout, progress on stderr."""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Annotated, Any, Protocol, TypeVar, Union, runtime_checkable

from llmprobe import interrupts
from llmprobe.errors import ProbeError
from llmprobe.names import printable, visible
from llmprobe.settings import SettingError

C = TypeVar("C")
LONGEST_ERROR = 2000  # characters of an error's line


@runtime_checkable
class Command(Protocol):
    """A frozen dataclass whose fields are the options and whose `run` does the work."""

    def run(self) -> None: ...


def main(
    commands: Callable[[], Mapping[str, type[Command]]], prog: str, description: str, argv: Sequence[str] | None
) -> int:
    """Parse one of `commands` and run it; the exit status is as `guarded` gives it.

    ``--debug`` anywhere on the line shows the traceback of an error and debug logs.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"{prog} {importlib.metadata.version('llmprobe')}\n")
        return 0
    arguments, debug = _without_debug(arguments)
    footer = f"{description}\n\nAdd --debug to any command to see the traceback of an error."

    def work() -> None:
        import tyro

        kinds = [
            Annotated[kind, tyro.conf.subcommand(name, **_default(name, kind, arguments))]
            for name, kind in commands().items()
        ]
        config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
        union: Any = Union[tuple(kinds)]  # noqa: UP007 (made of a tuple)
        tyro.cli(union, prog=prog, description=footer, args=arguments, config=config).run()

    return guarded(work, debug=debug)


def recipe(study: Callable[[C], object], settings: type[C], argv: Sequence[str] | None = None) -> int:
    """Run a recipe's `main` with settings from the command line; its module's text is the help.

    The exit status is as `guarded` gives it. ``--debug`` as for `main`.
    """
    arguments, debug = _without_debug(sys.argv[1:] if argv is None else argv)

    def work() -> object:
        import tyro

        return study(tyro.cli(settings, description=study.__globals__["__doc__"], args=arguments))

    return guarded(work, debug=debug)


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments less ``--debug``, and whether it stood among them."""
    return [argument for argument in arguments if argument != "--debug"], "--debug" in arguments


def option(arguments: Sequence[str], name: str, otherwise: str) -> str:
    """The value of ``--name VALUE`` or ``--name=VALUE`` on a command line; the last one counts."""
    flag, found = f"--{name}", otherwise
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument == flag and following:
            found = following
        elif argument.startswith(f"{flag}="):
            found = argument.partition("=")[2]
    return found


def _default(name: str, kind: type[Command], arguments: Sequence[str]) -> dict[str, Any]:
    """The instance whose values are a command's defaults, where one of its options decides them."""
    default = getattr(kind, "default", None)
    return {"default": default(arguments)} if default and arguments[:1] == [name] else {}


def guarded(work: Callable[[], object], *, debug: bool = False) -> int:
    """Run `work`, turning errors a user can mend into one line on stderr and exit status 2.

    Otherwise the status is what `work` returns where that is an int, and 0 where it is not; 128 + the signal where one
    ended it; 141 where nobody reads stdout any more. What a failing disk did not take is printed.
    """
    interrupts.watch()
    _open_streams()
    _log_to_stderr(debug)
    try:
        status = work()
        sys.stdout.flush()
    except SettingError as error:
        return _complain(error.typed, debug)
    except ProbeError as error:
        with suppress(OSError):
            emit(error.measured)
        return _complain(str(error), debug)
    except BrokenPipeError:
        return 141
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}; nothing already stored is lost", debug)
    except MemoryError as error:
        return _complain(f"out of memory{f': {error}' if str(error) else ''}; nothing already stored is lost", debug)
    except RecursionError:
        return _complain("the input is nested too deeply to be read", debug)
    except KeyboardInterrupt as error:
        ending = error if isinstance(error, interrupts.Interrupted) else interrupts.Interrupted()
        interrupts.tell(ending)
        return ending.status
    finally:
        interrupts.quiet_stdout()
    return status if isinstance(status, int) else 0


def _open_streams() -> None:
    """Streams that take any text: what was closed leads nowhere, what an encoding lacks is written out."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            while os.open(os.devnull, os.O_RDWR) < 2:  # no file of ours shall get the number of a closed stream
                pass
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for the whole process)
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Visible(logging.Formatter):
    """Log lines in which names from files cannot steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _log_to_stderr(debug: bool) -> None:
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(levelname)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.WARNING)


def emit(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Print results for machines: one JSON object per line on stdout, NaN as null."""
    for row in [rows] if isinstance(rows, Mapping) else rows:
        sys.stdout.write(json.dumps(_plain(row)) + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """Print a line about what is going on, on stderr."""
    sys.stderr.write(visible(text) + "\n")


def say(text: str = "") -> None:
    """Print a line for people on stdout."""
    sys.stdout.write(visible(text) + "\n")


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows as aligned columns of text, numbers to the right."""
    cells = [[*header], *([_cell(value) for value in row] for row in rows)]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = (
        "  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _complain(message: str, debug: bool) -> int:
    if debug:
        logging.getLogger(__name__).exception("")
    sys.stderr.write(f"error: {printable(' '.join(message.split()), LONGEST_ERROR)}\n")
    return 2


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else printable(value)
