"""Name of `toymodels.superposition.training` in version 0.1, for scripts of that time."""

import sys

from toymodels.superposition import training

sys.modules[__name__] = training
