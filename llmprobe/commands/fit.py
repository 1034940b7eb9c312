"""``llmprobe fit``: a law over an observations file or any table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from llmprobe import console
from llmprobe.errors import FitError
from llmprobe.settings import Figure, Natural, Positive, Settings

if TYPE_CHECKING:
    import pandas as pd

    from llmprobe.fitting.law import PowerLawSum
    from llmprobe.fitting.result import FitResult


@dataclass(frozen=True)
class Fit(Settings):
    """Fit y = E + sum of A x^(-alpha) to a file of observations (.jsonl) or a table (.csv, .tsv)."""

    file: Annotated[Path, tyro.conf.Positional]
    """Observations (.jsonl) or a table with a header (.csv, .tsv; lines that start with # are comments)."""
    x: tuple[str, ...] = ("m",)
    """Columns of the power laws."""
    y: str = "loss"
    """Column fitted; in an observations file, the metric fitted."""
    offset: Literal["none", "shared", "group"] = "none"
    """No offset, one, or one per group."""
    group: tuple[str, ...] = ()
    """Columns whose values together make a group."""
    exponents: Literal["shared", "group"] = "shared"
    """One exponent for all groups, or one each."""
    amplitudes: Literal["shared", "group"] = "shared"
    """One amplitude for all groups, or one each."""
    fix: tuple[str, ...] = ()
    """Parameters held, as name=value: alpha_m=1."""
    where: tuple[str, ...] = ()
    """Rows to keep, as column=value; all must hold."""
    sigma: str | None = None
    """Column of standard errors that weight the points; without it all weigh the same."""
    loss: Literal["log", "linear", "huber"] = "log"
    """Least squares on log y or y, or Huber's loss on log y."""
    delta: Positive = 1e-3
    """Where Huber's loss turns linear, in log y."""
    errors: Literal["jacobian", "sandwich"] | None = None
    """Whether scatter is taken to be the same everywhere (jacobian; least squares) or not (sandwich; huber)."""
    drop_largest: Natural = 0
    """Leave out this many points of the largest y."""
    window: str = "all"
    """Rows fitted, by x: all, auto (the longest straight stretch), or LO:HI. For a law of one x without groups."""
    cluster: tuple[str, ...] = ()
    """Columns whose values together make a cluster: only points of different clusters are independent."""
    bootstrap: Natural = 0
    """Refit this many resamples."""
    resample: Literal["points", "groups", "clusters", "parametric"] | None = None
    """What the bootstrap draws: points, or clusters where there are any, unless named."""
    seed: Natural = 0
    """Seed of the bootstrap."""
    profile: tuple[str, ...] = ()
    """Exponents or offsets whose profile interval to add: alpha_m."""
    judge: bool = False
    """Add leave-one-out and extrapolation errors and, for one x, rival curves by AICc."""
    figure: Figure | None = None
    """Draw points, law and residuals to this file."""
    json: bool = False
    """Print JSON on stdout and nothing else."""

    def run(self) -> None:
        from llmprobe.fitting.law import PowerLawSum

        law = PowerLawSum(self.x, self.offset, self.exponents, self.amplitudes, _pairs(self.fix, float))
        if law.grouped and not self.group:
            raise FitError("a parameter per group needs --group", fix="name the columns that make a group")
        if self.group and not law.grouped and self.resample != "groups":
            raise FitError(
                "--group has no effect: no parameter is per group", fix="add --offset group, or leave --group out"
            )
        frame = self._rows()
        result, extra = self._fit(law, frame)
        extra |= self._extras(result)
        if self.figure is not None:
            from llmprobe.fitting.figure import save_figure

            save_figure(result, self.figure, y=self.y)
        if self.json:
            console.emit({**result.to_dict(), **extra})
        else:
            report(result, extra)

    def _fit(self, law: PowerLawSum, frame: pd.DataFrame) -> tuple[FitResult, dict[str, Any]]:
        """The fit, and its window where one was asked for."""
        from llmprobe.fitting.estimator import fit
        from llmprobe.fitting.window import fit_window
        from llmprobe.frames import labels, numbers

        x = {name: numbers(frame, name) for name in self.x}
        y, sigma = numbers(frame, self.y), numbers(frame, self.sigma) if self.sigma else None
        for column in ("source_kind", "unit"):
            if column in frame and column not in self.group and len(kinds := sorted(set(frame[column]))) > 1:
                raise FitError(
                    f"{self.y} of {' and '.join(kinds)} in one fit",
                    expected=f"one {column}",
                    fix=f"add --where {column}={kinds[0]}, or --group {column}",
                )
        if self.window == "all":
            group = labels(frame, self.group) if self.group else None
            cluster = labels(frame, self.cluster) if self.cluster else None
            how: dict[str, Any] = {"loss": self.loss, "delta": self.delta, "errors": self.errors}
            return fit(law, x, y, group=group, sigma=sigma, cluster=cluster, **how), {}
        lo, hi = _ends(self.window)
        if len(x) > 1 or law.grouped or self.cluster:
            raise FitError(
                f"a window of {law.formula}",
                expected="a law of one x without groups or clusters",
                fix="filter by --where",
            )
        found = fit_window(x[self.x[0]], y, lo, hi, law=law, sigma=sigma, loss=self.loss, delta=self.delta)
        return found.result, {"window": found.to_dict()}

    def _extras(self, result: FitResult) -> dict[str, Any]:
        """What was asked for beyond the fit."""
        from llmprobe.fitting.bootstrap import bootstrap
        from llmprobe.fitting.profile import profile
        from llmprobe.fitting.validation import validate

        extra: dict[str, Any] = {}
        if self.bootstrap:
            extra["bootstrap"] = bootstrap(result, self.bootstrap, kind=self.resample, seed=self.seed).to_dict()
        if self.profile:
            extra["profile"] = {name: list(profile(result, name).interval) for name in self.profile}
        if self.judge:
            extra["judgement"] = validate(result)
        return extra

    def _rows(self) -> pd.DataFrame:
        """The table asked for, filtered, with a column named as y."""
        from llmprobe.frames import known, matching, numbers, read_frame

        frame = read_frame(self.file)
        conditions = _pairs(self.where, str)
        known(frame, [*conditions, *self.group, *self.cluster])
        if self.y not in frame and {"metric", "value"} <= set(frame):
            metrics = sorted(frame["metric"].astype(str).unique())
            if self.y not in metrics:
                raise FitError(f"{self.file} has no metric {self.y!r}", expected=f"one of {', '.join(metrics)}")
            frame = frame[frame["metric"] == self.y].rename(columns={"value": self.y})
        known(frame, [*self.x, self.y, *([self.sigma] if self.sigma else [])])
        for column, value in conditions.items():
            frame = matching(frame, column, value)
        if frame.empty:
            raise FitError(f"no row of {self.file} has {' and '.join(self.where)}", fix="look at the values there")
        if not 0 <= self.drop_largest < len(frame):
            raise FitError(f"--drop-largest {self.drop_largest} of {len(frame)} rows", expected="fewer")
        if self.drop_largest:
            order = numbers(frame, self.y).argsort(kind="stable")
            frame = frame.iloc[sorted(order[: -self.drop_largest])]
        return frame


def _pairs(texts: tuple[str, ...], kind: type) -> dict[str, Any]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            found[name] = kind(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise FitError(f"{text!r}", expected=f"name=value, the value {'a number' if kind is float else 'a word'}")
    return found


def _ends(window: str) -> tuple[float | None, float | None]:
    if window == "auto":
        return None, None
    low, _, high = window.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise FitError(f"--window {window}", expected="all, auto or LO:HI") from error


def report(result: FitResult, extra: dict[str, Any]) -> None:
    """Print a fit for people."""
    say, table = console.say, console.table
    say(result.law.formula)
    say(f"{result.n_points} points, {result.loss} loss, R² = {result.r2:.5f}, rmse = {result.rmse:.4g}")
    say()
    if result.data.cluster is not None:
        say(f"errors of {len(set(result.data.cluster))} clusters, Student's t with each parameter's own freedom")
    rows = [(name, value, result.stderr[name], *result.ci95[name]) for name, value in result.params.items()]
    say(table(rows, ("parameter", "value", "stderr", "95% from", "to")))
    if "window" in extra:
        window = extra["window"]
        say(f"\nwindow {window['window'][0]:.5g} to {window['window'][1]:.5g}: {window['rule']}")
        columns = ("lo", "hi", "n_points", "exponent", "stderr")
        say(table([[row[c] for c in columns] for row in window["sensitivity"]], columns))
    if "bootstrap" in extra:
        found = extra["bootstrap"]
        say(f"\nbootstrap: {found['n']} resamples of {found['kind']}, seed {found['seed']}")
        say(
            table(
                [(k, found["stderr"][k], *found["ci95"][k]) for k in result.params],
                ("parameter", "stderr", "from", "to"),
            )
        )
    for name, pair in extra.get("profile", {}).items():
        say(f"\nprofile interval of {name}: {pair[0]:.5g} to {pair[1]:.5g}")
    if "judgement" in extra:
        judgement = dict(extra["judgement"])
        rivals = judgement.pop("rivals", [])
        say()
        for key, value in judgement.items():
            say(
                f"{key.replace('_', ' ')}: {value:.4g}"
                if isinstance(value, float)
                else f"{key.replace('_', ' ')}: {value}"
            )
        if rivals:
            say(
                table(
                    [(r["name"], r["rmse"], r["aicc"], r["weight"]) for r in rivals],
                    ("rival", "rmse", "AICc", "weight"),
                )
            )
    for sentence in result.warnings:
        say(f"\nwarning: {sentence}")
