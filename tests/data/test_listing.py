"""The listing of a folder: what is found, when the kept one is believed, and what it costs."""

import errno
import logging
import multiprocessing
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep, time_ns

import numpy as np
import pytest

from ownlatent.data.index import listing
from ownlatent.data.index.listing import Listing, list_images
from ownlatent.errors import OwnlatentError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for listings, as yet not there; the smallest folders are kept, and however new they are."""
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "SMALL", 0)
    monkeypatch.setattr(listing, "SETTLED", 0)
    return tmp_path / "cache" / "listings"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images in three folders, an empty folder, and one more folder with an image outside the root."""
    return make(tmp_path / "root", "a/0.png", "a/1.png", "b/2.png", "b/c/3.png", "empty/none.txt", "../outside/4.png")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The folders that have been read, as it grows."""
    folders: list[bytes] = []
    scandir = os.scandir

    def counted(path: bytes) -> Iterator[os.DirEntry]:
        folders.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    return folders


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(found: Listing) -> list[str]:
    return [os.fsdecode(found.relative(index)) for index in range(len(found))]


def kept(root: Path) -> Listing:
    """The listing of a folder, which from now on lies in the cache."""
    sleep(0.02)  # what changes from now on gets another time
    found = list_images(root)
    assert found.memory is not None
    return found


def replaced(folder: Path) -> None:
    """Another folder of the same name and the same times as far as anyone can set them."""
    before = folder.stat()
    folder.rename(folder.parent.parent / "away")
    make(folder, "0.png", "new.png")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(folder.parent, ns=(before.st_atime_ns, before.st_mtime_ns))


def unpacked_over(folder: Path) -> None:
    """What an archive does that holds the folder itself: the time of the folder is set back."""
    before = folder.stat()
    make(folder, "new.png")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def pointed_elsewhere(link: Path) -> None:
    link.unlink()
    link.symlink_to(make(link.parents[1] / "elsewhere", "5.png"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a new image": lambda root: make(root, "a/new.png"),
    "a new image in an empty folder": lambda root: make(root, "empty/new.png"),
    "a new image in the root": lambda root: make(root, "new.png"),
    "a new folder": lambda root: make(root, "b/c/d/new.png"),
    "an image is gone": lambda root: (root / "b" / "c" / "3.png").unlink(),
    "an image is renamed": lambda root: (root / "a" / "0.png").rename(root / "a" / "2.png"),
    "an image is moved": lambda root: (root / "a" / "0.png").rename(root / "empty" / "0.png"),
    "a folder is gone": lambda root: [(root / "b/c/3.png").unlink(), (root / "b/c").rmdir()],
    "a folder is renamed": lambda root: (root / "b" / "c").rename(root / "b" / "z"),
    "a folder is replaced": lambda root: replaced(root / "a"),
    "an archive is unpacked over a folder": lambda root: unpacked_over(root / "a"),
    "a new image behind a link": lambda root: make(root / "link", "new.png"),
    "a new image behind two links": lambda root: make(root / "chain", "new.png"),
    "a link leads elsewhere": lambda root: pointed_elsewhere(root / "link"),
    "a link behind a link leads elsewhere": lambda root: pointed_elsewhere(root.parent / "links" / "middle"),
    "a link that led nowhere leads somewhere": lambda root: make(root.parent / "nowhere", "new.png"),
    "what led to a known folder leads elsewhere": lambda root: pointed_elsewhere(root.parent / "links" / "again"),
}


def with_links(root: Path) -> Path:
    (root / "link").symlink_to(root.parent / "outside")
    (root.parent / "links").mkdir()
    (root.parent / "links" / "middle").symlink_to(make(root.parent / "last", "6.png"))
    (root / "chain").symlink_to(root.parent / "links" / "middle")
    (root / "dangling").symlink_to(root.parent / "nowhere")
    (root.parent / "links" / "again").symlink_to(root / "b")
    (root / "twice").symlink_to(root.parent / "links" / "again")
    return root


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]) -> None:
    before = names(kept(with_links(root)))
    change(root)
    after = names(list_images(root))
    monkeypatch.setenv("OWNLATENT_CACHE", str(root.parent / "another"))
    assert after == names(list_images(root)) != before


def test_where_nothing_has_changed_no_folder_is_read(root: Path, read: list[bytes]) -> None:
    first = kept(with_links(root))
    assert len(read) == 1 + 4 + 2, "the root, its folders, and two behind links"
    read.clear()
    (root / "a" / "0.png").write_text("content is no matter of the listing")
    second = list_images(root)
    assert names(second) == names(first)
    assert second.skipped == first.skipped == [(b"dangling/", "a link to nothing")]
    assert read == [os.fsencode(root / "dangling") + b"/"], "only what could not be read is tried again"


def test_the_kept_listing_is_mapped_and_takes_no_memory_for_each_image(tmp_path: Path) -> None:
    make(tmp_path / "many", *(f"{number % 7}/{number:05d}.jpg" for number in range(5_000)))
    found = kept(tmp_path / "many")
    assert isinstance(found.memory, np.memmap)
    assert all(np.shares_memory(part, found.memory) for part in found.parts.values())
    tracemalloc.start()
    again = list_images(tmp_path / "many")
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(again) == 5_000 and grown < 50_000


def test_the_same_folder_by_another_path_has_the_same_listing(
    root: Path, read: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(root)
    read.clear()
    (root.parent / "alias").symlink_to(root)
    monkeypatch.chdir(root / "a")
    for path in (root.parent / "alias", Path(".."), root / "b" / ".."):
        assert len(list_images(path)) == 4
    assert not read


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-5],
    "cut off in the header": lambda content: content[:50],
    "longer": lambda content: content + b"\0",
    "one wrong byte": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "another version": lambda content: content.replace(b"listing 1", b"listing 0", 1),
    "something else": lambda content: b"\x89PNG" + bytes(2000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_listing_is_made_anew(
    root: Path, read: list[bytes], cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    expected = names(kept(root))
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert names(list_images(root)) == expected
    assert file.read_bytes() == content
    read.clear()
    assert names(list_images(root)) == expected and not read


def test_a_listing_of_another_folder_is_not_taken(root: Path, cache: Path) -> None:
    kept(root)
    (ours,) = cache.iterdir()
    kept(root.parent / "outside")
    (theirs,) = set(cache.iterdir()) - {ours}
    theirs.write_bytes(ours.read_bytes())
    assert names(list_images(root.parent / "outside")) == ["4.png"]


def test_a_listing_for_other_endings_is_not_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(make(root, "new.bild"))
    monkeypatch.setitem(listing.SEARCHED, "image", {*listing.SEARCHED["image"], ".bild"})
    assert "new.bild" in names(list_images(root))


def test_a_cache_that_cannot_be_written_is_done_without(
    root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert len(list_images(root)) == 4
    assert list(cache.iterdir()) == [], "nothing half-written is left"
    make(tmp_path, "a file")
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path / "a file"))
    found = list_images(root)
    assert len(found) == 4 and found.memory is None


def test_small_folders_leave_nothing_behind(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SMALL", 10)
    make(tmp_path / "few", *(f"{number}.png" for number in range(9)))
    list_images(tmp_path / "few")
    assert not cache.exists()
    make(tmp_path / "few", "9.png")
    kept(tmp_path / "few")
    assert len(list(cache.iterdir())) == 1


def test_a_folder_that_changed_just_now_is_not_kept(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next change could leave it with the same time."""
    monkeypatch.setattr(listing, "SETTLED", 2 * 10**9)
    list_images(root)
    assert not cache.exists()
    monkeypatch.setattr(listing, "time_ns", lambda: time_ns() + 3 * 10**9)
    kept(root)


def test_a_date_far_ahead_does_not_count_as_just_now(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SETTLED", 2 * 10**9)
    monkeypatch.setattr(listing, "time_ns", lambda: time_ns() + 3 * 10**9)
    os.utime(root / "b", ns=(0, time_ns() + 400 * 86_400 * 10**9))
    kept(root)


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder() -> Path | None:
        file = listing._kept_in(b"/images", "image")
        return file and file.parent.parent

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder() == tmp_path / "cache"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWNLATENT_CACHE", "here")
    assert folder() == tmp_path / "here"
    monkeypatch.delenv("OWNLATENT_CACHE")
    assert folder() == tmp_path / "xdg" / "ownlatent"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder() == tmp_path / "home" / ".cache" / "ownlatent"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it does for a user without a home
    assert folder() is None


def test_processes_that_write_at_once_do_not_disturb_each_other(root: Path, cache: Path) -> None:
    make(root, *(f"d/{number:04d}.png" for number in range(1_000)))
    sleep(0.02)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()

    def start() -> None:
        for _ in range(10):
            with suppress(OSError):
                for file in cache.iterdir():
                    file.unlink()
            barrier.wait()
            results.put(len(list_images(root)))

    processes = [context.Process(target=start) for _ in range(4)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in range(40)}
    for process in processes:
        process.join()
    assert found == {1_004} and {process.exitcode for process in processes} == {0}


@pytest.mark.parametrize(
    "pattern",
    ["n{0:08d}/n{0:08d}_{1}.JPEG", "{0}/IMG_20230714_1830{1:05d}_BURST_COVER~2.jpg", "product-{1:09d}/front_view.webp"],
)
def test_an_image_takes_at_most_200_bytes(tmp_path: Path, cache: Path, pattern: str) -> None:
    make(tmp_path / "many", *(pattern.format(number % 10, number) for number in range(2_000)))
    found = kept(tmp_path / "many")
    (file,) = cache.iterdir()
    assert len(found) == 2_000 and file.stat().st_size / len(found) < 200


def test_the_order_is_that_of_whole_paths(tmp_path: Path) -> None:
    tricky = [
        "a.png",
        "a/b.png",
        "a-b/x.png",
        "a b/x.png",
        "a/-.png",
        "ab/0.png",
        "a0.png",
        "B/z.png",
        "ä/ö.png",
        "z.png",
    ]
    tricky += ["a/b/c.png", "a/b-c.png", "a/b0/c.png", "\N{SLEEPING FACE}.png", "\uff5e.png"]
    assert names(list_images(make(tmp_path / "root", *tricky))) == sorted(tricky)


def test_a_loop_of_links_ends(root: Path) -> None:
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to("self")
    (root / "b" / "there").symlink_to(root.parent / "outside")
    (root.parent / "outside" / "back").symlink_to(root / "b")
    found = list_images(root)
    assert names(found) == ["a/0.png", "a/1.png", "b/2.png", "b/c/3.png", "b/there/4.png"]
    assert [folder for folder, _ in found.skipped] == [b"a/self/"]


def test_folders_that_cannot_be_read_are_passed_over_and_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbidden = {b"/root/a/": PermissionError(errno.EACCES, "Permission denied")}
    forbidden[b"/root/b/c/"] = OSError(errno.EIO, "Input/output error")
    scandir = os.scandir

    def refuse(path: bytes) -> Iterator[os.DirEntry]:
        for end, error in forbidden.items():
            if path.endswith(end):
                raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = kept(root)
    assert names(found) == ["b/2.png"]
    assert found.skipped == [(b"a/", "permission denied"), (b"b/c/", "input/output error")]
    assert list_images(root).skipped == found.skipped
    forbidden.popitem()
    assert names(list_images(root)) == ["b/2.png", "b/c/3.png"]
    forbidden[b"/root/"] = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError):
        list_images(make(root, "new.png"))


def test_a_folder_that_vanishes_while_we_read_is_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def remove(path: bytes) -> Iterator[os.DirEntry]:
        if path.endswith(b"/a/"):
            (root / "b" / "c" / "3.png").unlink()
            (root / "b" / "c").rmdir()
            (root / "b").rename(root.parent / "b")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", remove)
    found = list_images(root)
    assert names(found) == ["a/0.png", "a/1.png"]
    assert found.skipped == [(b"b/", "no longer there")]


def test_names_that_are_no_text_are_found(tmp_path: Path) -> None:
    odd = [b"caf\xe9.png", b"line\nbreak.png", "caf\u00e9.png".encode()]
    (tmp_path / "root").mkdir()
    try:
        for name in odd:
            Path(os.fsdecode(os.fsencode(tmp_path / "root") + b"/" + name)).touch()
    except OSError:
        pytest.skip("this file system knows only UTF-8")
    for found in (kept(tmp_path / "root"), list_images(tmp_path / "root")):
        assert [found.relative(index) for index in range(3)] == sorted(odd)
        assert all(os.path.exists(found.path(index)) for index in range(3))


def test_pickled_it_is_mapped_again(root: Path) -> None:
    make(root, *(f"d/{number:04d}.png" for number in range(1_000)))
    found = kept(root)
    parcel = pickle.dumps(found)
    copy = pickle.loads(parcel)
    assert len(parcel) < 500 and isinstance(copy.memory, np.memmap)
    assert names(copy) == names(found)


def test_pickled_it_is_the_same_listing_though_the_file_is_another(root: Path, cache: Path) -> None:
    found = kept(root)
    expected = names(found)
    early = pickle.dumps(found)
    kept(make(root, "new.png"))
    assert names(found) == expected, "a mapped file lives on"
    assert names(pickle.loads(pickle.dumps(found))) == expected
    with pytest.raises(OwnlatentError, match="start again"):
        pickle.loads(early)


def test_a_listing_that_is_not_kept_is_pickled_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SMALL", 100)
    found = list_images(with_links(root))
    copy = pickle.loads(pickle.dumps(found))
    assert found.memory is None and names(copy) == names(found) and copy.skipped == found.skipped


def test_indices_are_those_of_a_sequence(root: Path) -> None:
    found = list_images(root)
    assert found.relative(-1) == b"b/c/3.png"
    for outside in (4, -5):
        with pytest.raises(IndexError):
            found.relative(outside)


def test_a_long_search_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(0, 1000))
    monkeypatch.setattr(listing, "monotonic", lambda: next(clock))
    make(tmp_path / "many", *(f"{number}.png" for number in range(9_500)))
    with caplog.at_level(logging.INFO, "ownlatent"):
        list_images(tmp_path / "many")
    # A second passes with every look at the clock: every thousand files, and once for every message.
    assert caplog.messages == ["listing    2999 files so far ...", "listing    8999 files so far ..."]
