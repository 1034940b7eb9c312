"""What a study asks for, what of it is missing in its store, and how that is measured: one answer for all of them.

    work = [overlap_work("mine", source, OverlapSettings()) for source in sources]  # llmprobe.measurements
    failures = run(work, store)

A piece of work is one model; its identities say what it will measure. Those in the store, of the same bytes, are not
measured again. Work goes to any executor; the calling process alone writes the store, as each result comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from llmprobe.errors import ProbeError
from llmprobe.names import printable
from llmprobe.observations import Identity, Observation, ObservationStore


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
    size: float = 0.0


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


def _results(todo: Sequence[Work], pool: Executor | None) -> Iterator[tuple[Work, Callable[[], Iterable[Result]]]]:
    """Each piece with what gives its results, or raises what went wrong with it."""
    if pool is None:
        for piece in todo:
            yield piece, partial(piece.measure, piece.identities)
        return
    waiting = {pool.submit(_whole, piece): piece for piece in todo}
    for future in as_completed(waiting):
        yield waiting[future], future.result


def _whole(piece: Work) -> list[Result]:
    return list(piece.measure(piece.identities))
