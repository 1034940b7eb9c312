"""Lines as a user would write them, for `make check`: it sees every type, and that wrong ones are caught.

An ignored error that is none is itself an error, so each ``type: ignore`` below asserts that its line is refused.
"""

import numpy as np

from llmprobe import FitResult, PowerLawSum, compare, fit, overlap_statistics, read_unembedding

m = np.array([64.0, 128.0, 256.0, 512.0])
result: FitResult = fit(PowerLawSum(("m",)), {"m": m}, 3 / m)
alpha: float = result.params["alpha_m"]
share: float = overlap_statistics(read_unembedding("sample:smollm2-135m").W).represented_fraction
raw: float = overlap_statistics("org/name", method="exact").centered.mean_sq_cos
table = compare("runs/quickstart")

wrong: str = overlap_statistics("org/name").represented_fraction  # type: ignore[assignment]
fit("m", m, m)  # type: ignore[arg-type]
overlap_statistics("org/name", method="exactly")  # type: ignore[arg-type]
