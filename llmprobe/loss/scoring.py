"""NLL of token windows: batches by length, logits a few at a time, every batch kept as it comes.

Windows of like length share a batch and are padded on the right only, where a causal model cannot look, so padding
changes nothing and is never scored. The plan of batches depends on the windows and the budget alone, and each
finished batch is a line of a file: a run that was killed resumes with the same batches and ends with the same bits.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from llmprobe.cache import CACHE_SPACE, written
from llmprobe.errors import SourceError
from llmprobe.loss.language_model import LanguageModel
from llmprobe.loss.limits import check_causal, depends_on_length, position_reset
from llmprobe.loss.windows import Window

log = logging.getLogger(__name__)
LOGIT_BYTES = 32 << 20  # of float32 logits held at a time
BATCH_TOKENS = {"cpu": 512, "mps": 8192, "cuda": 32768}  # a CPU gains nothing from more, and loses its cache
Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """Sums over windows.

    Attributes
    ----------
    nll
        Summed NLL of each window, in nats; shape [w].
    position_nll, position_tokens
        Summed NLL and scored tokens by position in the window, in bins [1, 1], [2, 3], [4, 7], ...; shape [bins].
    """

    nll: Float[np.ndarray, " w"]
    position_nll: Float[np.ndarray, " p"]
    position_tokens: Int[np.ndarray, " p"]


def score_windows(
    model: LanguageModel,
    windows: Sequence[Window],
    *,
    batch_tokens: int | None = None,
    partial: Path | None = None,
    keep_partial: bool = False,
    progress: bool = False,
) -> Scores:
    """NLL of each window, in the order given.

    Parameters
    ----------
    batch_tokens
        Tokens per forward pass; the default fits the device and is halved when memory runs out.
    partial
        File to keep finished batches in, and to resume from when it exists; removed at the end.
    keep_partial
        Leave it there, for the caller to remove once the result is stored.

    Raises
    ------
    StoreError
        The partial file cannot be written.
    SourceError
        The model looks ahead, lacks positions, or gives a loss that is not a finite number.
    """
    tokens = max(windows, key=lambda window: window.scored).tokens[:-1]
    alike = not check_causal(model.model, torch.tensor(tokens, device=_input_device(model)), model.source)
    alike, score = alike or depends_on_length(model.model), _scorer(model)
    order = sorted(range(len(windows)), key=lambda i: -windows[i].scored)
    bins = windows[order[0]].scored.bit_length()
    nll, by_position, counts = np.zeros(len(windows)), np.zeros(bins), np.zeros(bins, dtype=np.int64)
    done, budget = 0, batch_tokens or BATCH_TOKENS[model.device.split(":")[0]]

    def take(batch: list[int], sums: list[float], positions: list[float]) -> None:
        nll[batch] = sums
        by_position[: len(positions)] += positions
        for i in batch:
            counts[:] += _bin_counts(windows[i].scored, bins)

    with tqdm(total=sum(w.scored for w in windows), unit="token", desc="loss", disable=not progress) as bar:
        for line in _lines(partial, len(order)):
            batch = order[line["first"] : line["first"] + len(line["nll"])]
            take(batch, line["nll"], line["positions"])
            done, budget = done + len(batch), line["budget"]
            bar.update(sum(windows[i].scored for i in batch))
        while done < len(order):
            longest = windows[order[done]].scored
            batch = order[done : done + max(1, budget // longest)]
            if alike:
                batch = [i for i in batch if windows[i].scored == longest]
            try:
                nlls = score([windows[i] for i in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                budget = max(longest, budget // 2)
                torch.cuda.empty_cache()
                log.warning("out of memory: going on with %d tokens at a time", budget)
                continue
            sums = [float(t.sum()) for t in nlls]
            if not np.isfinite(sums).all():
                raise SourceError(
                    f"{model.source} gives a loss of {sums[int(np.argmin(np.isfinite(sums)))]} nats",
                    expected="a finite number",
                    fix="use --dtype float32; if it is used, the weights are damaged",
                )
            positions = np.sum([_bin_sums(t, bins) for t in nlls], axis=0).tolist()
            take(batch, sums, positions)
            _keep(partial, {"first": done, "budget": budget, "nll": sums, "positions": positions})
            done += len(batch)
            bar.update(sum(windows[i].scored for i in batch))
    if partial is not None and not keep_partial:
        partial.unlink(missing_ok=True)
    return Scores(nll, by_position, counts)


def _scorer(model: LanguageModel) -> Callable[[list[Window]], list[Float[np.ndarray, " t"]]]:
    """A function from windows to the NLL of each of their tokens, in float64."""
    network, device, head = model.model, _input_device(model), _head(model)
    step = max(1, LOGIT_BYTES // (4 * _vocabulary(network)))
    reset = position_reset(network)

    @torch.inference_mode()
    def score(windows: list[Window]) -> list[Float[np.ndarray, " t"]]:
        ids = torch.zeros(len(windows), max(w.scored for w in windows) + 1, dtype=torch.long)
        for row, window in zip(ids, windows, strict=True):
            row[: len(window.tokens)] = torch.tensor(window.tokens)
        scored = [window.scored for window in windows]
        targets = torch.cat([row[1 : 1 + n] for row, n in zip(ids, scored, strict=True)])
        inputs = ids[:, :-1].to(device)
        reset()
        try:
            if head is not None:
                states = network.base_model(input_ids=inputs, use_cache=False)[0]
            else:
                states = network(input_ids=inputs, use_cache=False).logits
        except IndexError as error:
            raise SourceError(
                f"{model.source} does not take {inputs.shape[1]} tokens",
                expected=f"its {model.positions or 'unstated'} positions",
                fix="give a shorter --context",
            ) from error
        states = torch.cat([row[:n] for row, n in zip(states, scored, strict=True)])
        nll = torch.empty(len(targets), dtype=torch.float64)
        for i in range(0, len(targets), step):
            logits = (head(states[i : i + step]) if head else states[i : i + step]).float()
            wanted = targets[i : i + step].to(logits.device)
            nll[i : i + step] = token_nll(logits, wanted)
        return [part.numpy() for part in nll.split(scored)]

    return score


def token_nll(logits: Float[Tensor, "t n"], targets: Int[Tensor, " t"]) -> Float[Tensor, " t"]:
    """−ln softmax(logits)[target] of each token, in float64.

    torch's float32 `cross_entropy` adds up the vocabulary in sequence on a CPU, which biases every token alike by up to
    3e-5 nats at n = 262144 (1e-5 at 49152); `logsumexp` adds in a cascade and is within 1e-6 at either.
    """
    wanted = logits.gather(1, targets[:, None])[:, 0]
    return torch.logsumexp(logits, 1).double() - wanted.double()


def _head(model: LanguageModel) -> Head | None:
    """Hidden states to logits, as this model does it; None if that cannot be told apart from the whole."""
    network = model.model
    output = network.get_output_embeddings()
    if output is None or network.base_model is network:
        return None
    cap = getattr(network.config.get_text_config(), "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        logits = output(hidden)
        return cap * torch.tanh(logits / cap) if cap else logits

    # Some models scale their logits in ways of their own: trust the short way only where it gives the same.
    ids = torch.arange(8, device=_input_device(model))[None]
    with torch.inference_mode():
        whole = network(input_ids=ids, use_cache=False).logits
        parts = head(network.base_model(input_ids=ids, use_cache=False)[0])
    rtol, atol = (1e-5, 1e-6) if network.dtype == torch.float32 else (1e-2, 1e-3)
    if whole.shape == parts.shape and torch.allclose(whole.float(), parts.float(), rtol=rtol, atol=atol):
        return head
    log.warning("%s shapes its logits in its own way: they are made for whole batches", model.source)
    return None


def _vocabulary(network: PreTrainedModel) -> int:
    """Rows of the input embedding."""
    return len(next(network.get_input_embeddings().parameters()))


def _input_device(model: LanguageModel) -> torch.device:
    """Where token ids go: the first device of a model spread over several."""
    return next(model.model.get_input_embeddings().parameters()).device


def _bin_sums(nll: Float[np.ndarray, " t"], bins: int) -> Float[np.ndarray, " p"]:
    edges = [(1 << k) - 1 for k in range(bins) if (1 << k) - 1 < len(nll)]
    sums = np.zeros(bins)
    sums[: len(edges)] = np.add.reduceat(nll, edges)
    return sums


def _bin_counts(tokens: int, bins: int) -> Int[np.ndarray, " p"]:
    starts = np.minimum((1 << np.arange(bins + 1)) - 1, tokens)
    return np.diff(starts)


def _lines(partial: Path | None, total: int) -> Iterator[dict[str, Any]]:
    """Finished batches of an earlier try, up to the first that is torn or damaged; that one is done again."""
    if partial is None or not partial.exists():
        return
    with written(partial, fix=CACHE_SPACE):
        lines = partial.read_bytes().splitlines(keepends=True)
        kept: list[dict[str, Any]] = []
        done = size = 0
        for line in lines:
            batch = _checked(line)
            if batch is None or batch["first"] != done or done + len(batch["nll"]) > total:
                log.warning(
                    "finished batches kept in %s are damaged from line %d on: scored again", partial, len(kept) + 1
                )
                break
            kept.append(batch)
            done, size = done + len(batch["nll"]), size + len(line)
        os.truncate(partial, size)
    yield from kept


def _checked(line: bytes) -> dict[str, Any] | None:
    try:
        batch = json.loads(line)
        crc = batch.pop("crc")
        return batch if line.endswith(b"\n") and crc == _crc(batch) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _crc(batch: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(batch, sort_keys=True).encode())


def _keep(partial: Path | None, line: dict[str, Any]) -> None:
    if partial is None:
        return
    with written(partial, fix=CACHE_SPACE):
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            file.write(json.dumps({**line, "crc": _crc(line)}).encode() + b"\n")
