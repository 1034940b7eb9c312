"""Shared by all tests: the Hub is a server on this machine, caches lie in a temporary folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

# Read when they are first imported, so these come before anything imports huggingface_hub or transformers.
from loopback_hub import LoopbackHub

HUB = LoopbackHub()
CACHE = tempfile.TemporaryDirectory(prefix="llmprobe-tests-")
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": f"{CACHE.name}/huggingface",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LLMPROBE_CACHE": f"{CACHE.name}/llmprobe",
}
for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"):
    os.environ.pop(name, None)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))  # a recipe finds the files beside it

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def hub() -> LoopbackHub:
    """The Hub of these tests, without repositories."""
    HUB.repos.clear()
    HUB.tokens.clear()
    return HUB


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("LLMPROBE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Published figures that lie beside a developer's checkout; a user's clone has none."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    return SHARED
