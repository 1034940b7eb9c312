"""Which features are active in a sample, how often and how strongly; batches drawn at the cost of what is active.

Feature i of n is active with probability p_i, Σ p_i = E (the activation density), with an amplitude v of mean 1.
A row of a batch holds E active features on average, so a batch is a short list of events (row, feature, amplitude),
never a matrix. Features have independent Poisson numbers of events with rates −ln(1 − p_i) per row; an event that
falls on a row already taken is dropped. P(no event) = 1 − p_i, so this *is* independent Bernoulli(p_i).

Source: arXiv:2505.10465, section 3 and its appendix on toy models; amplitude laws after Elhage et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from llmprobe.errors import ConfigError

ALMOST_ALWAYS = 0.9  # above this probability, drawing every row is cheaper than dropping duplicates
CHUNK_EVENTS = 65536  # events drawn, sorted and laid out at once; part of what a seed means


@dataclass(frozen=True)
class Amplitude:
    """A law of amplitudes with mean 1: `draw` maps uniform numbers on [0, 1); `mean_square` is ⟨v²⟩."""

    draw: Callable[[Tensor], Tensor]
    mean_square: float


# shape of p before scaling: rank (1..n, float64), n, exponent α, decay length τ
FREQUENCY_LAWS: dict[str, Callable[[Tensor, int, float, float], Tensor]] = {
    "power": lambda rank, n, exponent, length: rank**-exponent,
    "exponential": lambda rank, n, exponent, length: torch.exp(-rank / length),
    "linear": lambda rank, n, exponent, length: n + 1 - rank,  # n − i counted from 0: the last feature is not dead
}
AMPLITUDE_LAWS: dict[str, Amplitude] = {
    "uniform": Amplitude(lambda u: 2 * u, 4 / 3),
    "constant": Amplitude(torch.ones_like, 1.0),
    "exponential": Amplitude(lambda u: -torch.log1p(-u), 2.0),
}


def frequencies(
    law: str, n: int, *, density: float = 1.0, exponent: float = 1.0, length: float = 400.0
) -> Float[Tensor, " n"]:
    """Probabilities p_1..p_n of being active, float64, with Σ p_i = `density`.

    Parameters
    ----------
    law
        A row of `FREQUENCY_LAWS`, or a text or ``.npy`` file of n non-negative weights.
    density
        Activation density E, in active features per sample.
    exponent, length
        α of the power law; τ of the exponential, in features.

    Raises
    ------
    ConfigError
        Unknown law, unreadable or unfit file, or a density that would need some p_i > 1.
    """
    if law in FREQUENCY_LAWS:
        weights = FREQUENCY_LAWS[law](torch.arange(1, n + 1, dtype=torch.float64), n, exponent, length)
    else:
        weights = _read_weights(law, n)
    return scaled(weights, density)


def scaled(weights: Float[Tensor, " n"], density: float) -> Float[Tensor, " n"]:
    """Non-negative weights scaled to probabilities of sum `density`; `ConfigError` where that cannot be."""
    weights = weights.double()
    if not bool(torch.isfinite(weights).all()) or float(weights.min()) < 0 or float(weights.sum()) <= 0:
        raise ConfigError("feature weights hold a negative, infinite or NaN value", expected="non-negative weights")
    p = density * weights / weights.sum()
    if not density > 0 or float(p.max()) > 1 + 1e-9:
        raise ConfigError(
            f"activation density {density:g} gives probabilities from {float(p.min()):.3g} to {float(p.max()):.3g}",
            expected=f"a density above 0 and at most {float(weights.sum() / weights.max()):.4g} for this law",
            fix="lower --activation-density",
        )
    return p.clamp(max=1.0)


def _read_weights(law: str, n: int) -> Tensor:
    path = Path(law)
    if not path.is_file():
        raise ConfigError(
            f"frequency law {law!r}", expected=f"one of {', '.join(FREQUENCY_LAWS)}, or a file of {n} weights"
        )
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
        weights = torch.from_numpy(np.asarray(values, dtype=np.float64))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} is not a list of numbers: {error}", fix="write one weight per line") from error
    if weights.shape != (n,):
        raise ConfigError(f"{path} holds {tuple(weights.shape)} weights", expected=f"{n}, one per feature")
    return weights


@dataclass(frozen=True)
class Batch:
    """The active features of one step for R replicas, rows without any left out.

    A slot is a row with an active feature: slot = replica · rows + its place among the replica's occupied rows,
    padded at the end to the same number of `rows` in each replica. A unit is replica · n + feature.

    Attributes
    ----------
    rows
        Slots per replica.
    occupied
        1 for a slot in use, 0 for padding, shape [R · rows].
    empty
        Rows without an active feature, per replica, shape [R].
    slot, unit, value
        The events, sorted by slot and then by unit, shape [events].
    slot_start
        Where each slot's events begin, shape [R · rows].
    unit_slot, unit_value, unit_start
        The same events sorted by unit, and where each unit's begin (shape [R · n]).
    """

    rows: int
    occupied: Float[Tensor, " slots"]
    empty: Float[Tensor, " replicas"]
    slot: Int[Tensor, " events"]
    unit: Int[Tensor, " events"]
    value: Float[Tensor, " events"]
    slot_start: Int[Tensor, " slots"]
    unit_slot: Int[Tensor, " events"]
    unit_value: Float[Tensor, " events"]
    unit_start: Int[Tensor, " units"]

    def dense(self, n: int) -> Float[Tensor, "replicas rows n"]:
        """The occupied rows as a plain array: for tests and for models written without regard to sparsity."""
        x = self.value.new_zeros(len(self.occupied), n)
        x[self.slot, self.unit % n] = self.value
        return x.view(-1, self.rows, n)


class Sampler:
    """Endless batches for R replicas, each replica with its own generator and its own frequencies.

    Parameters
    ----------
    probabilities
        p for each replica, shape [R, n].
    batch
        Rows per replica and step.
    seeds
        One per replica; a replica's batches do not depend on its neighbours.
    amplitude
        A row of `AMPLITUDE_LAWS`.
    device, dtype
        Of the batches. CUDA draws there; any other device receives what the CPU drew.
    """

    def __init__(
        self,
        probabilities: Float[Tensor, "replicas n"],
        batch: int,
        seeds: Sequence[int],
        *,
        amplitude: str = "uniform",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if amplitude not in AMPLITUDE_LAWS:
            raise ConfigError(f"amplitude law {amplitude!r}", expected=f"one of {', '.join(AMPLITUDE_LAWS)}")
        self.device, self.dtype = torch.device(device), dtype
        self.home = self.device if self.device.type == "cuda" else torch.device("cpu")
        self.replicas, self.n = probabilities.shape
        self.batch, self.amplitude = batch, AMPLITUDE_LAWS[amplitude]
        self.steps = max(1, CHUNK_EVENTS // batch)
        self.p = probabilities.double().to(self.home)
        self.often = [(row > ALMOST_ALWAYS).nonzero()[:, 0] for row in self.p]
        rates = -torch.log1p(-self.p.masked_fill(self.p > ALMOST_ALWAYS, 0))
        self.expected = rates * (self.steps * batch)
        self.generators = [torch.Generator(self.home).manual_seed(seed) for seed in seeds]
        self.ids = torch.arange(self.n, device=self.home)

    def state(self) -> UInt8[Tensor, "replicas bytes"]:
        """What to keep to go on from the end of the current chunk; see `restore`."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def restore(self, state: UInt8[Tensor, "replicas bytes"]) -> None:
        """Go on where `state` was taken."""
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.cpu())

    def chunk(self) -> Iterator[Batch]:
        """The next `steps` batches; drawn all at once, handed out one by one."""
        drawn = [self._draw(replica) for replica in range(self.replicas)]
        key, value = torch.cat([k for k, _ in drawn]), torch.cat([v for _, v in drawn])
        if self.replicas > 1:
            key, order = key.sort()
            value = value[order]
        yield from self._layout(key, value)

    def _draw(self, replica: int) -> tuple[Tensor, Tensor]:
        """Sorted keys ((step · R + replica) · batch + row) · n + feature of one replica's chunk, and amplitudes."""
        generator, total = self.generators[replica], self.steps * self.batch
        counts = torch.poisson(self.expected[replica], generator).long()
        feature = torch.repeat_interleave(self.ids, counts)
        row = torch.randint(total, feature.shape, generator=generator, device=self.home)
        key = row * self.n + feature
        often = self.often[replica]
        if len(often):
            uniform = torch.rand(total, len(often), generator=generator, device=self.home, dtype=torch.float64)
            row, column = (uniform < self.p[replica, often]).nonzero(as_tuple=True)
            key = torch.cat([key, row * self.n + often[column]])
        key = _sort(key)
        key = key[torch.cat([key.new_ones(1, dtype=torch.bool), key[1:] != key[:-1]])[: len(key)]]
        value = self.amplitude.draw(torch.rand(key.shape, generator=generator, device=self.home, dtype=self.dtype))
        if self.replicas > 1:
            span = self.batch * self.n
            key = key + (key // span * (self.replicas - 1) + replica) * span
        return key, value

    def _layout(self, key: Tensor, value: Tensor) -> Iterator[Batch]:
        R, n, groups = self.replicas, self.n, self.steps * self.replicas
        row = torch.div(key, n, rounding_mode="floor")
        feature = key - row * n
        group = torch.div(row, self.batch, rounding_mode="floor")  # step · R + replica
        first = torch.cat([row.new_ones(1, dtype=torch.bool), row[1:] != row[:-1]])[: len(row)]
        place = first.long().cumsum(0) - 1  # occupied rows are numbered through the chunk
        occupied = _counts(group[first], groups)
        events = _counts(group, groups).view(-1, R).sum(1).tolist()
        rows = occupied.view(-1, R).amax(1).clamp(min=1)
        before = occupied.cumsum(0) - occupied
        replica = group % R
        slot = place - before[group] + replica * rows[torch.div(group, R, rounding_mode="floor")]
        unit = feature + replica * n
        # sorting (group, feature) with the event's position in the low bits gives order and position in one sort
        bits = max(1, len(key)).bit_length()
        position = _sort(((group * n + feature) << bits) + torch.arange(len(key), device=key.device))
        position = position & ((1 << bits) - 1)
        unit_counts = _counts(group * n + feature, groups * n).view(-1, R * n)
        unit_start = unit_counts.cumsum(1) - unit_counts
        unit_slot, unit_value = slot[position], value[position]
        start = 0
        for step, (size, height) in enumerate(zip(events, rows.tolist(), strict=True)):
            here = slice(start, start + size)
            start += size
            used = occupied[step * R : (step + 1) * R]
            per_slot = _counts(slot[here], R * height)
            yield Batch(
                rows=height,
                occupied=(torch.arange(height, device=self.home) < used[:, None]).view(-1).to(self.device, self.dtype),
                empty=(self.batch - used).to(self.device, self.dtype),
                slot=slot[here].to(self.device),
                unit=unit[here].to(self.device),
                value=value[here].to(self.device),
                slot_start=(per_slot.cumsum(0) - per_slot).to(self.device),
                unit_slot=unit_slot[here].to(self.device),
                unit_value=unit_value[here].to(self.device),
                unit_start=unit_start[step].to(self.device),
            )


def _counts(index: Tensor, length: int) -> Tensor:
    """How often each of 0..length−1 occurs; unlike `bincount` it never waits for the device."""
    return index.new_zeros(length).scatter_add_(0, index, torch.ones_like(index))


def _sort(keys: Tensor) -> Tensor:
    """Sorted integers; numpy's vectorised sort is several times faster than torch's on a CPU."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy()))
    return keys.sort().values
