"""The three readers of weights against files that were harmed at random; `make fuzz` runs the long form."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from fuzzing import FORMATS, fuzz


@pytest.mark.parametrize(("kind", "inputs"), [("safetensors", 1200), ("torch", 500), ("gguf", 1500)])
def test_a_harmed_file_is_an_error_or_what_the_reference_reader_sees(kind: str, inputs: int, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of harmed scales
        found = fuzz(kind, tmp_path, inputs=inputs, seed=1)
    assert not found.wrong, found.wrong[:3]
    assert min(found.read, sum(found.refused.values())) > inputs / 10, "the harm is too mild, or too strong, to tell"


def test_every_format_is_read_whole_when_unharmed(tmp_path: Path) -> None:
    for kind, (seed, reader, reference, _) in FORMATS.items():
        path = tmp_path / f"m.{kind}"
        path.write_bytes(seed())
        assert set(reader(path).names()) == set(reference(path))
