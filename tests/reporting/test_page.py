"""A report is made of whatever a run folder holds, and runs nothing that is in there."""

import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import HOSTILE, colour
from PIL import Image

from ownlatent import OwnlatentError, report
from ownlatent.reporting.gallery import Gallery, queries, read_gallery


class Page(HTMLParser):
    """Elements, attributes and text of a page as a browser reads it."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.data, self._within = "", "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = "data" if (tag, dict(attrs).get("id")) == ("script", "data") else tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "data":
            self.data += data
        elif self._within not in ("script", "style"):
            self.text += data


def test_it_holds_what_the_run_folder_holds(hostile_run: Path) -> None:
    page = Page(hostile_run / "report.html")
    results = json.loads((hostile_run / "results.json").read_text())
    for verdict in results["verdicts"]:
        for line in verdict["words"]:
            assert line in page.text
    assert results["evaluations"][0]["data"]["test_fingerprint"] in page.text
    assert f"{100 * results['evaluations'][0]['top1']:.2f}" in page.text
    data = json.loads(page.data)["runs"][0]
    assert set(data["curves"]["columns"]) >= {"loss", "lr", "std", "rank", "images_per_second", "waiting"}
    assert next(encoder["name"] for encoder in data["gallery"]["encoders"]) == "trained"
    assert len(data["gallery"]["names"]) == 30 and len(data["gallery"]["queries"]) == 8
    for picture in ("curves.png", "views.png", "embedding.png", "neighbours.png"):
        with Image.open(hostile_run / picture) as opened:
            assert opened.width > 500, picture
    assert sum(tag == "img" and bool(of.get("alt")) for tag, of in page.tags) == sum(t == "img" for t, _ in page.tags)


def test_names_are_shown_and_never_markup(hostile_run: Path) -> None:
    page = Page(hostile_run / "report.html")
    assert all(name in page.text for name in HOSTILE)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    raw = (hostile_run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in raw and "</script><img" not in raw
    sources = [of[name] for _, of in page.tags for name in ("src", "href") if of.get(name)]
    assert all(re.match(r"data:|#", source or "") for source in sources)


def test_it_is_made_again_without_torch_from_the_folder_alone(hostile_run: Path, tmp_path: Path) -> None:
    shutil.copytree(hostile_run, tmp_path / "moved")
    code = "import sys; from ownlatent import report; report(sys.argv[1], map='pca'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "moved")]).returncode == 0
    first, again = (Page(path / "report.html") for path in (hostile_run, tmp_path / "moved"))
    assert json.loads(first.data)["runs"][0]["gallery"] == json.loads(again.data)["runs"][0]["gallery"]


def test_a_run_without_labels_shows_its_images_by_cluster(plain_run: Path) -> None:
    page = Page(plain_run / "report.html")
    assert "Nothing was measured against labels" in page.text
    gallery = json.loads(page.data)["runs"][0]["gallery"]
    assert len(gallery["names"]) == 60 and gallery["classes"] == [] and gallery["pairs"] == []
    assert {name.partition(".")[2] for name in gallery["names"]} <= {"jpg", "png", ""}


def broken(copied: Path, how: str) -> str:
    metrics = (copied / "metrics.csv").read_text().splitlines()
    if how == "a crash":
        (copied / "results.json").unlink()
        for name in ("gallery.npz", "views.png"):
            (copied / name).unlink()
        (copied / "metrics.csv").write_text("\n".join([*metrics[:3], metrics[3][:9]]))
        return "broke off after step 2"
    if how == "nothing but a recipe":
        for path in copied.iterdir():
            if path.is_file() and path.name != "recipe.json":
                path.unlink()
        return "nothing was trained yet"
    if how == "not a number":
        column = metrics[0].split(",").index("loss")
        cells = metrics[2].split(",")
        cells[column] = "nan"
        (copied / "metrics.csv").write_text("\n".join([*metrics[:2], ",".join(cells), *metrics[3:]]))
        return "not a number at some steps"
    if how == "one step":
        (copied / "metrics.csv").write_text("\n".join(metrics[:2]) + "\n")
        return "one measurement, which makes no curve"
    if how == "an empty table":  # as a kill leaves it that comes before the first row is on disk
        (copied / "metrics.csv").write_bytes(b"")
        return "nothing was trained yet"
    if how == "nulls":
        (copied / "results.json").write_text(
            '{"health": null, "evaluations": null, "verdicts": null, "training": null}'
        )
        return "broke off after step"
    if how == "torn files":
        for name in ("results.json", "gallery.npz", "env.json"):
            content = (copied / name).read_bytes()
            (copied / name).write_bytes(content[: len(content) // 2])
        return "results.json is broken"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["a crash", "nothing but a recipe", "not a number", "one step", "an empty table", "nulls", "torn files"]
)
def test_what_is_missing_is_said(how: str, copied: Path) -> None:
    expected = broken(copied, how)
    (copied / "report.html").unlink(missing_ok=True)
    assert report(copied) == copied / "report.html"
    page = Page(copied / "report.html")
    assert expected in page.text
    assert "NaN" not in page.data and json.loads(page.data)["runs"]


def test_entries_that_no_run_writes_are_one_sentence(copied: Path) -> None:
    (copied / "results.json").write_text(json.dumps({"evaluations": [{"protocol": "knn"}]}))
    with pytest.raises(OwnlatentError, match="does not hold what a run writes"):
        report(copied)


def test_runs_lie_side_by_side(hostile_run: Path, plain_run: Path, tmp_path: Path) -> None:
    out = report(hostile_run, plain_run, out=tmp_path / "both.html", map="pca")
    page = Page(out)
    runs = json.loads(page.data)["runs"]
    assert [run["name"] for run in runs] == [hostile_run.name, plain_run.name]
    assert all(run["gallery"] for run in runs)
    with pytest.raises(OwnlatentError, match="already there"):
        report(hostile_run, plain_run, out=out)
    report(hostile_run, out=out, overwrite=True)
    assert len(json.loads(Page(out).data)["runs"]) == 1


def test_maps_are_made_once_and_kept(hostile_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn")
    shutil.copytree(hostile_run, tmp_path / "run")

    def maps() -> dict[str, Any]:
        report(tmp_path / "run", map="tsne")
        encoders = json.loads(Page(tmp_path / "run" / "report.html").data)["runs"][0]["gallery"]["encoders"]
        return {encoder["name"]: encoder["maps"]["t-SNE"]["points"] for encoder in encoders}

    first, kept = maps(), (tmp_path / "run" / "maps.npz").stat().st_mtime_ns
    assert len(set(first.values())) == 3
    assert maps() == first and (tmp_path / "run" / "maps.npz").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map": "isomap"}, "no map 'isomap'"),
        ({"out": "."}, "is a folder"),
        ({"out": "/no/where/x.html"}, "cannot write"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, str], message: str, plain_run: Path) -> None:
    with pytest.raises(OwnlatentError, match=message):
        report(plain_run, **arguments)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(OwnlatentError, match="holds no run"):
        report(tmp_path)


def test_the_gallery_is_what_the_features_say(hostile_run: Path) -> None:
    """Neighbours are those of the features in the order of the cosine; components keep the distances."""
    gallery = read_gallery(hostile_run)
    assert isinstance(gallery, Gallery) and list(gallery.seen) == ["trained", "random", "pixels"]
    for seen in gallery.seen.values():
        assert seen.neighbours.shape == (30, 10)
        assert not (seen.neighbours == np.arange(30)[:, None]).any()
        assert all(len(set(row)) == 10 for row in seen.neighbours.tolist())
        # All 29 directions of 30 centred points are kept, so nearness in them is nearness of the features.
        points = seen.components.astype(np.float64)
        apart = np.square(points[:, None] - points[None]).sum(2)
        np.fill_diagonal(apart, np.inf)
        nearest = apart.argmin(1)
        close = apart[np.arange(30), seen.neighbours[:, 0]]
        np.testing.assert_allclose(close, apart[np.arange(30), nearest], atol=1e-4)
        assert np.isclose(seen.variance.sum(), 1, atol=1e-3) and (np.diff(seen.variance) <= 1e-6).all()
        assert seen.spectrum[0] == 1
    assert sorted(set(gallery.labels.tolist())) == list(range(5))
    assert len(set(gallery.labels[queries(gallery, 5)].tolist())) == 5


def test_thumbnails_are_the_images(hostile_run: Path) -> None:
    gallery = read_gallery(hostile_run)
    assert gallery is not None
    sheet = Image.open(io.BytesIO(gallery.sheets[0])).convert("RGB")
    side, columns = gallery.about["side"], gallery.about["columns"]
    for number, label in enumerate(gallery.labels.tolist()):
        left, top = number % columns * side, number // columns * side
        mean = np.asarray(sheet.crop((left, top, left + side, top + side))).reshape(-1, 3).mean(0)
        place = HOSTILE.index(gallery.about["classes"][label])
        assert np.abs(mean - colour(place).clip(15, 240)).max() < 15, (number, mean)
