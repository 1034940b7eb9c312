"""Named comparisons of speed: ours against the ordinary way, in one process, alternating, so that a busy machine
slows both alike.

    python recipes/benchmark.py toy-step        (minutes; --quick in under three)

Each comparison is a function registered by its name; it prints a table of times and ratios.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig

from llmprobe.console import guarded, say, table
from llmprobe.errors import ConfigError
from llmprobe.loss.corpus import open_corpus
from llmprobe.loss.language_model import LanguageModel, load_model
from llmprobe.loss.scoring import score_windows
from llmprobe.loss.windows import Window, cut_windows
from llmprobe.overlap.statistics import overlap_statistics, second_moments
from llmprobe.weights.unembedding import read_unembedding
from toymodels.superposition.config import SuperpositionConfig, preset
from toymodels.superposition.training import Run, schedule, train

COMPARISONS: dict[str, Callable[[Options], None]] = {}


@dataclass(frozen=True)
class Options:
    """What to compare, and how thoroughly."""

    quick: bool = False
    threads: int = 1


def comparison(name: str) -> Callable[[Callable[[Options], None]], Callable[[Options], None]]:
    """Register a comparison under the name it has on the command line."""

    def register(function: Callable[[Options], None]) -> Callable[[Options], None]:
        COMPARISONS[name] = function
        return function

    return register


class DenseToy:
    """The toy model as one would first write it: dense batches, autograd, `torch.optim.AdamW`."""

    def __init__(self, config: SuperpositionConfig) -> None:
        c = self.config = config
        self.p = c.frequencies().float()
        self.generator = torch.Generator().manual_seed(c.seed)
        self.W = (torch.randn(c.n, c.m, generator=self.generator) / math.sqrt(c.m)).requires_grad_()
        self.b = torch.randn(c.n, generator=self.generator).requires_grad_()
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self.W], "weight_decay": max(0.0, c.weight_decay)},
                {"params": [self.b], "weight_decay": 0.0},
            ]
        )

    def step(self, share: float) -> Tensor:
        """One step at this share of the peak rate; the loss."""
        c, size = self.config, (self.config.batch, self.config.n)
        active = torch.rand(size, generator=self.generator) < self.p
        x = active * 2 * torch.rand(size, generator=self.generator)
        self.optimizer.zero_grad()
        y = torch.relu(x @ self.W @ self.W.T + self.b)
        loss = (y - x).square().sum(1).mean()
        (loss / c.n).backward()
        for group, rate in zip(self.optimizer.param_groups, (c.peak_rate, c.peak_bias_rate), strict=True):
            group["lr"] = rate * share
        if c.weight_decay < 0:
            with torch.no_grad():
                norm = self.W.norm(dim=1, keepdim=True)
                self.W += c.peak_rate * share * c.weight_decay * (1 - 1 / norm) * self.W
        self.optimizer.step()
        return loss.detach()


def race(config: SuperpositionConfig, first: int, last: int, every: int, dense_steps: int) -> tuple[float, float]:
    """Milliseconds per step, dense and ours, from step `first` to `last` of our run.

    Every `every` steps of ours, `dense_steps` of the dense model are timed; its cost does not depend on the step.
    Time is the processor's, which on one thread is the clock's less what other programs took.
    """
    run, dense = Run([config], torch.device("cpu")), DenseToy(config)
    share = schedule(config)
    dense.step(share[0])
    ours, theirs = 0.0, []
    for step in tqdm(range(0, last, every), desc=f"m={config.m}", unit=f"{every} steps", leave=False):
        began = time.process_time()
        run.advance(min(step + every, last))
        if step >= first:
            ours += time.process_time() - began
            for _ in range(dense_steps):
                began = time.process_time()
                dense.step(share[step])
                theirs.append(time.process_time() - began)
    return 1e3 * statistics.mean(theirs), 1e3 * ours / (last - first)


@comparison("toy-step")
def toy_step(options: Options) -> None:
    """The small protocol, whole schedule, n = 1000 and B = 2048: ours against the dense step."""
    steps = 4000 if options.quick else 20000
    cases = [("strong, α = 1", {"weight_decay": -1.0, "data_exponent": 1.0})]
    if not options.quick:
        cases += [
            ("strong, α = 0", {"weight_decay": -1.0, "data_exponent": 0.0}),
            ("weak, α = 1.5", {"weight_decay": 0.3, "data_exponent": 1.5}),
        ]
    for name, changes in cases:
        rows = []
        for m in (10, 25, 63, 100):
            config = preset("small", m=m, steps=steps, **changes)
            dense, ours = race(config, 0, steps, every=steps // 40, dense_steps=2)
            rows.append((m, dense, ours, dense / ours))
        mean = math.exp(statistics.mean(math.log(row[3]) for row in rows))
        say(f"{name}: {steps} steps at n = 1000, B = 2048, {options.threads} thread")
        say(table(rows, ["m", "dense ms/step", "ours ms/step", "ratio"]))
        say(f"geometric mean of the ratios: {mean:.1f}\n")


@comparison("toy-losses")
def toy_losses(options: Options) -> None:
    """Final losses of four seeds each, dense and ours: the speed must not have cost anything."""
    rows = []
    for m in (25,) if options.quick else (10, 25, 63, 100):
        found: dict[str, list[float]] = {"dense": [], "ours": []}
        for seed in tqdm(range(4), desc=f"m={m}", unit="seed", leave=False):
            config = preset("quick", m=m, seed=seed)
            dense = DenseToy(config)
            losses = [float(dense.step(share)) for share in schedule(config)]
            found["dense"].append(statistics.mean(losses[-config.average :]))
            found["ours"].append(train(config, device="cpu").loss)
        means = {name: statistics.mean(values) for name, values in found.items()}
        spreads = {name: statistics.stdev(values) for name, values in found.items()}
        error = math.hypot(*spreads.values()) / 2  # of a difference of means over four seeds
        rows.append(
            (m, means["dense"], spreads["dense"], means["ours"], spreads["ours"],
             (means["ours"] - means["dense"]) / error)
        )  # fmt: skip
    say("strong superposition, preset quick, seeds 0 to 3 (their starts and data differ between the two)")
    say(table(rows, ["m", "dense loss", "spread", "ours", "spread", "difference / its error"]))


@comparison("toy-large")
def toy_large(options: Options) -> None:
    """n = 10240, B = 8192, m = 64: a stretch after warm-up."""
    config = preset("large", m=64, weight_decay=-1.0)
    first = 2000
    last = first + (40 if options.quick else 400)
    dense, ours = race(config, first, last, every=20 if options.quick else 40, dense_steps=1)
    say(f"n = 10240, B = 8192, steps {first} to {last} of {config.steps}, {options.threads} thread")
    say(table([(64, dense, ours, dense / ours)], ["m", "dense ms/step", "ours ms/step", "ratio"]))


def float64_pass(W: Tensor, block: int = 1024) -> float:
    """Mean |cos| as one would first write it: all blocks of cosines, each turned into float64."""
    U = torch.nn.functional.normalize(W, dim=1)
    total = sum(float((left @ right.T).double().abs().sum()) for left in U.split(block) for right in U.split(block))
    return (total - len(W)) / (len(W) * (len(W) - 1))


@comparison("overlap")
def overlap(options: Options) -> None:
    """The sample model's unembedding: all pairs raw and centred, and exact second moments alone."""
    W = read_unembedding("sample:smollm2-135m").W
    if options.quick:
        W = W[:16384]
    naive, ours, moments = [], [], []
    for _ in tqdm(range(3), desc="overlap", unit="round"):
        naive.append(timed(lambda: (float64_pass(W), float64_pass(W - W.mean(0)))))
        ours.append(timed(lambda: overlap_statistics(W, method="exact")))
        moments += [timed(lambda: second_moments(W)) for _ in range(5)]
    a, b, c = (statistics.median(times) for times in (naive, ours, moments))
    say(f"{len(W)} × {W.shape[1]}, {options.threads} thread, medians of 3 (15 for the moments)")
    rows = [
        ("all pairs, blocks turned into float64, raw + centred", a, a / b),
        ("all pairs, shared symmetric tiles, and everything else", b, 1.0),
        ("exact raw second moments alone", c, b / c),
    ]
    say(table(rows, ("what", "seconds", "ratio")))
    say(f"the float64 pass (one of the two) takes {a / 2 / c:.0f} times as long as the second moments")


@comparison("loss")
def loss(options: Options) -> None:
    """Tokens per second of the sample model's loss against one plain forward a window, float32 and bfloat16."""
    corpus, limit = open_corpus("stdlib"), 2048 if options.quick else 8192
    values: dict[str, float] = {}
    rows = []
    for dtype in ("float32", "bfloat16"):
        model = load_model("sample:smollm2-135m", dtype=dtype, device="cpu")
        windows = list(cut_windows(corpus, model.tokenizer, context=512, max_tokens=limit))
        plain, ours = [], []
        for _ in tqdm(range(3), desc=dtype, unit="round"):
            plain.append(timed(lambda model=model, windows=windows: plain_loss(model, windows)))  # type: ignore[misc]
            ours.append(
                timed(lambda model=model, windows=windows: values.update({model.dtype: measured(model, windows)}))  # type: ignore[misc]
            )
        a, b = statistics.median(plain), statistics.median(ours)
        rows.append((dtype, limit / a, limit / b, a / b, values[dtype]))
    say(f"{limit} tokens, windows of 512, {options.threads} thread, medians of 3")
    say(table(rows, ("type", "plain tokens/s", "ours tokens/s", "ratio", "loss")))
    fast = rows[1][2] / rows[0][1]
    say(f"bfloat16 over plain float32: {fast:.2f} times; it differs by {rows[1][4] - rows[0][4]:+.5f} nats per token")


def plain_loss(model: LanguageModel, windows: list[Window]) -> float:
    """One window at a time through the whole model."""
    total = 0.0
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([window.tokens])
            logits = model.model(ids[:, :-1]).logits[0].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
    return total


def measured(model: LanguageModel, windows: list[Window]) -> float:
    """Our loss of the same windows."""
    return float(score_windows(model, windows).nll.sum()) / sum(window.scored for window in windows)


@comparison("loss-memory")
def loss_memory(options: Options) -> None:
    """Peak memory beyond the weights at a vocabulary of 262144, each way in a process of its own."""
    rows = []
    for way in ("plain", "ours"):
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=_peak, args=(way, 256 if options.quick else 1024, queue))
        process.start()
        rows.append((way, queue.get() / 1e6))
        process.join()
    say(table(rows, ("", "MB beyond the weights")))
    say(f"ours needs {rows[1][1] / rows[0][1]:.3f} of the plain forward's")


def _peak(way: str, context: int, queue: multiprocessing.Queue[int]) -> None:
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=262144, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    windows = [Window(0, tuple(range(context + 1)), context)]
    model = LanguageModel(network, None, "random", "", "float32", "cpu", 2048)  # type: ignore[arg-type]
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _status("VmRSS")
    if way == "plain":
        plain_loss(model, windows)
    else:
        score_windows(model, windows)
    queue.put(_status("VmHWM") - before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> int:
    """Run the comparisons named on the command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = Options(quick="--quick" in arguments)
    names = [argument for argument in arguments if argument != "--quick"]

    def work() -> None:
        unknown = [name for name in names if name not in COMPARISONS]
        if unknown or not names:
            raise ConfigError(
                f"comparisons {' '.join(unknown) or '(none)'}", expected=f"names among {', '.join(COMPARISONS)}"
            )
        torch.set_num_threads(options.threads)
        for name in names:
            COMPARISONS[name](options)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
