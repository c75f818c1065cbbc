"""What a run on CIFAR-10 is worth: all protocols and baselines, as `ownlatent evaluate` tells it.

    python benchmarks/proof.py --out benchmarks/results/proof.json

`ownlatent pretrain train.parquet --minutes 30`, then `ownlatent evaluate` with every protocol. On all labels the
supervised baseline trains as long as the pre-training, and so do the five draws of 1 % and of 10 % together: two hours
and a half on 2 cores, which `--supervised-minutes` and `--few-minutes` shorten. `--run` goes on with a run that is
there, and nothing that it has measured is measured again.
"""

import tempfile
from pathlib import Path
from typing import Any

import results

from ownlatent import Run


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--run", type=Path, metavar="RUN", help="the run folder; trained if it is not there")
    parser.add_argument("--minutes", type=float, default=30, help="of pre-training")
    parser.add_argument("--supervised-minutes", type=float, help="of the supervised baseline on all labels")
    parser.add_argument(
        "--few-minutes",
        type=float,
        help="of five draws together, of the supervised baseline and of fine-tuning on 1 %%",
    )
    parser.add_argument("--method", default="byol")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    if not (options.cifar10 / "train.parquet").exists():
        print(f"no CIFAR-10 in {options.cifar10}: that part is left out")
        return results.write(options.out, "proof", rows, figures)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.run or Path(scratch) / "run"
        tables = results.thinned(options.cifar10, Path(scratch) / "part") if options.quick else options.cifar10
        parts = [tables / f"{split}.parquet" for split in ("train", "test")]
        if not folder.exists():
            minutes = 0.05 if options.quick else options.minutes
            quick = ("--backbone", "resnet10_w16", "--batch-size", 32) if options.quick else ()
            command = ("--method", options.method, "--minutes", minutes, "--out", folder)
            results.ownlatent("pretrain", parts[0], *command, *quick)
        few: tuple[Any, ...] = ("--protocols", "low-shot,finetune", "--finetune-labels", "1%")
        if options.few_minutes:
            few += ("--supervised-minutes", options.few_minutes, "--finetune-minutes", options.few_minutes / 5)
        every: tuple[Any, ...] = ("--protocols", "knn,linear,sgd,finetune")
        if options.supervised_minutes:
            every += ("--supervised-minutes", options.supervised_minutes)
        words = []
        for protocols in (few, every):
            data = ("--train", parts[0], "--test", parts[1])
            quick = ("--supervised-minutes", 0.02, "--finetune-minutes", 0.01, "--sgd-epochs", 3, "--sgd-copies", 1)
            results.ownlatent("evaluate", folder, *data, *protocols, *(quick if options.quick else ()))
            found = Run(folder).results
            words += [line for line in found["verdicts"][0]["words"] if line not in words]
        assert len(found["verdicts"]) == 1, f"{folder} was evaluated on other images too: use a copy that was not"
        for entry in found["evaluations"]:
            named = {"train": "CIFAR-10 (JPEG q75), train", "test": "CIFAR-10 (JPEG q75), test"}
            rows.append({**entry, "data": {**entry["data"], **named}})
        curve = found["verdicts"][0]["label_curve"]["points"]
        rows.append({"training": found["training"], "label_curve": curve, "verdict": words})
    for protocol, settings in (("low-shot", {"labels": "1%"}), ("finetune", {"labels": "1%"})):
        of = [row for row in rows if row.get("protocol") == protocol and settings.items() <= row["settings"].items()]
        gain = next(row["trained_is"] for row in of if row["subject"] == "supervised")
        name = "low_shot" if protocol == "low-shot" else "finetune"
        figures[f"{name}_1pct_gain_over_supervised"] = round(100 * gain["mean"], 2)
    results.write(options.out, "proof", rows, figures)


if __name__ == "__main__":
    main()
