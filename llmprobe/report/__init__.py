"""From observations to a page: exponents side by side, figures, published figures, and the page itself."""

from llmprobe.report.write import write_report

__all__ = ["write_report"]
