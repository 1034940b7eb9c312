"""Nothing strays from its device: the batched steps on fake tensors of a device that is not the CPU.

Fake tensors have a shape and a device but no numbers, and an operation on two devices raises. torch without a GPU
runs all of these on the device type `lazy` (slices on a fake `cuda` need a driver).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.features import Batch, Sampler, frequencies
from toymodels.superposition.gradient import Gradient
from toymodels.superposition.optimizer import AdamW
from toymodels.superposition.training import initial
from toymodels.teacher.descent import Descent
from toymodels.teacher.population import Population
from toymodels.teacher.sampled import Rows, Samples
from toymodels.teacher.students import STUDENTS, Student, start
from toymodels.teacher.theory import Task

ELSEWHERE = "lazy"
CONFIG = SuperpositionConfig(n=12, m=4, batch=16, steps=5)
P = torch.stack([initial(CONFIG)] * 3)
BATCH = next(Sampler(torch.stack([frequencies("power", 12)] * 3), 16, [0, 1, 2]).chunk())
TASKS = [Task(12, 1.5, 0.5), Task(12, 1.1, 1.0)]


def away(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=ELSEWHERE)


def sent(holder: Batch | Rows) -> Batch | Rows:
    """The same with all its tensors elsewhere."""
    values = {entry.name: getattr(holder, entry.name) for entry in dataclasses.fields(holder)}
    return type(holder)(**{name: away(v) if isinstance(v, Tensor) else v for name, v in values.items()})


@pytest.fixture
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("gammas", [[-1.0, -1.0, -1.0], [-1.0, 0.0, 0.3]])
@pytest.mark.parametrize("importance", [False, True])
def test_the_batched_step_stays_on_its_device(gammas: list[float], importance: bool) -> None:
    there, weights = away(P), torch.ones(12, device=ELSEWHERE) if importance else None
    optimizer = AdamW(there, gammas)
    loss, gradient = Gradient(weights)(there, sent(BATCH))
    optimizer.step(gradient, 0.01, 0.02)
    assert {tensor.device.type for tensor in (loss, gradient, optimizer.mean, optimizer.P)} == {ELSEWHERE}


@pytest.mark.usefixtures("fake")
def test_a_stray_tensor_would_be_seen() -> None:
    with pytest.raises(RuntimeError, match="device"):
        Gradient(torch.ones(12))(away(P), sent(BATCH))


@pytest.mark.parametrize("row", [STUDENTS["small-bias"], STUDENTS["random"], STUDENTS["adam"]])
def test_students_stay_on_their_device(row: Student) -> None:
    starts = [start(row, 12, 6, seed) for seed in (0, 1)]
    W, B = (torch.stack(parts) for parts in zip(*starts, strict=True))
    model = (Samples if row.data == "sampled" else Population)(row, TASKS, [0, 1], W, B)
    with FakeTensorMode():
        model.params = {name: away(tensor) for name, tensor in model.params.items()}
        model.teacher = away(model.teacher)
        if isinstance(model, Samples):
            model.rows = sent(model.rows)
        else:
            model.weights = away(model.weights)
            model.forward()
        descent = Descent(row, [0.1, 0.2], model.params["B"])
        gradients = model.gradients()
        descent.step(model.params, gradients)
        assert {tensor.device.type for tensor in gradients.values()} == {ELSEWHERE}
