"""What encoders are worth, and which of several is worth more."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.files import replace_file
from ownlatent.log import to_console, to_file
from ownlatent.run import Run, claimed
from ownlatent.train.recipe import coerce

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.backbones import OwnNetwork


def evaluate(
    run: str | Path | Run,
    *,
    train: Any = None,
    test: Any = None,
    network: "str | nn.Module | OwnNetwork | None" = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Say whether an encoder is better than what one could have had without it, and by how much.

    run: a run or its folder. train, test: labelled images, as `pretrain` takes them, or equally long lists of such
    for several data sets; with one of them alone, k-NN classifies each image by the others. network: where the run
    trained one of your own, a fresh module, which stays as it is, or FILE.py:NAME. fields: the options of
    `ownlatent evaluate --help` by name.

    Returns the entries that results.json then holds. Raises OwnlatentError for anything wrong with the input.
    """
    from ownlatent.proof.settings import settings

    options = settings(fields, coerce)
    run = run if isinstance(run, Run) else Run(run)
    trains, tests = _as_list(train), _as_list(test)
    if not trains and not tests:
        raise OwnlatentError("name labelled images: --train DATA --test DATA")
    if trains and tests and len(trains) != len(tests):
        raise OwnlatentError(f"--train is given {len(trains)} times and --test {len(tests)} times: give them in pairs")
    if not (trains and tests) and "protocols" not in fields:
        options = settings({**fields, "protocols": "knn"}, coerce)
    with to_console() as buffered:
        from ownlatent.backbones import own_network
        from ownlatent.export.encoder import load_encoder as load_trained
        from ownlatent.proof.evaluate import evaluate as judge
        from ownlatent.proof.evaluate import open_pairs, untrained_of
        from ownlatent.reporting.page import write_report
        from ownlatent.train.images import choose_device

        own = None if network is None else own_network(network)
        encoder = run.encoder if own is None else load_trained(run.folder, own)
        device = choose_device(options.accelerator)
        pairs = open_pairs(trains, tests, options, run.recipe.modality)
        untrained = untrained_of(run, encoder, own, options)
        with claimed(run.folder), to_file(run.folder, buffered):
            entries = judge(Run(run.folder, encoder), pairs, options, device, untrained)
            write_report(run.folder)
            return entries


def compare(*runs: str | Path, out: str | Path | None = None, overwrite: bool = False) -> list[str]:
    """Evaluated runs side by side, and by how much each is ahead of the first: lines of a table.

    out: a .csv or .md file to write the table to; overwrite: replace it if it is there. Raises OwnlatentError if the
    runs were not evaluated alike, naming the settings that differ.
    """
    from ownlatent.reporting.compare import compare as side_by_side
    from ownlatent.reporting.tables import aligned, as_csv, as_markdown

    if len(runs) < 2:
        raise OwnlatentError("name two runs or more: ownlatent compare RUN RUN")
    if len(set(map(str, runs))) < len(runs):
        raise OwnlatentError("a run is named twice: name different ones")
    found = {str(run): (Run(run).results["evaluations"], Run(run).folder / "predictions.npz") for run in runs}
    header, body, left_out = side_by_side(found)
    if out is not None:
        path = Path(out)
        if path.suffix not in (".csv", ".md"):
            raise OwnlatentError(f"{path} is no kind of table that can be written: end --out in .csv or .md")
        if path.exists() and not overwrite:
            raise OwnlatentError(f"{path} is already there: replace it by --overwrite, or give another --out")
        try:
            replace_file(path, (as_csv if path.suffix == ".csv" else as_markdown)(header, body).encode())
        except OSError as error:
            raise OwnlatentError(f"cannot write {path} ({error.strerror}): give another --out") from error
    return [*aligned(header, body), *(f"not compared: {line}" for line in left_out)]


def _as_list(value: Any) -> list[Any]:
    """Several data sets from one or a list of them."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
