"""The `toymodels` command with a checkpoint after every chunk; a file, so that its workers import it too."""

import sys

from toymodels.superposition import training

training.CHECKPOINT_SECONDS = 0.0

if __name__ == "__main__":
    from toymodels.cli import main

    sys.exit(main())
