"""Settings of a run of the toy model, and the named sets of them: a preset is a row, not a branch.

Source: arXiv:2505.10465, appendix on toy models (`small` and `large`).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from llmprobe.errors import ConfigError
from llmprobe.observations import Scalar
from toymodels.superposition.features import AMPLITUDE_LAWS, FREQUENCY_LAWS

REFERENCE_WIDTH = 8  # width at which a rate is quoted when it depends on the width


@dataclass(frozen=True, kw_only=True)
class SuperpositionConfig:
    """Everything that decides the outcome of a run; what does not (device, threads, folders) is not here.

    Attributes
    ----------
    n, m
        Features and width (m ≤ n).
    frequency_law
        ``power``, ``exponential``, ``linear``, or a file of n weights.
    data_exponent
        α of the power law p_i ∝ i^(−α).
    decay_length
        τ of the exponential law, in features.
    activation_density
        E = Σ p_i, features active in a sample.
    amplitude_law
        ``uniform`` on (0, 2), ``constant`` 1, or ``exponential`` with mean 1.
    importance
        Feature i weighs importance^(i−1) in the loss (Elhage et al. 2022); 1 weighs all alike.
    weight_decay
        γ: decay for γ ≥ 0, growth to unit row norm for γ < 0.
    batch, steps, seed
        Rows per step, steps, seed of start and data.
    rate, rate_exponent
        Peak rate of W: rate · (8/m)^rate_exponent.
    bias_rate, bias_rate_exponent
        The same for b.
    bias_start
        b starts from N(0, bias_start²): 1 as published, which leaves features whose b is too low ever to fire.
    warmup
        Share of the steps with a linearly rising rate; then a cosine.
    final_rate
        Rate at the end, as a share of the peak.
    average
        Steps at the end whose mean loss is reported.
    """

    n: int = 1000
    m: int = 10
    frequency_law: str = "power"
    data_exponent: float = 1.0
    decay_length: float = 400.0
    activation_density: float = 1.0
    amplitude_law: str = "uniform"
    importance: float = 1.0
    weight_decay: float = -1.0
    batch: int = 2048
    steps: int = 20000
    seed: int = 0
    rate: float = 0.01
    rate_exponent: float = 0.0
    bias_rate: float = 0.01
    bias_rate_exponent: float = 0.0
    bias_start: float = 1.0
    warmup: float = 0.1
    final_rate: float = 0.05
    average: int = 100

    def __post_init__(self) -> None:
        for name in ("n", "m", "batch", "steps", "average"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}", expected="at least 1")
        if self.m > self.n:
            raise ConfigError(
                f"width m = {self.m} with n = {self.n} features",
                expected="m ≤ n: with more dimensions than features there is nothing to superpose",
                fix="lower --widths or raise --n",
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.final_rate <= 1:
            raise ConfigError(
                f"warmup = {self.warmup:g}, final_rate = {self.final_rate:g}", expected="shares between 0 and 1"
            )
        if not (self.rate > 0 and self.bias_rate > 0 and self.importance > 0 and self.decay_length > 0):
            raise ConfigError(
                f"rate = {self.rate:g}, bias_rate = {self.bias_rate:g}, importance = {self.importance:g}, "
                f"decay_length = {self.decay_length:g}",
                expected="numbers above 0",
            )
        if self.bias_start < 0:
            raise ConfigError(f"bias_start = {self.bias_start:g}", expected="a standard deviation, at least 0")
        if self.amplitude_law not in AMPLITUDE_LAWS:
            raise ConfigError(f"amplitude law {self.amplitude_law!r}", expected=f"one of {', '.join(AMPLITUDE_LAWS)}")
        if abs(self.weight_decay) * self.peak_rate >= 1:
            raise ConfigError(
                f"weight decay {self.weight_decay:g} at rate {self.peak_rate:g} moves a row by its whole length a step",
                expected="|weight_decay| · rate below 1",
            )

    @property
    def peak_rate(self) -> float:
        """Largest rate of W."""
        return self.rate * (REFERENCE_WIDTH / self.m) ** self.rate_exponent

    @property
    def peak_bias_rate(self) -> float:
        """Largest rate of b."""
        return self.bias_rate * (REFERENCE_WIDTH / self.m) ** self.bias_rate_exponent

    @property
    def regime(self) -> str:
        """``strong`` (growth) or ``weak`` (decay): what the sign of γ is meant to bring about."""
        return "strong" if self.weight_decay < 0 else "weak"

    def settings(self) -> dict[str, Scalar]:
        """What identifies a run beside n, m and its steps; a file of weights counts by its content."""
        values: dict[str, Scalar] = {k: v for k, v in asdict(self).items() if k not in ("n", "m", "steps")}
        if self.bias_start == 1:
            del values["bias_start"]  # runs from before there was a choice are still found
        if self.frequency_law not in FREQUENCY_LAWS and Path(self.frequency_law).is_file():
            content = Path(self.frequency_law).read_bytes()
            values["frequency_law"] = f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"
        return values


# what the paper trains, and a smaller version of it for a first look
PRESETS: dict[str, dict[str, Scalar]] = {
    "small": {},
    "large": {
        "n": 10240,
        "batch": 8192,
        "steps": 40000,
        "data_exponent": 1.2,
        "warmup": 0.05,
        "rate": 0.02,
        "rate_exponent": 0.25,
        "bias_rate": 0.25,
        "bias_rate_exponent": 1.0,
    },
    # a twentieth of `small`: both regimes already show at γ = −1 (exponent about 1) and γ = 0.1 (about 0.4)
    "quick": {"batch": 512, "steps": 4000, "rate": 0.02, "bias_rate": 0.02},
}
WIDTHS: dict[str, tuple[int, ...]] = {
    "small": (10, 15, 25, 39, 63, 100),
    "large": (8, 16, 32, 64, 128, 256, 512, 1024),
    "quick": (10, 16, 25, 40, 63, 100),
}


def preset(name: str, **changes: Scalar) -> SuperpositionConfig:
    """The named settings with changes."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r}", expected=f"one of {', '.join(PRESETS)}")
    return SuperpositionConfig(**{**PRESETS[name], **changes})  # type: ignore[arg-type]
