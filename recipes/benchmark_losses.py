"""Comparisons of the loss of a language model with one plain forward a window."""

from __future__ import annotations

import multiprocessing
import statistics

import torch
from benchmark_clock import peak_memory, timed
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig

from llmprobe.console import say, table
from llmprobe.loss.corpus import open_corpus
from llmprobe.loss.language_model import LanguageModel, load_model
from llmprobe.loss.scoring import score_windows
from llmprobe.loss.windows import Window, cut_windows


def loss(quick: bool) -> None:
    """Tokens per second of the sample model's loss against one plain forward a window, float32 and bfloat16."""
    corpus, limit = open_corpus("stdlib"), 2048 if quick else 8192
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
    say(f"{limit} tokens, windows of 512, one thread, medians of 3")
    say(table(rows, ("type", "plain tokens/s", "ours tokens/s", "ratio", "loss")))
    fast = rows[1][2] / rows[0][1]
    say(f"bfloat16 over plain float32: {fast:.2f} times; it differs by {rows[1][4] - rows[0][4]:+.5f} nats per token")


def plain_loss(model: LanguageModel, windows: list[Window]) -> float:
    """One window at a time through the whole model."""
    total = 0.0
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([window.tokens], device=model.device)
            logits = model.model(ids[:, :-1]).logits[0].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
    return total


def measured(model: LanguageModel, windows: list[Window]) -> float:
    """Our loss of the same windows."""
    return float(score_windows(model, windows).nll.sum()) / sum(window.scored for window in windows)


def loss_memory(quick: bool) -> None:
    """Peak memory beyond the weights at a vocabulary of 262144, each way in a process of its own."""
    rows = []
    for way in ("plain", "ours"):
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=_peak, args=(way, 256 if quick else 1024, queue))
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
    work = plain_loss if way == "plain" else score_windows
    queue.put(peak_memory(lambda: work(model, windows)))
