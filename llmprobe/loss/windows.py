"""Documents cut into disjoint windows of tokens, every token scored once.

A window scores up to `context` tokens. Its input starts with a prefix token that is never scored: the tokenizer's
BOS if it has one, else EOS; with neither, the first token of each window has nothing before it and is not scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from llmprobe.errors import ConfigError
from llmprobe.loss.corpus import Document

Prefix = Literal["auto", "bos", "eos", "none"]


@dataclass(frozen=True)
class Window:
    """One window.

    Attributes
    ----------
    document
        Index of its document.
    tokens
        Prefix (if any) and text tokens: ``tokens[:-1]`` is the model's input, ``tokens[1:]`` is what is scored.
    n_bytes
        UTF-8 bytes of the text that is scored.
    """

    document: int
    tokens: tuple[int, ...]
    n_bytes: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - 1


def prefix_token(tokenizer: PreTrainedTokenizerBase, policy: Prefix = "auto") -> tuple[str, int | None]:
    """The prefix policy that applies (``bos``, ``eos`` or ``none``) and its token.

    Raises
    ------
    ConfigError
        The tokenizer has no such token.
    """
    known = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "none": None}
    if policy == "auto":
        chosen = next((name for name in ("bos", "eos") if known[name] is not None), "none")
        return chosen, known[chosen]
    if policy != "none" and known[policy] is None:
        raise ConfigError(f"--prefix {policy}: the tokenizer has none", expected="auto or none")
    return policy, known[policy]


def cut_windows(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    *,
    context: int = 1024,
    prefix: Prefix = "auto",
    max_tokens: int | None = None,
) -> Iterator[Window]:
    """Tokenize documents and cut them.

    Parameters
    ----------
    context
        Most tokens scored in one window, and the longest input the model sees.
    max_tokens
        Stop after this many scored tokens; the last window is shortened to fit.
    """
    _, first = prefix_token(tokenizer, prefix)
    lead = () if first is None else (first,)
    stride = context + 1 - len(lead)
    left = float("inf") if max_tokens is None else max_tokens
    for index, document in enumerate(documents):
        ids, ends = _tokenize(tokenizer, document.text)
        for start in range(0, len(ids), stride):
            if left <= 0:
                return
            piece = ids[start : start + stride]
            scored_from = start + 1 - len(lead)
            keep = int(min(len(piece), left + 1 - len(lead)))
            window = lead + tuple(piece[:keep])
            if len(window) < 2:
                continue
            text = document.text[ends[scored_from] : ends[start + keep]]
            yield Window(index, window, len(text.encode()))
            left -= len(window) - 1


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[int]]:
    """Token ids and, at i, how many characters of the text lie before token i.

    A control token that is written out in the text (``<|endoftext|>``) is text like any other.
    """
    # a document may be longer than the model's positions, since it is cut afterwards: no warning of that
    plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    if not tokenizer.is_fast:
        ids = tokenizer(text, **plain)["input_ids"]
        pieces = [len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]
        return ids, [0, *pieces]
    encoded = tokenizer(text, **plain, return_offsets_mapping=True)
    # A token's end may fall short where several tokens share one character: never go back.
    ends, furthest = [0], 0
    for _, end in encoded["offset_mapping"]:
        furthest = max(furthest, end)
        ends.append(furthest)
    if len(ends) > 1:
        ends[-1] = len(text)
    return encoded["input_ids"], ends
