"""Every benchmark runs in its quick form and writes the file that the others can read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = [ROOT / "benchmarks" / name for name in ("peers.py", "results.py")]
SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if path not in SHARED]
AHEAD = ("photos_points_ahead", "cifar10_points_ahead")  # figures that compare with lightly without its name
SLOW = ("_w64", "_224")  # networks that a quick run leaves out
NOT_KEPT = ("cifar10_gpu",)  # a GPU
# What the full form finds by tests, which run anyway.
TESTS = {
    *("kills", "runs_killed", "resumed_identical", "faults_injected", "faults_survived"),
    *("bad_inputs", "bad_inputs_mishandled", "ddp_methods", "ddp_equal"),
}
CHEAP = ("cifar10_gpu", "sources", "views")  # half a minute at most; the others by `make test-slow`
CIFAR10 = ("cifar10", "probe", "low_shot", "finetune")  # figures of that data set
FIGURES = {
    "anywhere": {
        *("architectures_tried", "architectures_working", "export_formats", "export_max_abs_error"),
        "embed_images_per_second_over_bare",
    },
    "audio": {
        *(f"fsdd_speaker_linear{name}" for name in ("", "_random", "_stats", "_supervised")),
        *(f"fsdd_speaker_linear{name}_one_loudness" for name in ("", "_random")),
        *("fsdd_take_knn", "front_end_times_real_time", "demo_gain_points"),
    },
    "ablations": {"ablations", "byol_gain_points"},
    "cifar10_gpu": {f"cifar10_{name}" for name in ("minutes", "images_per_second", "knn", "linear")},
    "cost": {
        *(f"step_by_{name}_exponent" for name in ("batch_size", "image_size", "views", "queue")),
        *(f"{name}_by_files_exponent" for name in ("listing", "epoch")),
        *(f"{name}_by_features_exponent" for name in ("knn", "linear")),
    },
    "equal_time": {
        f"{dataset}_{name}"
        for dataset in ("photos", "cifar10")
        for name in ("knn", "linear", "points_ahead", "points_ahead_linear", "knn_lightly", "linear_lightly")
    },
    "evaluate": {
        *("knn_over_matmul", "knn_vs_lightly", "probe_speedup_vs_sgd100", "probe_accuracy_minus_sgd100"),
        "embed_over_bare_forward",
    },
    "first_light": {
        *("photos_knn", "photos_knn_random", "photos_knn_pixels", "photos_seconds"),
        *("cifar10_knn", "cifar10_knn_random", "cifar10_knn_pixels", "cifar10_minutes"),
        *("help_seconds", "import_seconds"),
    },
    "health": {
        *("collapses_tried", "collapses_caught", "causes_right", "healthy_tried", "healthy_accused"),
        *("diagnostics_share_of_step", "check_seconds"),
    },
    "methods": {"methods", "worst_photos_gain_points"},
    "proof": {"low_shot_1pct_gain_over_supervised", "finetune_1pct_gain_over_supervised"},
    "reliability": TESTS | {"records_lost", "soak_memory_growth_fraction", "soak_step_time_growth_fraction"},
    "report": {
        *("html_mib_10k", "first_picture_seconds_10k", "frames_per_second_10k", "network_requests", "console_errors"),
    },
    "sources": {
        *("listing_1m_first_seconds", "listing_1m_again_seconds", "listing_bytes_per_image"),
        *("fuzz_files", "fuzz_failures"),
    },
    "step": {
        "first_step_over_imports",
        *(f"loop_over_bare_{key}" for key in ("w16", "w64", "224")),
        *(f"end_to_end_vs_{peer}_{key}" for peer in ("lightly", "byol_pytorch") for key in ("w16", "w64", "224")),
    },
    "views": {
        *("r32_vs_lightly", "r32_vs_albumentations", "small224_vs_lightly", "small224_vs_albumentations"),
        *("worker224_vs_lightly", "large224_vs_lightly", "prepared224_vs_lightly"),
    },
}


@pytest.mark.parametrize(
    "script",
    [pytest.param(p, id=p.stem, marks=[] if p.stem in CHEAP else pytest.mark.slow) for p in SCRIPTS],
)
def test_quick_run_writes_every_figure(script: Path, tmp_path: Path):
    out = tmp_path / "result.json"
    command = [sys.executable, str(script), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert set(result) == {"name", "machine", "command", "rows", "figures"}
    expected = FIGURES[script.stem]
    if "no CIFAR-10" in done.stdout:
        expected = {name for name in expected if not name.startswith(CIFAR10)}
    if "no spoken digits" in done.stdout:
        expected = {name for name in expected if not name.startswith("fsdd")}
    if "no Chromium here" in done.stdout:
        expected -= FIGURES["report"] - {"html_mib_10k"}
    for peer in ("lightly", "albumentations", "byol_pytorch"):
        if f"no {peer} here" in done.stdout:
            expected = {name for name in expected if peer not in name and not name.startswith(AHEAD)}
    expected = {name for name in expected - TESTS if not name.endswith(SLOW)}
    assert set(result["figures"]) == expected
    if script.stem in NOT_KEPT:
        return
    kept = ROOT / "benchmarks" / "results" / f"{script.stem}.json"
    assert set(json.loads(kept.read_text())["figures"]) == FIGURES[script.stem]
