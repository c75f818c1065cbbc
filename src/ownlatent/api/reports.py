"""Looking at runs: a page that holds everything, and a list of the runs below a folder."""

from pathlib import Path

from ownlatent.errors import OwnlatentError
from ownlatent.log import to_console
from ownlatent.train.recipe import coerce


def report(*runs: str | Path, out: str | Path | None = None, map: str = "auto", overwrite: bool = False) -> Path:
    """Write one HTML file that shows runs side by side, from their folders alone; returns its path.

    out: where; without it RUN/report.html, for several runs report.html here. map: "pca", or "tsne" or "umap" beside
    it, where scikit-learn or umap-learn is installed; "auto" makes t-SNE of up to 2,000 images. overwrite: replace
    what is in `out`; a run's own report is always replaced. Raises OwnlatentError if a folder holds no run.
    """
    from ownlatent.reporting.maps import check_map
    from ownlatent.reporting.page import write_page

    if not runs:
        raise OwnlatentError("name a run folder: ownlatent report RUN")
    check_map(map)
    own = out is None and len(runs) == 1
    path = Path(runs[0]) / "report.html" if own else Path(out or "report.html")
    if path.is_dir():
        raise OwnlatentError(f"{path} is a folder: give --out FILE.html")
    if path.exists() and not (own or overwrite):
        raise OwnlatentError(f"{path} is already there: replace it by --overwrite, or give another --out")
    with to_console():
        try:
            return write_page([Path(run) for run in runs], path, map)
        except OSError as error:
            raise OwnlatentError(f"cannot write {path} ({error.strerror}): give another --out") from error


def serve(folder: str | Path, *, port: int | str = 8765) -> None:
    """List the runs below a folder with their verdicts and reports, at an address of this machine alone, until Ctrl-C.

    port: 0 takes any that is free. Raises OwnlatentError if the folder is not there or the port is taken.
    """
    from ownlatent.reporting.server import serve as answer

    number = coerce(port, int, "port")
    if not 0 <= number < 65536:
        raise OwnlatentError(f"--port is a number from 0 to 65535, not {number}")
    if not Path(folder).is_dir():
        raise OwnlatentError(f"there is no folder {folder}: name one that holds runs")
    with to_console():
        answer(Path(folder), number)
