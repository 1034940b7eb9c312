"""The width exponent that Chinchilla implies: L(N, D), N ∝ m^k, and so α_m = α k.

Losses are those of Hoffmann et al. 2022 (arXiv:2203.15556, figure 4) as reconstructed by Besiroglu et al. 2024
(arXiv:2404.10102), read from the figure's vector graphics. The public file has parameters, compute and loss; tokens
follow as D = C/(6N). Widths and layers of the models are not in it: without them (a file given by ``--data`` may
carry them as ``d_model`` and ``n_layers``) k is taken as published and L(m, ℓ, D) is left out. With them, L(m, ℓ, D) is
also fitted to the lowest losses alone, from 120 to 240 of them, as arXiv:2602.05970 does with its about 200.

    python recipes/chinchilla.py                        # downloads 23 kB, checks the hash
    python recipes/chinchilla.py --data chinchilla.csv  # or any table with the columns below
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chinchilla_depth import (
    PUBLISHED,
    SYMBOLS,
    Fits,
    kept_figure,
    kept_fits,
    kept_table,
    losses_with_layers,
    selected,
    width_and_depth,
)

from llmprobe import console
from llmprobe.errors import SourceError
from llmprobe.fitting.bootstrap import Bootstrap, bootstrap
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.profile import profile
from llmprobe.fitting.propagation import propagate
from llmprobe.fitting.result import FitResult
from llmprobe.settings import Count, Natural, Positive, Settings

if TYPE_CHECKING:
    import pandas as pd

URL = "https://raw.githubusercontent.com/epoch-research/analyzing-chinchilla/main/data/svg_extracted_data.csv"
SHA256 = "193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30"
COLUMNS = {
    "Model Size": "model_size",
    "Training FLOP": "FLOP",
    "Training Tokens": "num_tokens",
    "N": "model_size",
    "D": "num_tokens",
}
K_PUBLISHED = (2.52, 0.03)
"""N ∝ m^k over the models of Hoffmann et al. 2022, table A9."""
ALPHA_M_CHINCHILLA = (0.88, 0.06)
ALPHA_M_WIDTH_FIT = (0.91, 0.04)
"""Published by Liu, Liu and Gore 2025 (arXiv:2505.10465): from Chinchilla, and from the losses of 27 open models."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of the study."""

    data: Path | None = None
    """Table with model_size, FLOP or num_tokens, and loss; downloaded when left out."""
    published: Path | None = None
    """Table of published losses of open models (family, model, m, corpus, L): L(m, ℓ) is fitted to it too."""
    drop_largest: Natural = 5
    """Points of the largest loss left out, as in Besiroglu et al."""
    delta: Positive = 1e-3
    """Huber's delta, in log loss."""
    resamples: Count = 4000
    """Of the bootstrap."""
    draws: Natural = 20
    """Of data that obey the law everywhere, to see what keeping the lowest losses does by itself; 0 leaves it out."""
    seed: Natural = 0
    """Of the bootstrap and the draws."""
    out: Path = Path("runs/chinchilla")
    """Folder of the figures and the results."""


def main(config: Config) -> dict[str, Any]:
    """Run the study; returns what is written to ``results.json``."""
    from llmprobe.fitting.figure import save_figure
    from llmprobe.report.figures import save

    frame = read(config.data if config.data is not None else download(config.out))
    frame = frame.sort_values("loss").iloc[: len(frame) - config.drop_largest]
    law = PowerLawSum(("model_size", "num_tokens"), offset="shared")
    result = fit(law, {x: frame[x] for x in law.x}, frame["loss"], loss="huber", delta=config.delta)
    drawn = bootstrap(result, config.resamples, seed=config.seed)
    width = width_power(frame)
    k, source = (K_PUBLISHED, "published, table A9") if width is None else (_power(width), "fitted, this file")
    rows = {
        "alpha_m": propagate(result, lambda p: p["alpha_model_size"] * p["k"], drawn, {"k": k}),
        "optimum": propagate(
            result, lambda p: p["alpha_num_tokens"] / (p["alpha_model_size"] + p["alpha_num_tokens"]), drawn
        ),
    }
    direct = None if width is None else width_depth_data(frame, config)
    kept = {} if direct is None else kept_fits(frame, config.delta)
    report = {
        "config": {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()},
        "fit": result.to_dict(),
        "bootstrap": drawn.to_dict(),
        "profile": {x: list(profile(result, f"alpha_{x}").interval) for x in law.x},
        "k": {"value": k[0], "stderr": k[1], "source": source},
        **{name: asdict(quantity) for name, quantity in rows.items()},
        "width_depth_data": None if direct is None else direct.to_dict(),
        "kept": [{"loss": loss, "kept": count, **fit.to_dict()} for (loss, count), fit in kept.items()],
        "published": {"alpha_m": list(ALPHA_M_CHINCHILLA), "alpha_m_width_fit": list(ALPHA_M_WIDTH_FIT)},
    }
    config.out.mkdir(parents=True, exist_ok=True)
    _tell(result, drawn, report, direct)
    if kept:
        report["selection"] = _tell_kept(kept, config)
        save(kept_figure(kept), str(config.out / "width_depth_data.png"))
    if config.published is not None:
        report["open_models"] = _tell_open(config.published, config)
    (config.out / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    save_figure(result, config.out / "chinchilla.png", y="loss")
    return report


def download(folder: Path) -> Path:
    """The public reconstruction, fetched once and checked.

    Raises
    ------
    SourceError
        It cannot be reached, or its bytes are not the ones this study was written for.
    """
    path = folder / "svg_extracted_data.csv"
    if path.is_file():
        data = path.read_bytes()
    else:
        try:
            with urllib.request.urlopen(URL, timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            raise SourceError(f"cannot read {URL}: {error}", fix="name a copy of the file with --data") from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise SourceError(f"{path.name} has sha256 {found}", expected=SHA256, fix=f"delete {path} or use --data")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(path: Path) -> pd.DataFrame:
    """The table with columns model_size, num_tokens, loss, and d_model and n_layers where it has them.

    Raises
    ------
    SourceError
        There is no such file, or columns are missing.
    """
    import pandas as pd

    if not path.is_file():
        raise SourceError(f"there is no file {path}", expected="a CSV of Chinchilla's models")
    frame = pd.read_csv(path).rename(columns=COLUMNS)
    if "num_tokens" not in frame and {"FLOP", "model_size"} <= set(frame):
        frame["num_tokens"] = frame["FLOP"] / (6 * frame["model_size"])
    missing = [name for name in ("model_size", "num_tokens", "loss") if name not in frame]
    if missing:
        raise SourceError(
            f"{path} has columns {', '.join(map(str, frame.columns))}",
            expected=f"also {', '.join(missing)}",
            fix="rename them, or give FLOP for num_tokens = FLOP / (6 model_size)",
        )
    return frame.dropna(subset=["model_size", "num_tokens", "loss"])


def width_power(frame: pd.DataFrame) -> FitResult | None:
    """N ∝ m^k over the different configurations of the file, or None where it has none."""
    if not {"d_model", "n_layers"} <= set(frame):
        return None
    # one point per configuration: the file has a row per run, its sizes read off a figure
    models = frame.dropna(subset=["d_model", "n_layers"]).groupby(["d_model", "n_layers"])["model_size"].median()
    return fit(PowerLawSum(("d_model",)), models.index.get_level_values("d_model"), models)


def width_depth_data(frame: pd.DataFrame, config: Config) -> FitResult:
    """L(m, ℓ, D): width, depth and data each with its own power law."""
    known = frame.dropna(subset=["d_model", "n_layers"])
    law = PowerLawSum(("d_model", "n_layers", "num_tokens"), offset="shared")
    return fit(law, {x: known[x] for x in law.x}, known["loss"], loss="huber", delta=config.delta)


def _power(width: FitResult) -> tuple[float, float]:
    return -width.params["alpha_d_model"], width.stderr["alpha_d_model"]


def _tell(result: FitResult, drawn: Bootstrap, report: dict[str, Any], direct: FitResult | None) -> None:
    say = console.say
    say(f"L(N, D), {result.n_points} points, Huber's loss")
    spread = drawn.stderr
    rows = [(name, value, result.stderr[name], spread[name]) for name, value in result.params.items()]
    say(console.table(rows, ("parameter", "value", "stderr", "bootstrap")))
    k, alpha_m, optimum = report["k"], report["alpha_m"], report["optimum"]
    low, high = alpha_m["bootstrap_ci95"]
    say(f"\nN ~ m^k: k = {k['value']:.3f} ± {k['stderr']:.3f} ({k['source']})")
    say(f"alpha_m = alpha k = {alpha_m['value']:.3f} ± {alpha_m['bootstrap_stderr']:.3f}, 95 % {low:.3f} to {high:.3f}")
    (a, da), (b, db) = ALPHA_M_CHINCHILLA, ALPHA_M_WIDTH_FIT
    say(f"published: {a:.2f} ± {da:.2f} from Chinchilla, {b:.2f} ± {db:.2f} from the losses of 27 open models")
    say(f"compute-optimal N ~ C^{optimum['value']:.3f} ± {optimum['bootstrap_stderr']:.3f}")
    if direct is not None:
        say(f"\nL(m, l, D), {direct.n_points} points: no assumption about k")
        rows3 = [(name, value, direct.stderr[name], *direct.ci95[name]) for name, value in direct.params.items()]
        say(console.table(rows3, ("parameter", "value", "stderr", "95% from", "to")))
        for sentence in direct.warnings:
            say(f"warning: {sentence}")


def _tell_kept(kept: Fits, config: Config) -> dict[str, Any]:
    """The table of the kept points, and the drift that keeping the lowest makes by itself."""
    say = console.say
    aims = ", ".join(f"{SYMBOLS[x]} {value:g} ± {error:g}" for x, (value, error) in PUBLISHED.items())
    say(f"\nL(m, l, D) on the lowest losses; arXiv:2602.05970 has {aims}; *: agrees within two joint standard errors")
    say(kept_table(kept))
    counts = sorted({count for _, count in kept})
    if not config.draws or len(counts) < 2:
        return {}
    chosen = tuple(dict.fromkeys((counts[0], counts[len(counts) // 2], counts[-4:][0], counts[-1])))
    drift = selected(kept["linear", counts[-1]], chosen, config.draws, config.seed)
    say(f"\ndata that obey the law of all {counts[-1]} points, their lowest losses kept, {config.draws} draws")
    rows = [(count, *(f"{mean:.3f} ± {std:.3f}" for mean, std in by_x.values())) for count, by_x in drift.items()]
    say(console.table(rows, ("kept", *SYMBOLS.values())))
    return {str(count): by_x for count, by_x in drift.items()}


def _tell_open(path: Path, config: Config) -> dict[str, Any]:
    """The width law and the width–depth law of the published losses."""
    alone, both, drawn = width_and_depth(losses_with_layers(path), min(config.resamples, 1000), config.seed)
    console.say(f"\n{alone.n_points} published losses, an offset per family and corpus; errors over whole models")
    low = {name: drawn.interval(name) for name in ("alpha_m", "alpha_layers")}
    rows = [
        (name, both.params[name], both.stderr[name], drawn.stderr[name], *low[name])
        for name in ("alpha_m", "alpha_layers")
    ]
    console.say(console.table(rows, ("L(m, l)", "value", "stderr", "over models", "95% from", "to")))
    console.say(f"width alone: {alone.params['alpha_m']:.3f}; rmse {alone.rmse:.4f} alone, {both.rmse:.4f} with depth")
    return {"width": alone.to_dict(), "width_depth": both.to_dict(), "bootstrap": drawn.to_dict()}


if __name__ == "__main__":
    import sys

    sys.exit(console.recipe(main, Config))
