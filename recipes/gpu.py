"""Every path of a GPU behind one command: does it agree with the CPU, and how fast is it?

Each part has its own time and is kept in ``gpu.json`` as it ends; run again, the command goes on with what is not
there. What could not be done is said, and the exit status is then 1, as it is where device and CPU disagree.

    make gpu                                        at most ten minutes on one H100
    python recipes/gpu.py --tiny --device cpu       all parts, in seconds
"""

from __future__ import annotations

import json
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_parts import PARTS, Part, Place, Values
from tqdm import tqdm

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.device import pick_device
from llmprobe.errors import ProbeError
from llmprobe.settings import Device, Positive, Settings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Where to run what."""

    device: Device = "cuda"
    """cuda, or cpu to see that all parts run."""
    tiny: bool = False
    """Sizes of seconds, which say nothing of speed."""
    patience: Positive = 1.0
    """By how much the time of each part is multiplied."""
    out: Path = Path("runs/gpu")
    """Where ``gpu.json`` goes."""


class OutOfTimeError(ProbeError):
    """A part took longer than it may."""


def main(config: Config) -> int:
    """Run what is not in the file yet, and tabulate all; 1 where a part is missing or disagrees."""
    device = pick_device(config.device)
    path = config.out / "gpu.json"
    about = {"card": card(device), "device": device, "torch": torch.__version__, "tiny": config.tiny}
    results = kept(path, about)
    for name, part in (bar := tqdm(PARTS.items(), unit="part")):
        bar.set_description(name)
        if "values" in results.get(name, {}):
            continue
        seconds = part.seconds * config.patience
        results[name] = attempt(part, Place(device, config.tiny, seconds))
        with atomic(path) as temporary:
            temporary.write_text(json.dumps({**about, "parts": results}, indent=1), encoding="utf-8")
    return tell(about, results)


def card(device: str) -> str:
    """The card's own name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device}: {platform.processor() or platform.machine()}"


def kept(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Results in the file, if they are of this device, torch and size."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = found.pop("parts")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return dict(parts) if found == about else {}


def attempt(part: Part, place: Place) -> dict[str, Any]:
    """The values of a part, or why there are none."""
    began = time.perf_counter()
    try:
        with limited(place.seconds):
            values: Values = part.run(place)
    except (ProbeError, RuntimeError, MemoryError) as error:
        return {"could_not": " ".join(str(error).split())[:300] or type(error).__name__}
    finally:
        if place.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return {"values": values, "seconds": time.perf_counter() - began}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in a block that takes longer; a kernel that runs is waited for."""

    def stop(*_: object) -> None:
        raise OutOfTimeError(f"not done in {seconds:.3g} s", fix="give it more with --patience")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def disagreements(values: Values) -> list[str]:
    """Names of differences above their tolerance; one that is not a number is above it."""
    return [
        name for name, value in values.items()
        if name.startswith("difference ") and (most := values.get(name.replace("difference", "tolerance"))) is not None
        and not value <= most
    ]  # fmt: skip


def tell(about: dict[str, Any], results: dict[str, Any]) -> int:
    """Print the table; the exit status."""
    console.say(f"{about['card']}, torch {about['torch']}" + (", tiny sizes: no speeds" if about["tiny"] else ""))
    lines = [(name, what, value) for name in PARTS for what, value in results[name].get("values", {}).items()]
    console.say(console.table(lines, ("part", "what", "value")))
    wrong = [f"{name}: {what} is above its tolerance" for name in PARTS
             for what in disagreements(results[name].get("values", {}))]  # fmt: skip
    wrong += [f"could not: {PARTS[name].what}: {results[name]['could_not']}" for name in PARTS
              if "could_not" in results[name]]  # fmt: skip
    for line in wrong:
        console.say(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
