"""The library that huggingface_hub speaks HTTP with, httpx2 from its version 2 on, httpx before: their names agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import huggingface_hub

if TYPE_CHECKING or int(huggingface_hub.__version__.split(".")[0]) >= 2:
    import httpx2 as httpx
else:
    import httpx

__all__ = ["httpx"]
