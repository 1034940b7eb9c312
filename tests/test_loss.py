"""The loss against a plain one-window-at-a-time forward, and against every known way of getting it wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES, make_model, make_tokenizer, save

from llmprobe.errors import ConfigError, CorpusError, SourceError
from llmprobe.loss import scoring
from llmprobe.loss.corpus import Document, open_corpus
from llmprobe.loss.evaluate import evaluate_loss
from llmprobe.loss.language_model import LanguageModel, load_model
from llmprobe.loss.result import DocumentSums, paired_difference
from llmprobe.loss.scoring import token_nll
from llmprobe.loss.windows import Window, cut_windows, prefix_token

TEXTS = [
    "the cat sat on the mat. the theory that fits the cat at last, sat. " * 3,
    "the",
    "a cat. é fits.",
    "on the mat sat a theory, the cat that fits the mat at last. " * 2,
]


def wrap(model: Any, tokenizer: Any = None, positions: int | None = 64) -> LanguageModel:
    tokenizer = tokenizer or make_tokenizer()
    return LanguageModel(model, tokenizer, "tiny", "", "float32", "cpu", positions)


@pytest.fixture
def corpus(tmp_path: Path) -> Any:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return open_corpus(str(path))


def plain_nll(model: Any, window: Window) -> float:
    """transformers' own logits for this window alone, scored in float64."""
    ids = torch.tensor([window.tokens])
    with torch.no_grad():
        logits = model(ids[:, :-1]).logits[0].double()
    return float(-torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_one_window_at_a_time(architecture: str, corpus: Any) -> None:
    model = make_model(architecture)
    language_model = wrap(model)
    found = evaluate_loss(language_model, corpus, context=16, batch_tokens=40)
    windows = list(cut_windows(corpus, language_model.tokenizer, context=16))
    expected = sum(plain_nll(model, w) for w in windows) / sum(w.scored for w in windows)
    assert found.loss == pytest.approx(expected, abs=1e-5)
    assert found.n_tokens == sum(len(language_model.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in TEXTS)


def test_invariant_under_batch_size_and_order(corpus: Any) -> None:
    model = wrap(make_model("llama"))
    one = evaluate_loss(model, corpus, context=16, batch_tokens=1)
    for batch_tokens in (16, 33, 10_000):
        other = evaluate_loss(model, corpus, context=16, batch_tokens=batch_tokens)
        assert other.loss == pytest.approx(one.loss, abs=1e-5)
        np.testing.assert_allclose(other.documents.nll, one.documents.nll, rtol=1e-5)
        assert other.documents.tokens.tolist() == one.documents.tokens.tolist()


def test_windows_score_every_token_once_and_every_byte_once() -> None:
    tokenizer = make_tokenizer()
    documents = [Document(str(i), text) for i, text in enumerate(TEXTS)]
    for context in (1, 2, 7, 64):
        windows = list(cut_windows(documents, tokenizer, context=context))
        for index, text in enumerate(TEXTS):
            own = [w for w in windows if w.document == index]
            scored = [token for w in own for token in w.tokens[1:]]
            assert scored == tokenizer(text, add_special_tokens=False)["input_ids"]
            assert all(w.tokens[0] == tokenizer.bos_token_id and w.scored <= context for w in own)
            assert sum(w.n_bytes for w in own) == len(text.encode())


def test_prefix_policy_is_bos_then_eos_then_nothing() -> None:
    both, eos, none = make_tokenizer(), make_tokenizer(bos=False), make_tokenizer(bos=False, eos=False)
    assert prefix_token(both) == ("bos", both.bos_token_id)
    assert prefix_token(eos) == ("eos", eos.eos_token_id)
    assert prefix_token(none) == ("none", None)
    assert prefix_token(both, "eos") == ("eos", both.eos_token_id)
    with pytest.raises(ConfigError, match="--prefix bos"):
        prefix_token(none, "bos")
    text = [Document("0", TEXTS[0])]
    n = len(none(TEXTS[0], add_special_tokens=False)["input_ids"])
    windows = list(cut_windows(text, none, context=9))
    assert sum(w.scored for w in windows) == n - math.ceil(n / 10)  # each window loses its first token
    assert max(len(w.tokens) for w in windows) == 10


def test_bos_is_neither_missing_nor_doubled() -> None:
    """A tokenizer that adds BOS by itself must not lead to two of them."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    assert tokenizer("the")["input_ids"][0] == tokenizer.bos_token_id
    for window in cut_windows([Document("0", TEXTS[0])], tokenizer, context=8):
        assert window.tokens.count(tokenizer.bos_token_id) == 1
        assert window.tokens[0] == tokenizer.bos_token_id


def test_weighted_by_scored_tokens_not_by_windows_or_documents(corpus: Any) -> None:
    model = wrap(make_model("gpt2"))
    found = evaluate_loss(model, corpus, context=16)
    per_document = found.documents.nll / found.documents.tokens
    assert found.loss == pytest.approx(found.nll_sum / found.n_tokens, rel=1e-12)
    assert abs(found.loss - per_document.mean()) > 1e-3  # the two differ here: averaging documents would be noticed
    assert found.bits_per_byte == pytest.approx(found.nll_sum / math.log(2) / found.n_bytes)


def test_one_token_document_is_scored_with_a_prefix_and_skipped_without(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("the")
    model = wrap(make_model("llama"))
    assert evaluate_loss(model, open_corpus(str(path))).n_tokens == 1
    with pytest.raises(CorpusError, match="no token that can be scored"):
        evaluate_loss(model, open_corpus(str(path)), prefix="none")


def test_padding_is_never_scored_nor_seen(corpus: Any) -> None:
    """A model that gives the padding token all weight would change the loss if padding leaked."""
    model = make_model("llama")
    expected = evaluate_loss(wrap(model), corpus, context=16, batch_tokens=1)
    with torch.no_grad():
        model.get_input_embeddings().weight[0] += 100.0
    found = evaluate_loss(wrap(model), corpus, context=16, batch_tokens=10_000)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)


def test_max_tokens_is_exact_and_bytes_follow() -> None:
    tokenizer = make_tokenizer()
    documents = [Document(str(i), text) for i, text in enumerate(TEXTS)]
    everything = list(cut_windows(documents, tokenizer, context=7))
    for limit in (1, 6, 7, 8, 20):
        windows = list(cut_windows(documents, tokenizer, context=7, max_tokens=limit))
        assert sum(w.scored for w in windows) == limit
        flat = [t for w in everything for t in w.tokens[1:]][:limit]
        assert [t for w in windows for t in w.tokens[1:]] == flat
        assert sum(w.n_bytes for w in windows) == len(tokenizer.decode(flat).encode())


def test_context_never_exceeds_the_models_positions(corpus: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = evaluate_loss(wrap(make_model("gpt2"), positions=64), corpus, context=1024)
    assert found.context == 64
    assert "more than the model's 64 positions" in caplog.text


def test_standard_error_is_over_documents() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, 500, size=40)
    rate = rng.normal(3, 0.5, size=40)
    sums = DocumentSums(rate * tokens, tokens, tokens * 4)
    resampled = []
    for _ in range(4000):
        pick = rng.integers(0, 40, size=40)
        resampled.append((rate * tokens)[pick].sum() / tokens[pick].sum())
    assert sums.stderr == pytest.approx(np.std(resampled), rel=0.05)
    assert math.isnan(DocumentSums(sums.nll[:1], sums.tokens[:1], sums.n_bytes[:1]).stderr)


def test_paired_difference_against_resampling_and_by_hand() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(50, 500, size=60)
    hardness = rng.normal(3, 0.6, size=60)
    a = DocumentSums((hardness + rng.normal(0.10, 0.05, size=60)) * tokens, tokens, tokens * 4)
    b = DocumentSums(hardness * tokens, tokens, tokens * 4)
    difference, error = paired_difference(a, b)
    assert difference == pytest.approx(a.loss - b.loss, rel=1e-12)
    assert error < 0.2 * a.stderr  # what is hard for both cancels
    resampled = []
    for _ in range(4000):
        pick = rng.integers(0, 60, size=60)
        resampled.append((a.nll - b.nll)[pick].sum() / tokens[pick].sum())
    assert error == pytest.approx(np.std(resampled), rel=0.06)
    with pytest.raises(CorpusError, match="different documents"):
        paired_difference(a, DocumentSums(b.nll[:5], b.tokens[:5], b.n_bytes[:5]))


def test_documents_are_hashed_and_shared_between_tokenizers(corpus: Any) -> None:
    one = evaluate_loss(wrap(make_model("llama")), corpus, context=16, max_documents=3)
    other = evaluate_loss(wrap(make_model("gpt2"), make_tokenizer(size=60)), corpus, context=16, max_documents=3)
    assert one.documents_sha256 == other.documents_sha256
    assert one.documents.n_bytes.tolist() == other.documents.n_bytes.tolist()
    assert one.n_tokens != other.n_tokens
    assert paired_difference(one.documents, other.documents)[1] > 0
    assert evaluate_loss(wrap(make_model("llama")), corpus, context=16).documents_sha256 != one.documents_sha256


def test_loss_by_position(corpus: Any) -> None:
    model = make_model("llama")
    found = evaluate_loss(wrap(model), corpus, context=16)
    tokens: dict[int, list[float]] = {}
    for window in cut_windows(corpus, make_tokenizer(), context=16):
        ids = torch.tensor([window.tokens])
        with torch.no_grad():
            logits = model(ids[:, :-1]).logits[0].double()
        nll = -torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]
        for position, value in enumerate(nll.tolist(), start=1):
            tokens.setdefault(position.bit_length(), []).append(value)
    expected = [np.mean(tokens[k]) for k in sorted(tokens)]
    np.testing.assert_allclose([loss for _, _, loss in found.by_position()], expected, atol=1e-5)
    assert [span[:2] for span in found.by_position()] == [(1, 1), (2, 3), (4, 7), (8, 15), (16, 16)]


def test_killed_run_goes_on_bit_for_bit(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(make_model("qwen2"))
    windows = list(cut_windows(corpus, model.tokenizer, context=8))
    whole = scoring.score_windows(model, windows, batch_tokens=16)
    partial = tmp_path / "partial.jsonl"
    original = scoring._keep
    for stop in (1, 2, 4):  # three violent ends, the last in the middle of a line
        kept = 0

        def dies(path: Path | None, line: dict[str, Any], stop: int = stop) -> None:
            nonlocal kept
            kept += 1
            original(path, line)
            if kept == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(scoring, "_keep", dies)
        with pytest.raises(KeyboardInterrupt):
            scoring.score_windows(model, windows, batch_tokens=16, partial=partial)
    monkeypatch.setattr(scoring, "_keep", original)
    assert len(partial.read_bytes().splitlines()) == 7
    partial.write_bytes(partial.read_bytes()[:-9])
    again = scoring.score_windows(model, windows, batch_tokens=16, partial=partial)
    for name in ("nll", "position_nll", "position_tokens"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert not partial.exists()


def test_head_shortcut_is_dropped_where_logits_are_shaped_otherwise(
    corpus: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Granite divides its logits by a constant, which the short way does not know."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GraniteConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        num_key_value_heads=2, logits_scaling=0.1,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    language_model = wrap(model)
    windows = list(cut_windows(corpus, language_model.tokenizer, context=16))
    expected = sum(plain_nll(model, w) for w in windows) / sum(w.scored for w in windows)
    assert evaluate_loss(language_model, corpus, context=16).loss == pytest.approx(expected, abs=1e-5)
    assert "shapes its logits in its own way" in caplog.text


def test_load_model_from_a_folder(tmp_path: Path, corpus: Any) -> None:
    model = make_model("qwen2")
    save(model, tmp_path / "m")
    with pytest.raises(SourceError, match="no tokenizer that splits text"):
        load_model(str(tmp_path / "m"))
    make_tokenizer().save_pretrained(tmp_path / "m")
    loaded = load_model(str(tmp_path / "m"), device="cpu")
    assert (loaded.positions, loaded.width) == (64, 32)
    expected = evaluate_loss(wrap(model), corpus, context=16)
    assert evaluate_loss(loaded, corpus, context=16).loss == pytest.approx(expected.loss, abs=1e-6)
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        load_model(str(tmp_path / "m"), dtype="int3")
    with pytest.raises(ConfigError, match="not usable here"):
        load_model(str(tmp_path / "m"), device="cuda:7")


def test_large_vocabularies_are_summed_without_bias() -> None:
    logits = 3 * torch.randn(16, 262144, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(16)
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    found = token_nll(logits, targets)
    assert found.dtype == torch.float64
    assert float((found - exact).abs().max()) < 3e-6


def test_sample_model_equals_plain_transformers() -> None:
    model = load_model("sample:smollm2-135m", device="cpu")
    found = evaluate_loss(model, open_corpus("stdlib"), context=96, max_tokens=400)
    windows = list(cut_windows(open_corpus("stdlib"), model.tokenizer, context=96, max_tokens=400))
    expected = sum(plain_nll(model.model, w) for w in windows) / 400
    assert found.loss == pytest.approx(expected, abs=1e-5)
    assert (found.prefix, found.n_tokens) == ("bos", 400)
    again = replace(model, positions=50)
    assert evaluate_loss(again, open_corpus("stdlib"), max_tokens=60).context == 50
