"""From a text and a model to a loss: corpora, windows, the model, scoring, and the loss with its error."""

from llmprobe.loss.corpus import Corpus, Document, open_corpus
from llmprobe.loss.evaluate import evaluate_loss
from llmprobe.loss.language_model import LanguageModel, load_model
from llmprobe.loss.result import LossResult, paired_difference

__all__ = [
    "Corpus",
    "Document",
    "LanguageModel",
    "LossResult",
    "evaluate_loss",
    "load_model",
    "open_corpus",
    "paired_difference",
]
