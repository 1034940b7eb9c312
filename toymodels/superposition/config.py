"""Settings of a run of the toy model, and the named sets of them: a preset is a row, not a branch.

Source: arXiv:2505.10465, appendix on toy models (`small` and `large`).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import ConfigError
from llmprobe.observations import Scalar
from llmprobe.settings import Count, Natural, NonNegative, Positive, Settings, Share, Within, one_of
from toymodels.superposition.features import FREQUENCY_LAWS, frequencies

REFERENCE_WIDTH = 8  # width at which a rate is quoted when it depends on the width


@dataclass(frozen=True, kw_only=True)
class SuperpositionConfig(Settings):
    """Everything that decides the outcome of a run; what does not (device, threads, folders) is not here.

    Raises
    ------
    SettingError
        A number out of range; m > n.
    ConfigError
        A weight decay that moves a row by its whole length a step.
    """

    n: Count = 1000
    """Features."""
    m: Annotated[Count, tyro.conf.Suppress] = 10
    """Width, m ≤ n. (The command line takes several as --widths.)"""
    frequency_law: str = "power"
    """power, exponential, linear, or a file of n weights."""
    data_exponent: float = 1.0
    """α of the power law p_i ∝ i^(−α)."""
    decay_length: Positive = 400.0
    """τ of the exponential law, in features."""
    activation_density: Positive = 1.0
    """E = Σ p_i, features active in a sample."""
    amplitude_law: Literal["uniform", "constant", "exponential"] = "uniform"
    """Of v: uniform on (0, 2), constant 1, or exponential with mean 1."""
    importance: Positive = 1.0
    """Feature i weighs importance^(i−1) in the loss (Elhage et al. 2022); 1 weighs all alike."""
    weight_decay: float = -1.0
    """γ: decay for γ ≥ 0 (weak superposition), growth to unit row norm for γ < 0 (strong)."""
    batch: Count = 2048
    """Rows per step."""
    steps: Count = 20000
    """Steps."""
    seed: Natural = 0
    """Of start and data."""
    rate: Positive = 0.01
    """Peak rate of W: rate · (8/m)^rate_exponent."""
    rate_exponent: float = 0.0
    """How the rate of W depends on the width."""
    bias_rate: Positive = 0.01
    """Peak rate of b: bias_rate · (8/m)^bias_rate_exponent."""
    bias_rate_exponent: float = 0.0
    """How the rate of b depends on the width."""
    bias_start: NonNegative = 1.0
    """b starts from N(0, bias_start²): 1 as published, which leaves features whose b is too low ever to fire."""
    warmup: Annotated[float, Within(0.0, 0.999)] = 0.1
    """Share of the steps with a linearly rising rate; then a cosine."""
    final_rate: Share = 0.05
    """Rate at the end, as a share of the peak."""
    average: Count = 100
    """Steps at the end whose mean loss is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m > self.n:
            raise ConfigError(
                f"width m = {self.m} with n = {self.n} features",
                expected="m ≤ n: with more dimensions than features there is nothing to superpose",
                fix="lower --widths or raise --n",
            )
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

    def frequencies(self) -> Float[Tensor, " n"]:
        """p_i of these features."""
        law, length = self.frequency_law, self.decay_length
        return frequencies(law, self.n, density=self.activation_density, exponent=self.data_exponent, length=length)

    def settings(self) -> dict[str, Scalar]:
        """What identifies a run; a file of weights counts by its content."""
        values: dict[str, Scalar] = asdict(self)
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
    return SuperpositionConfig(**{**PRESETS[one_of("preset", name, PRESETS)], **changes})  # type: ignore[arg-type]
