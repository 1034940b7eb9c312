"""The answer in three sentences: which regime, what the toys do there, and whether real losses agree.

Each says what the observations carry and no more; what they do not identify is said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmprobe.overlap.regime import RULE
from llmprobe.report.exponents import Exponent
from llmprobe.report.measured import Matrix
from llmprobe.report.numbers import told

NECESSARY = (
    "Being represented is necessary, not evidence of learning: random rows are, too. What training adds is in the "
    "centered overlap against 1/m and in how it goes with token frequency."
)


def verdict(found: Sequence[Exponent], matrices: Sequence[Matrix]) -> list[str]:
    """The sentences, the most important first; fewer where the observations carry fewer."""
    widths = [e for e in found if e.quantity == "loss vs width"]
    return [s for s in (regime_sentence(matrices), toy_sentence(widths), real_sentence(widths, matrices)) if s]


def regime_sentence(matrices: Sequence[Matrix]) -> str:
    """Where the models lie, beside what the controls and toys of the run would have shown."""
    models = [matrix for matrix in matrices if matrix.kind == "llm" and math.isfinite(matrix.value("superposition"))]
    if not models:
        return ""
    controls = control_clause(matrices)
    if len(models) == 1:
        (one,) = models
        return f"{placed(one)}{f'; {controls}' if controls else ''}."
    parts = []
    for word in ("strong", "weak", "cannot tell"):
        here = [m for m in models if m.regime == word]
        lead = f"{len(here)} of {len(models)} models " + ("cannot be told" if word == "cannot tell" else f"are {word}")
        if here:
            names = ", ".join(f"{m.name} {m.value('superposition'):.2f}" for m in here[:6])
            parts.append(f"{lead} ({names}{', …' if len(here) > 6 else ''})")
    return f"Superposition: {'; '.join(parts)}{f'; {controls}' if controls else ''}."


def placed(matrix: Matrix) -> str:
    """One matrix in words."""
    error = matrix.errors.get("superposition", 0.0)
    coordinate = f"{matrix.value('superposition'):.3f}{f' ± {error:.3f}' if error else ''}"
    overlap = matrix.times_m("centered_mean_sq_cos")
    size = f"{matrix.n} rows in {matrix.m} dimensions"
    about = f", centered mean c² {overlap:.3g}/m" if math.isfinite(overlap) else ""
    says = {
        "strong": f"{matrix.name} lies in the strong superposition regime",
        "weak": f"{matrix.name} lies in the weak superposition regime",
        "cannot tell": f"The regime of {matrix.name} cannot be told",
    }[matrix.regime]
    return f"{says} (coordinate {coordinate}: {size}{about})"


def control_clause(matrices: Sequence[Matrix]) -> str:
    """What the same measure gives for rows nobody trained, and for toys of either regime."""
    parts = []
    groups = {
        "random rows of the same norms": [m for m in matrices if m.kind == "control"],
        "toys with growth": [m for m in matrices if m.family == "toy-strong"],
        "toys with decay": [m for m in matrices if m.family == "toy-weak"],
    }
    for name, group in groups.items():
        values = [m.value("superposition") for m in group if math.isfinite(m.value("superposition"))]
        if values:
            low, high = min(values), max(values)
            parts.append(f"{name} have {low:.2f}{f' to {high:.2f}' if high - low > 0.005 else ''}")
    return "in the same run " + ", ".join(parts) if parts else ""


def toy_sentence(widths: Sequence[Exponent]) -> str:
    """What the toys' losses do with width."""
    toys = [e for e in widths if e.kind == "toy"]
    listed = "; ".join(f"{e.name}: {told(e)}" for e in toys[:4])
    more = f" and {len(toys) - 4} more" if len(toys) > 4 else ""
    return f"Toy loss falls with width with exponent {listed}{more} (strong predicts 1)." if toys else ""


def real_sentence(widths: Sequence[Exponent], matrices: Sequence[Matrix]) -> str:
    """What language models' losses do, and how far that is from the toys."""
    real = [e for e in widths if e.kind == "llm"]
    sure = [e for e in real if e.identified]
    others = [e for e in widths if e.kind == "published" and e.about == "llm"]
    printed = min(others, key=lambda e: e.fit is None, default=None)  # a refit with its own interval comes first
    gap = _gap(
        next((e for e in widths if e.kind == "toy" and e.family == "toy-strong"), None), sure[-1] if sure else printed
    )
    if sure:
        return f"Language models of this run: {'; '.join(f'{e.name} {told(e)}' for e in real[:4])}{gap}."
    if not real and not any(m.kind == "llm" for m in matrices):
        return ""
    why = told(real[-1]) if real else "not identified: it takes several models of different width"
    known = f" The published models give {told(printed)}{gap}." if printed else ""
    return f"The width exponent of language models in this run: {why}.{known}"


def _gap(toy: Exponent | None, real: Exponent | None) -> str:
    if not toy or not real or not toy.identified or not (toy.stderr > 0 and real.stderr > 0):
        return ""
    error = math.hypot(toy.stderr, real.stderr)
    away = (toy.value - real.value) / error
    return f"; the toy with growth differs by {toy.value - real.value:+.2f} ± {error:.2f} ({abs(away):.1f} σ)"


def footnote(matrices: Sequence[Matrix]) -> str:
    """The rule of the verdict, and what it cannot show."""
    return f"Rule — {RULE}. {NECESSARY}" if any(m.kind == "llm" for m in matrices) else ""
