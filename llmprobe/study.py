"""What a study asks for, what of it is missing in its store, and how that is measured: one answer for all of them.

    work = [overlap_work("mine", source, OverlapSettings()) for source in sources]  # llmprobe.measurements
    failures = run(work, store)

A piece of work is one model; its identities say what it will measure. Those in the store, of the same bytes, are not
measured again. Work goes to any executor; the calling process alone writes the store, as each result comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from llmprobe.errors import ConfigError, ProbeError, StoreError
from llmprobe.names import printable
from llmprobe.observations import Identity, Observation, ObservationStore

K = TypeVar("K")
T = TypeVar("T")
ATTEMPTS = 3  # how often a piece of work is handed out before workers that keep dying are an error
GLANCE = 0.5  # seconds between two looks at the workers


@dataclass(frozen=True)
class Result:
    """One measurement that has ended.

    Attributes
    ----------
    observations, arrays
        What is stored, the arrays under the key of the first observation.
    stored
        Called once that is done.
    failed
        Name of what could not be measured, and why, where nothing was.
    """

    observations: list[Observation]
    arrays: Mapping[str, Any] = field(default_factory=dict)
    stored: Callable[[], None] | None = None
    failed: tuple[str, str] | None = None


@dataclass(frozen=True)
class Work:
    """One model's measurements.

    Attributes
    ----------
    name
        What to call it: its source.
    identities
        What it will measure.
    measure
        Measures those of these identities that it is given; runs in any process.
    content
        `fingerprint` of the source: rows of other bytes under the same name do not count.
    size
        Anything that grows with the time it takes: the largest are handed out first.
    """

    name: str
    identities: tuple[Identity, ...]
    measure: Callable[[tuple[Identity, ...]], Iterable[Result]]
    content: str = ""
    size: int = 0


def missing(store: ObservationStore, work: Sequence[Work]) -> list[Work]:
    """The work of which something is not stored, each with only the identities that are missing.

    An identity is stored if a row has its key and, where the source's content is known, was measured of that content;
    or if such a row of the same work says that its metric is undefined there.
    """
    stored = {row.key: row.provenance.record for row in store}
    found = []
    for piece in work:
        records = {one.key: stored[one.key] for one in piece.identities if one.key in stored}
        if piece.content:
            records = {key: record for key, record in records.items() if record.get("content") == piece.content}
        undefined = {metric for record in records.values() for metric in record.get("undefined") or ()}
        lacking = tuple(o for o in piece.identities if o.key not in records and o.metric not in undefined)
        if lacking:
            found.append(replace(piece, identities=lacking))
    return found


def run(
    work: Sequence[Work],
    store: ObservationStore,
    pool: Executor | None = None,
    *,
    unit: str = "model",
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Measure what is missing and store it as it comes.

    Parameters
    ----------
    work
        One piece per model.
    pool
        Any executor; None measures one after another in this process.
    unit
        What the progress bar counts.
    progress
        Told of each failure as it happens.

    Returns
    -------
    What went wrong, by name; one model's failure does not stop the others.

    Raises
    ------
    StoreError
        A result cannot be stored.
    """
    from tqdm import tqdm

    todo = sorted(missing(store, work), key=lambda piece: -piece.size)
    failures: dict[str, str] = {}
    with tqdm(total=len(todo), unit=unit, disable=not todo) as bar:
        for piece, results in _results(todo, pool):
            bar.set_description(printable(piece.name, 40))
            try:
                for result in results():
                    if result.failed:
                        failures[result.failed[0]] = result.failed[1]
                        progress(": ".join(result.failed))
                    else:
                        keep(store, result)
            except StoreError:
                raise
            except ProbeError as error:
                failures[piece.name] = str(error)
                progress(f"{piece.name}: {error}")
            bar.update()
    return failures


def keep(store: ObservationStore, result: Result) -> None:
    """Store a result, arrays first: it counts as measured once its rows are there."""
    if result.arrays:
        store.save_arrays(result.observations[0].key, result.arrays)
    store.append(*result.observations)
    if result.stored:
        result.stored()


def stored(store: ObservationStore, work: Iterable[Work], *metrics: str) -> list[Observation]:
    """The rows of these identities, in their order, of all metrics or of those named."""
    rows = {row.key: row for row in store}
    wanted = (one for piece in work for one in piece.identities if not metrics or one.metric in metrics)
    return [rows[one.key] for one in wanted if one.key in rows]


def handed_out(
    pool: Executor, calls: Mapping[K, Callable[[], T]], *, tick: Callable[[], None] = lambda: None
) -> Iterator[tuple[K, Callable[[], T]]]:
    """Calls made by the workers of a pool, in the order in which they end: each key with what gives its result.

    A call whose worker died is handed out again, `ATTEMPTS` times at most.

    Parameters
    ----------
    tick
        Called every now and then while nothing ends.

    Raises
    ------
    ConfigError
        Workers keep dying.
    """
    attempts = dict.fromkeys(calls, 0)
    order, waiting = list(calls), dict[Future[T], K]()
    while order or waiting:
        for key in order:
            attempts[key] += 1
            waiting[pool.submit(calls[key])] = key
        order = []
        done, _ = wait(waiting, timeout=GLANCE, return_when=FIRST_COMPLETED)
        for future in done:
            key = waiting.pop(future)
            if isinstance(error := future.exception(), BrokenExecutor):
                if attempts[key] == ATTEMPTS:
                    raise ConfigError(
                        f"workers died {ATTEMPTS} times in {printable(str(key), 80)}",
                        fix="look for a lack of memory; run the same command to resume",
                    ) from error
                order.append(key)
            else:
                yield key, future.result
        tick()


def _results(todo: Sequence[Work], pool: Executor | None) -> Iterator[tuple[Work, Callable[[], Iterable[Result]]]]:
    """Each piece with what gives its results, or raises what went wrong with it."""
    if pool is None:
        yield from ((piece, partial(piece.measure, piece.identities)) for piece in todo)
        return
    by_place = dict(enumerate(todo))
    for place, result in handed_out(pool, {place: partial(_whole, piece) for place, piece in by_place.items()}):
        yield by_place[place], result


def _whole(piece: Work) -> list[Result]:
    return list(piece.measure(piece.identities))
