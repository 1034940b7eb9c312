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
        self.bits = self.n.bit_length()

    def state(self) -> UInt8[Tensor, "replicas bytes"]:
        """What to keep to resume from the end of the current chunk; see `restore`."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def restore(self, state: UInt8[Tensor, "replicas bytes"]) -> None:
        """Resume where `state` was taken."""
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.cpu())

    def chunk(self) -> Iterator[Batch]:
        """The next `steps` batches; drawn and laid out all at once, handed out one by one."""
        drawn = [self._draw(replica) for replica in range(self.replicas)]
        if self.replicas == 1:
            return self._batches(*drawn[0])
        key, order = torch.cat([k for k, _ in drawn]).sort()
        return self._batches(key, torch.cat([v for _, v in drawn])[order])

    def _draw(self, replica: int) -> tuple[Tensor, Tensor]:
        """One replica's chunk: sorted keys (row number << bits | feature), and the amplitudes.

        Row numbers run through the chunk: (step · R + replica) · batch + row.
        """
        generator, total = self.generators[replica], self.steps * self.batch
        counts = torch.poisson(self.expected[replica], generator).long()
        feature = torch.repeat_interleave(self.ids, counts)
        row = torch.randint(total, feature.shape, generator=generator, device=self.home)
        key = row.bitwise_left_shift_(self.bits).bitwise_or_(feature)
        often = self.often[replica]
        if len(often):
            uniform = torch.rand(total, len(often), generator=generator, device=self.home, dtype=torch.float64)
            row, column = (uniform < self.p[replica, often]).nonzero(as_tuple=True)
            key = torch.cat([key, row << self.bits | often[column]])
        key = _sort(key)
        fresh = torch.ones_like(key, dtype=torch.bool)
        torch.ne(key[1:], key[:-1], out=fresh[1:])
        key = key[fresh]
        value = self.amplitude.draw(torch.rand(key.shape, generator=generator, device=self.home, dtype=self.dtype))
        if self.replicas > 1:
            step = torch.div(key >> self.bits, self.batch, rounding_mode="floor")
            key = key + ((step * (self.replicas - 1) + replica) * self.batch << self.bits)
        return key, value

    def _batches(self, key: Tensor, value: Tensor) -> Iterator[Batch]:
        """Batches of the sorted events of a chunk: E events, G = T · R groups of a step and a replica, S slots."""
        R, n, groups = self.replicas, self.n, self.steps * self.replicas  # group = step · R + replica
        feature, row = key & ((1 << self.bits) - 1), key >> self.bits  # [E] each
        edges = torch.arange(groups + 1, device=self.home) * self.batch << self.bits  # [G + 1]
        first = torch.searchsorted(key, edges)  # [G + 1]: where each group's events begin
        group = torch.repeat_interleave(torch.arange(groups, device=self.home), first.diff())  # [E]
        slot, occupied, rows, origin = self._slots(row, first, group)
        begin = first[:-1:R]  # [T]: where each step's events begin
        heights, starts, slots = rows.tolist(), begin.tolist(), origin.tolist()
        ends, last = [*starts[1:], len(key)], [*slots[1:], slots[-1] + R * heights[-1]]
        per_slot = _counts(slot, last[-1])  # [S]
        slot_start = per_slot.cumsum(0).sub_(per_slot)  # [S]: where each slot's events begin in its step
        slot_start -= torch.repeat_interleave(begin, rows * R)
        step = torch.div(group, R, rounding_mode="floor") if R > 1 else group  # [E]
        slot -= origin.index_select(0, step)
        unit = feature + (group % R) * n if R > 1 else feature  # [E]
        # sorting units with the event's position in the low bits gives their order in one sort
        code, low = step * (R * n) + unit, max(1, len(key)).bit_length()  # [E]
        position = _sort(code << low | torch.arange(len(key), device=self.home)) & ((1 << low) - 1)  # [E]
        per_unit = _counts(code, groups * n).view(-1, R * n)  # [T, R n]
        unit_start = per_unit.cumsum(1).sub_(per_unit)  # [T, R n]
        empty = self.batch - occupied  # [T, R]
        home = [per_slot.clamp(max=1).to(self.dtype), empty.to(self.dtype), slot, unit, value]
        home += [slot_start, slot.index_select(0, position), value.index_select(0, position), unit_start]
        used, empty, slot, unit, value, slot_start, unit_slot, unit_value, unit_start = (
            tensor.to(self.device) for tensor in home
        )
        for k in range(self.steps):
            here, rows_here = slice(starts[k], ends[k]), slice(slots[k], last[k])
            yield Batch(
                heights[k],
                used[rows_here],
                empty[k],
                slot[here],
                unit[here],
                value[here],
                slot_start[rows_here],
                unit_slot[here],
                unit_value[here],
                unit_start[k],
            )

    def _slots(self, row: Tensor, first: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slot of each event, numbered through the chunk with padding included [E]; occupied rows of each step and
        replica [T, R]; rows of each step, those of its fullest replica [T]; and the slot each step begins at [T]."""
        fresh = torch.ones_like(row)  # [E]: 1 where a row's first event stands
        fresh[1:] = row[1:] != row[:-1]
        place = torch.cat([fresh.new_zeros(1), fresh.cumsum(0)])  # [E + 1]: occupied rows before each event
        before = place[first]  # [G + 1]
        occupied = before.diff().view(-1, self.replicas)
        rows = occupied.amax(1).clamp(min=1)
        replica = torch.arange(self.replicas, device=self.home)
        base = (rows.cumsum(0) - rows)[:, None] * self.replicas + rows[:, None] * replica  # [T, R]: first slot of each
        slot = place[1:] - 1 + (base.view(-1) - before[:-1]).index_select(0, group)
        return slot, occupied, rows, base[:, 0]


def _counts(index: Tensor, length: int) -> Tensor:
    """How often each of 0..length−1 occurs; unlike `bincount` it never waits for the device."""
    return index.new_zeros(length).scatter_add_(0, index, torch.ones_like(index))


def _sort(keys: Tensor) -> Tensor:
    """Sorted integers; numpy's vectorized sort is several times faster than torch's on a CPU."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy()))
    return keys.sort().values
