"""What every command line of the project shares: parsing, errors in one line, JSON on stdout, progress on stderr."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from llmprobe.errors import ProbeError
from llmprobe.settings import SettingError


@runtime_checkable
class Command(Protocol):
    """A frozen dataclass whose fields are the options and whose `run` does the work."""

    def run(self) -> None: ...


def main(commands: Mapping[str, type[Command]], prog: str, description: str, argv: Sequence[str] | None) -> int:
    """Parse one of `commands` and run it; the exit status is 0, 2 for bad input, 130 when interrupted.

    ``--debug`` anywhere on the line shows the traceback of an error and debug logs.
    """
    import tyro

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    footer = f"{description}\n\nAdd --debug to any command to see the traceback of an error."

    def work() -> None:
        command = tyro.extras.subcommand_cli_from_dict(
            dict(commands), prog=prog, description=footer, args=arguments, config=(tyro.conf.OmitArgPrefixes,)
        )
        command.run()

    return guarded(work, debug=debug)


def guarded(work: Callable[[], object], *, debug: bool = False) -> int:
    """Run `work`, turning errors a user can mend into one line on stderr and exit status 2.

    Otherwise the status is what `work` returns where that is an int, and 0 where it is not.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        status = work()
    except SettingError as error:
        return _complain(error.typed, debug)
    except ProbeError as error:
        return _complain(str(error), debug)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM):
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _complain(f"{os.strerror(error.errno)}{where}; nothing already stored is lost", debug)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what was measured is stored, and the same command goes on from there\n")
        return 130
    return status if isinstance(status, int) else 0


def emit(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Print results for machines: one JSON object per line on stdout, NaN as null."""
    for row in [rows] if isinstance(rows, Mapping) else rows:
        sys.stdout.write(json.dumps(_plain(row)) + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """Print a line about what is going on, on stderr."""
    sys.stderr.write(text + "\n")


def say(text: str = "") -> None:
    """Print a line for people on stdout."""
    sys.stdout.write(text + "\n")


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
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
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
    return f"{value:.5g}" if isinstance(value, float) else str(value)
