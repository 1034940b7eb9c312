"""The commands of the kill matrix: one process each, and the same work by a recipe's workers."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from checkpoints import make_model, make_tokenizer, save
from killing import Job, size
from loopback_hub import LoopbackHub
from safetensors.numpy import save_file

from llmprobe.observations import Observation, ObservationStore
from llmprobe.weights.ranged_download import PIECE, THREADS

LLMPROBE = (sys.executable, "-c", "import sys; from llmprobe.cli import main; sys.exit(main())")
TOYMODELS = (sys.executable, str(Path(__file__).with_name("eager_toymodels.py")))
RECIPES = Path(__file__).parents[1] / "recipes"
WORDS = "the cat sat on the mat. a theory that fits at last. "


@dataclass(frozen=True)
class Inputs:
    """What the commands read: tiny models, a text that takes a second or two to score, a Hub that takes its time."""

    folder: Path
    hub: LoopbackHub

    @classmethod
    def made(cls, folder: Path, hub: LoopbackHub) -> Inputs:
        inputs = cls(folder, hub)
        for m in (16, 32):
            save(make_model("llama", hidden_size=m), folder / f"m{m}")
            make_tokenizer().save_pretrained(folder / f"m{m}")
        (folder / "text.jsonl").write_text("".join(f'{{"text": "{WORDS * (9 + i % 5)}"}}\n' for i in range(120)))
        W = np.random.default_rng(0).normal(size=(48 << 10, 256)).astype(np.float32)  # 48 MiB: six pieces
        (folder / "slow").mkdir()
        save_file({"lm_head.weight": W}, folder / "slow" / "model.safetensors")
        hub.add("me/slow", folder / "slow", pause=1.0)
        narrow, wide = str(folder / "m16"), str(folder / "m32")
        families = {"losses": (narrow, wide), "conversions": ("sample:smollm2-135m",), "transfers": ("me/slow",)}
        for name, members in families.items():
            rows = ", ".join(f'{{ id = "{member}", m = {16 + i} }}' for i, member in enumerate(members))
            (folder / f"{name}.toml").write_text(f"[{name}]\nmembers = [{rows}]\n")
        return inputs

    def recipe(self, name: str, family: str, out: Path, options: str) -> tuple[str, ...]:
        """A recipe run by two workers on the models of one of the families above."""
        own = ("--toml", str(self.folder / f"{family}.toml"), "--families", family, "--workers", "2", "--out", str(out))
        return (sys.executable, str(RECIPES / f"{name}.py"), *own, *options.split())


def sweep(inputs: Inputs, out: Path) -> Job:
    options = "--preset quick --n 200 --widths 5 9 --batch 512 --steps 900 --workers 2"
    command = (*TOYMODELS, "superposition", *options.split(), "--store", str(out / "observations.jsonl"))
    return Job(command, out, busy=lambda: size(out / "checkpoints", "*.safetensors") > 0, workers=True)


def _scored(out: Path) -> Callable[[], bool]:
    return lambda: size(out / "cache" / "loss", "*.jsonl") > 4000


def loss(inputs: Inputs, out: Path) -> Job:
    options = f"--corpus {inputs.folder}/text.jsonl --context 32 --batch-tokens 64 --store {out}/observations.jsonl"
    return Job((*LLMPROBE, "loss", str(inputs.folder / "m32"), *options.split()), out, busy=_scored(out))


def losses(inputs: Inputs, out: Path) -> Job:
    options = f"--corpora {inputs.folder}/text.jsonl --context 32 --batch-tokens 64"
    command = inputs.recipe("llm_loss_vs_width", "losses", out, options)
    return Job(command, out, busy=_scored(out), workers=True)


def _converting(out: Path) -> Callable[[], bool]:
    return lambda: size(out / "cache" / "gguf", ".unfinished-*") > 0


def conversion(inputs: Inputs, out: Path) -> Job:
    options = f"--corpus {inputs.folder}/text.jsonl --max-tokens 32 --context 32 --store {out}/observations.jsonl"
    return Job((*LLMPROBE, "loss", "sample:smollm2-135m", *options.split()), out, busy=_converting(out))


def conversions(inputs: Inputs, out: Path) -> Job:
    options = f"--corpora {inputs.folder}/text.jsonl --max-tokens 32 --context 32"
    command = inputs.recipe("llm_loss_vs_width", "conversions", out, options)
    return Job(command, out, busy=_converting(out), workers=True)


def _transfer(inputs: Inputs, out: Path, command: tuple[str, ...], *, workers: bool) -> Job:
    ranges = inputs.hub.ranges
    ranges.clear()

    def no_piece_twice() -> bool:
        """Whether only what was under way when the command was killed was asked for again."""
        return sum(n > 1 for (first, last), n in ranges.items() if last - first + 1 >= PIECE) <= THREADS

    pieces = out / "cache" / "partial"
    return Job(command, out, busy=lambda: size(pieces, "*/0*") > 0, workers=workers, told=no_piece_twice)


def transfer(inputs: Inputs, out: Path) -> Job:
    options = f"--method sampled --rows 64 --store {out}/observations.jsonl"
    return _transfer(inputs, out, (*LLMPROBE, "overlap", "me/slow", *options.split()), workers=False)


def transfers(inputs: Inputs, out: Path) -> Job:
    command = inputs.recipe("llm_overlaps", "transfers", out, "--method sampled --rows 64")
    return _transfer(inputs, out, command, workers=True)


def report(inputs: Inputs, out: Path) -> Job:
    store = ObservationStore(out / "observations.jsonl")
    if not store.path.exists():
        store.append(
            *(
                Observation(
                    study="s", source_kind="llm", metric="loss", value=1 + 5 / 2**i, unit="nats", family=family,
                    model=f"{family}{i}", corpus="c", m=2 ** (4 + i), n_samples=10, stderr=0.01,
                )
                for i, family in itertools.product(range(6), ("a", "b"))
            )
        )  # fmt: skip
    return Job((*LLMPROBE, "report", str(out)), out, busy=lambda: size(out, "*.png") > 0)


WITH_WORKERS = ("parent", "worker", "group")
ALONE = ("parent",)  # one process, as each case checks: its group is the process itself
COMMANDS: dict[str, tuple[Callable[[Inputs, Path], Job], tuple[str, ...]]] = {
    "sweep": (sweep, WITH_WORKERS),
    "loss": (loss, ALONE),
    "losses": (losses, WITH_WORKERS),
    "conversion": (conversion, ALONE),
    "conversions": (conversions, WITH_WORKERS),
    "transfer": (transfer, ALONE),
    "transfers": (transfers, WITH_WORKERS),
    "report": (report, ("parent", "group")),  # only ever one process: there is no worker to kill
}
