"""From the name of a model to one matrix: sources, formats, the Hub by byte range, and the unembedding itself."""

from llmprobe.weights.source import Source, parse_source
from llmprobe.weights.unembedding import Unembedding, read_unembedding

__all__ = ["Source", "Unembedding", "parse_source", "read_unembedding"]
