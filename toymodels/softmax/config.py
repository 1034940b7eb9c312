"""What identifies a run of the softmax toy.

Source: arXiv:2602.03685.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from llmprobe.observations import Scalar
from llmprobe.schedule import Schedule
from llmprobe.settings import Count, Natural, Positive, Settings, Share, Within


@dataclass(frozen=True, kw_only=True)
class SoftmaxConfig(Settings):
    """A student head learns a teacher head's next-token distribution.

    Raises
    ------
    SettingError
        A number out of range.
    ConfigError
        A warm-up as long as the training.
    """

    vocabulary: Annotated[int, Within(2.0)] = 128
    """Tokens V: rows of the heads."""
    width: Annotated[int, Within(2.0)] = 32
    """Width m: columns of the heads."""
    temperature: Positive = 0.001
    """T: the teacher's logits are divided by it; targets are peaked where T ≪ 1 and soft where T ≳ 0.1."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """adam (0.9, 0.999, 1e-8) or plain sgd."""
    rate: Positive = 0.1
    """Peak learning rate."""
    warmup: Natural = 0
    """Steps of linear warm-up."""
    final_rate: Share = 1.0
    """Rate at the last step as a share of the peak, by a cosine; 1 keeps it constant."""
    batch: Count = 1024
    """Fresh inputs per step."""
    steps: Count = 2000
    """Steps."""
    seed: Natural = 0
    """Of teacher and inputs; runs of one seed see the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.schedule  # refuses a warm-up as long as the training

    @property
    def schedule(self) -> Schedule:
        """The rate at each step, and τ."""
        return Schedule(peak=self.rate, steps=self.steps, warmup=self.warmup, final=self.final_rate)

    def settings(self) -> dict[str, Scalar]:
        """What identifies a run."""
        return asdict(self)
