"""BYOL's ablations on the built-in photographs: each a setting of the method, 15 epochs, which is about a minute.

    python benchmarks/ablations.py --out benchmarks/results/ablations.json

Beside k-NN and the spread of the projections (`std`, 1 is healthy and 0 collapsed) stands what the paper found on
ImageNet: linear accuracy after 300 epochs, where full BYOL has 72.5 % and the random encoder 1.4 %. By epochs, so that
the figures are the same however busy the machine is.
"""

import tempfile
from pathlib import Path
from typing import Any

import results

from ownlatent import OwnlatentError, demo

NO_PREDICTOR = {"method.predictor_layers": 0}
SHARED = {"method.tau": 0, "method.stop_gradient": "false"}  # the target is the online network, with a gradient
# Name, settings, linear accuracy in the paper where it has one: of tau 0 both tables give one, 0.3 and 5.5.
ABLATIONS: list[tuple[str, dict[str, Any], float | None]] = [
    ("byol", {}, 72.5),
    ("target never moves (tau 1)", {"method.tau": 1}, 18.8),
    ("target is the online network (tau 0)", {"method.tau": 0}, 5.5),
    ("the same, predictor's rate times 10", {"method.tau": 0, "method.predictor_lr": 10}, 66.6),
    ("no stopped gradient", SHARED, 0.3),
    ("no predictor", NO_PREDICTOR, 0.2),
    ("no predictor, negatives", {**NO_PREDICTOR, "method.negatives": 1}, 70.7),
    ("negatives", {"method.negatives": 1}, 70.9),
    ("SimCLR: no predictor, no target, negatives", {**NO_PREDICTOR, **SHARED, "method.negatives": 1}, 69.4),
    ("heads of one layer", {"method.projector_layers": 1, "method.predictor_layers": 1}, 61.9),
    ("loss not normalised", {"method.normalize": "none"}, 67.4),
    ("loss with LayerNorm", {"method.normalize": "layer"}, 72.5),
    ("loss with BatchNorm", {"method.normalize": "batch"}, 65.3),
    ("LayerNorm in the heads", {"method.norm": "layer"}, None),
    ("no norm in the heads", {"method.norm": "none"}, None),
    ("GroupNorm everywhere, standardised weights", {"method.norm": "group", "backbone.norm": "group"}, None),
]


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--epochs", type=float, default=15, help="of training, each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, settings, published) in enumerate(ABLATIONS[:1] if options.quick else ABLATIONS):
            print(f"\n{name}: {settings}", flush=True)
            epochs = 0.05 if options.quick else options.epochs
            row = {"ablation": name, "settings": settings, "seed": options.seed, "epochs": epochs}
            rows.append(row | train(Path(scratch) / str(number), epochs, options.seed, settings))
            rows[-1]["imagenet_linear"] = published
    print("\n| BYOL with | k-NN | over random | std | ImageNet, linear |\n|---|---|---|---|---|")
    for row in rows:
        published = "" if row["imagenet_linear"] is None else f"{row['imagenet_linear']} %"
        if row["knn"] is None:
            print(f"| {row['ablation']} | diverged | | | {published} |")
            continue
        gain = 100 * (row["knn"] - row["knn_random"])
        print(f"| {row['ablation']} | {100 * row['knn']:.1f} % | {gain:+.1f} | {row['std']:.2f} | {published} |")
    figures = {"ablations": len(rows), "byol_gain_points": round(100 * (rows[0]["knn"] - rows[0]["knn_random"]), 2)}
    results.write(options.out, "ablations", rows, figures)


def train(folder: Path, epochs: float, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Scores of one run by the photographs' recipe, or None in their places if its loss did not stay finite."""
    try:
        run = demo(out=folder, method="byol", epochs=epochs, seed=seed, **settings)
    except OwnlatentError as error:
        if "diverged" not in str(error):
            raise
        print(error, flush=True)
        return {"knn": None, "knn_random": None, "std": None, "loss": None}
    scores = {entry["subject"]: round(entry["top1"], 4) for entry in run.results["evaluations"]}
    last = run.metrics[-1]
    return {"knn": scores["trained"], "knn_random": scores["random"], "std": last["std"], "loss": last["loss"]}


if __name__ == "__main__":
    main()
