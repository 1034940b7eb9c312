"""Test on any language model whether superposition explains how its loss falls with width and training time.

The names below this package's door stand in ``__init__.pyi``, where a type checker sees them. Each is imported when it
is first used: ``import llmprobe`` loads neither torch nor transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
