"""Name of `toymodels.superposition.config` in version 0.1, for scripts of that time."""

import sys

from toymodels.superposition import config

sys.modules[__name__] = config
