"""`ownlatent serve` in a process of its own: a list of runs, their reports, and nothing else."""

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ownlatent.cli import main


@pytest.fixture(scope="module")
def served(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port, and the folder: two runs, one of which is broken, and a file that is nobody's business."""
    root = hostile_run.parent
    (root / "broken").mkdir()
    (root / "broken" / "recipe.json").write_text("{")
    (root / "secret.txt").write_text("secret")
    command = [sys.executable, "-u", "-m", "ownlatent", "serve", str(root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    port = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert port, line
    yield int(port[1]), root
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def ask(port: int, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_it_lists_runs_with_their_verdicts(served: tuple[int, Path], hostile_run: Path) -> None:
    status, page = ask(served[0], "/")
    assert status == 200 and "run &lt;b&gt;&amp;amp;" in page and "finished" in page
    assert "broken holds no run that can be read" in page
    status, report = ask(served[0], "/run/" + quote(hostile_run.name))
    assert status == 200 and "<h2>Explorer</h2>" in report


@pytest.mark.parametrize("path", ["/run/../secret.txt", "/secret.txt", "/run/nothing", "/run/%2e%2e/%2e%2e/etc/passwd"])
def test_nothing_else_is_given(path: str, served: tuple[int, Path]) -> None:
    status, text = ask(served[0], path)
    assert status == 404 and "secret" not in text


def test_a_report_that_lies_in_a_run_is_not_handed_out(served: tuple[int, Path], hostile_run: Path) -> None:
    before = (hostile_run / "report.html").read_bytes()
    try:
        (hostile_run / "report.html").write_text("<script>forged</script>")
        status, page = ask(served[0], "/run/" + quote(hostile_run.name))
    finally:
        (hostile_run / "report.html").write_bytes(before)
    assert status == 200 and "forged" not in page


def test_other_names_of_this_machine_are_refused(served: tuple[int, Path]) -> None:
    assert ask(served[0], "/", "evil.example:80")[0] == 403
    assert ask(served[0], "/", f"localhost:{served[0]}")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["no/such/folder"], "there is no folder"), ([".", "--port", "x"], "--port"), ([".", "--port", "70000"], "65535")],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1


def test_a_port_that_is_taken_is_named(served: tuple[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(served[1]), "--port", str(served[0])])
    assert ended.value.code == 2 and "give another --port" in capsys.readouterr().err
