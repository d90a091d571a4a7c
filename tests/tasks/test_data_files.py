"""Data files: found, read, verified and fetched, and each way in which they can be wrong is said in one sentence."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gymnasium as gym
import pytest

from kasmina_env.cli.main import run
from kasmina_env.tasks import TASKS
from kasmina_env.tasks.fetch import fetch
from kasmina_env.tasks.files import DATASETS, DataFile, Dataset, find, find_file, folders, read, read_all

CONTENTS = bytes(range(256)) * 50
PACKED = gzip.compress(CONTENTS, mtime=0)


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


PICTURES = DataFile("pictures.gz", len(PACKED), sha256(PACKED), sha256(CONTENTS))
ARCHIVE = DataFile("archive.tar.gz", len(PACKED), sha256(PACKED))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The only place where files are looked for."""
    for name in DATASETS:
        alone = dataclasses.replace(DATASETS.get(name), system_folders=())
        monkeypatch.setitem(DATASETS._infos, name, alone)
    monkeypatch.delenv("KASMINA_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kasmina"


def put(folder, name: str, contents: bytes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(contents)
    return folder / name


def toy(*urls: str, files=(PICTURES, ARCHIVE), system_folders=()) -> Dataset:
    return Dataset("toy", "For tests", urls, files, system_folders)


# ── where files are ─────────────────────────────────────────────────────────────────────────────


def test_the_users_folder_comes_before_the_cache_and_the_cache_before_the_system(cache, tmp_path, monkeypatch):
    dataset = toy(system_folders=(str(tmp_path / "system"),), files=(ARCHIVE,))
    places = [tmp_path / "system", cache / "toy", tmp_path / "mine" / "toy"]
    for place in places:
        path = put(place, ARCHIVE.name, PACKED)
        monkeypatch.setenv("KASMINA_DATA", str(tmp_path / "mine"))
        assert find(dataset) == {ARCHIVE.name: path}
    assert folders(dataset) == places[::-1]


def test_a_missing_file_is_one_sentence_that_names_the_command(cache):
    put(cache / "toy", PICTURES.name, PACKED)
    with pytest.raises(FileNotFoundError) as caught:
        find(toy())
    place = cache / "toy"
    assert str(caught.value) == (
        f"`toy` must have its files on disk, got no archive.tar.gz in {place}. Run `kasmina data fetch toy`."
    )


def test_an_environment_without_its_files_says_so_and_fetches_nothing(cache):
    with pytest.raises(FileNotFoundError, match=r"^`cifar10` must have .* Run `kasmina data fetch cifar10`\.$"):
        gym.make("Kasmina/CIFAR10-v0")
    assert not cache.exists()


# ── what is in them ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name, contents",
    [("pictures.gz", PACKED), ("pictures.gz", gzip.compress(CONTENTS, 1, mtime=5)), ("pictures", CONTENTS)],
    ids=["as published", "compressed anew", "unpacked"],
)
def test_what_a_file_holds_decides_and_not_how_it_was_compressed(cache, name, contents):
    path = put(cache / "toy", name, contents)
    dataset = toy(files=(PICTURES,))
    assert find(dataset) == {"pictures.gz": path}
    assert read_all(dataset) == {"pictures.gz": CONTENTS}


def flipped(contents: bytes, place: int) -> bytes:
    return contents[:place] + bytes([contents[place] ^ 1]) + contents[place + 1 :]


@pytest.mark.parametrize(
    "file, name, contents, rule",
    [
        (PICTURES, "pictures.gz", PACKED[:-20], "be a whole gzip file"),
        (PICTURES, "pictures.gz", b"", "hold data of SHA-256"),
        (PICTURES, "pictures.gz", flipped(PACKED, len(PACKED) // 2), "be a whole gzip file"),
        (PICTURES, "pictures.gz", b"<html>not found</html>", "be a whole gzip file"),
        (PICTURES, "pictures.gz", gzip.compress(CONTENTS + b"!"), "hold data of SHA-256"),
        (PICTURES, "pictures", flipped(CONTENTS, 7), "hold data of SHA-256"),
        (ARCHIVE, "archive.tar.gz", flipped(PACKED, 3), "hold data of SHA-256"),
        (ARCHIVE, "archive.tar.gz", PACKED[:-1], "hold data of SHA-256"),
    ],
    ids=["cut", "empty", "bit flipped", "a web page", "other data", "unpacked, flipped", "archive, flipped", "cut too"],
)
def test_a_file_that_is_not_what_was_published_is_one_sentence(tmp_path, file, name, contents, rule):
    path = put(tmp_path, name, contents)
    with pytest.raises(ValueError, match="Run `kasmina data fetch toy`") as caught:
        read(toy(), file, path)
    assert str(caught.value).startswith(f"`{path}` must {rule}")
    assert "\n" not in str(caught.value)


# ── from elsewhere ──────────────────────────────────────────────────────────────────────────────


class Handler(SimpleHTTPRequestHandler):
    """Serves ranges and writes down which; below `breaks/` 100 bytes of each at most, below `whole/` none."""

    asked: list[str | None] = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        how, _, name = self.path.strip("/").rpartition("/")
        path = Path(self.directory) / name
        if not path.is_file() or how not in ("", "breaks", "whole"):
            self.send_error(404)
            return
        start = 0 if how == "whole" else int((self.headers.get("Range") or "bytes=0-")[6:-1])
        contents = path.read_bytes()[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents[:100] if how == "breaks" else contents)


@pytest.fixture
def server(tmp_path):
    """A folder, and the URL under which it is served here."""
    folder = tmp_path / "server"
    folder.mkdir()
    Handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def test_fetching_puts_whole_files_where_they_are_found(cache, server):
    folder, url = server
    for file in (PICTURES, ARCHIVE):
        put(folder, file.name, PACKED)
    paths = fetch(toy(url))
    assert paths == find(toy()) == {file.name: cache / "toy" / file.name for file in (PICTURES, ARCHIVE)}
    assert read_all(toy()) == {"pictures.gz": CONTENTS, "archive.tar.gz": PACKED}


def test_progress_is_reported_up_to_the_last_byte(cache, server):
    folder, url = server
    put(folder, ARCHIVE.name, PACKED)
    seen = []
    fetch(toy(url, files=(ARCHIVE,)), lambda file, size: seen.append((file, size)))
    assert seen[-1] == (ARCHIVE, len(PACKED))


def test_an_interrupted_fetch_goes_on_where_it_stopped(cache, server):
    folder, url = server
    put(folder, ARCHIVE.name, PACKED)
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"ended after [12]00 of \d+ bytes\. Try again"):
            fetch(toy(url + "breaks/", files=(ARCHIVE,)))
        assert find_file(toy(), ARCHIVE) is None  # what is there is not the file yet
    fetch(toy(url, files=(ARCHIVE,)))
    assert Handler.asked == [None, "bytes=100-", "bytes=200-"]
    assert read_all(toy(files=(ARCHIVE,))) == {"archive.tar.gz": PACKED}
    assert [path.name for path in (cache / "toy").iterdir()] == [ARCHIVE.name]


@pytest.mark.parametrize(
    "remains", [b"<html>", PACKED[:50], PACKED, PACKED + b"!"], ids=["a web page", "cut", "whole", "long"]
)
@pytest.mark.parametrize("how", ["", "whole/"], ids=["ranges", "no ranges"])
def test_whatever_an_interrupted_fetch_has_left_the_next_one_ends_well(cache, server, how, remains):
    folder, url = server
    put(folder, ARCHIVE.name, PACKED)
    put(cache / "toy", f"{ARCHIVE.name}.part", remains)
    fetch(toy(url + how, files=(ARCHIVE,)))
    assert read_all(toy(files=(ARCHIVE,))) == {"archive.tar.gz": PACKED}


def test_what_is_whole_already_is_not_fetched_again(cache):
    for file in (PICTURES, ARCHIVE):
        put(cache / "toy", file.name, PACKED)
    assert len(fetch(toy())) == 2  # there is no URL to fetch from


@pytest.mark.parametrize("remains", [PACKED[:100], b"", flipped(PACKED, 9)], ids=["cut", "empty", "flipped"])
def test_a_broken_file_is_replaced_by_a_whole_one(cache, server, remains):
    folder, url = server
    put(folder, PICTURES.name, PACKED)
    put(cache / "toy", PICTURES.name, remains)
    fetch(toy(url, files=(PICTURES,)))
    assert read_all(toy(files=(PICTURES,))) == {"pictures.gz": CONTENTS}


def test_a_broken_unpacked_file_does_not_hide_the_fetched_one(cache, server):
    folder, url = server
    put(folder, PICTURES.name, PACKED)
    put(cache / "toy", "pictures", CONTENTS[:-1])
    fetch(toy(url, files=(PICTURES,)))
    assert read_all(toy(files=(PICTURES,))) == {"pictures.gz": CONTENTS}


WRONG = [(PACKED[:-5], "ended after"), (flipped(PACKED, 30), "data of SHA-256"), (PACKED * 99, "data of SHA-256")]


def test_a_server_that_knows_no_ranges_is_asked_once(cache, server):
    folder, url = server
    put(folder, ARCHIVE.name, PACKED)
    put(cache / "toy", f"{ARCHIVE.name}.part", PACKED[:50])
    fetch(toy(url + "whole/", files=(ARCHIVE,)))
    assert Handler.asked == ["bytes=50-"]


@pytest.mark.parametrize("served, reason", [*WRONG, (None, "HTTP Error 404")], ids=["cut", "flipped", "long", "none"])
def test_what_is_served_wrong_never_becomes_the_file(cache, server, served, reason):
    folder, url = server
    if served is not None:
        put(folder, ARCHIVE.name, served)
    with pytest.raises(ConnectionError, match=rf"^`toy` must be fetched whole, got {url}.*{reason}.*Try again, or put"):
        fetch(toy(url, files=(ARCHIVE,)))
    assert find_file(toy(), ARCHIVE) is None


def test_a_broken_connection_leaves_the_file_that_was_there(cache):
    path = put(cache / "toy", ARCHIVE.name, PACKED[:50])
    with pytest.raises(ConnectionError, match=r"^`toy` must be fetched whole, got http://127\.0\.0\.1:9/"):
        fetch(toy("http://127.0.0.1:9/", files=(ARCHIVE,)))
    assert [*(cache / "toy").iterdir()] == [path]
    assert path.read_bytes() == PACKED[:50]


def test_the_next_url_is_tried(cache, server):
    folder, url = server
    put(folder, ARCHIVE.name, PACKED)
    fetch(toy(url + "elsewhere/", url, files=(ARCHIVE,)))
    assert read_all(toy(files=(ARCHIVE,))) == {"archive.tar.gz": PACKED}


# ── the table and the command ───────────────────────────────────────────────────────────────────


def test_a_dataset_is_a_task_and_its_table_is_in_order():
    datasets = [DATASETS.get(name) for name in DATASETS]
    assert all(dataset.name in TASKS for dataset in datasets)
    assert all(url.endswith("/") for dataset in datasets for url in dataset.urls)
    sums = [s for dataset in datasets for file in dataset.files for s in (file.sha256, file.plain_sha256) if s]
    assert all(len(s) == 64 and set(s) <= set("0123456789abcdef") for s in sums)
    assert len(set(sums)) == len(sums)


def said(capsys, *words: str) -> str:
    run(["data", *words])
    return " ".join(capsys.readouterr().out.split())


def test_the_list_names_every_dataset_and_how_to_get_it(cache, capsys):
    out = said(capsys, "list")
    assert all(name in out for name in DATASETS)
    assert "not here: kasmina data" in out


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["fetch", "fashionmnist"], "Did you mean 'fashion_mnist'?"),
        (["verify", "cifar"], "`dataset` must be one of cifar10, fashion_mnist, got 'cifar'. Did you mean 'cifar10'?"),
        (["verify", "cifar10"], "Run `kasmina data fetch cifar10`."),
        (["fetch"], "Missing from kasmina data fetch: NAME"),
    ],
)
def test_a_wrong_word_is_answered_with_one_sentence(cache, capsys, words, sentence):
    with pytest.raises(SystemExit, match="2"):
        run(["data", *words])
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_verify_finds_a_broken_file_among_all(cache, capsys):
    put(cache / "cifar10", "cifar-10-binary.tar.gz", b"broken")
    with pytest.raises(SystemExit, match="2"):
        run(["data", "verify"])
    assert "must hold data of SHA-256 c4a38c50" in " ".join(capsys.readouterr().err.split())


def test_verify_says_what_is_not_here(cache, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(["data", "verify"])
    out, err = capsys.readouterr()
    assert "cifar10  not here: kasmina data fetch cifar10" in out
    assert "There are no files of any dataset to verify." in err


def test_fetch_shows_its_progress_and_says_where_the_files_are(cache, server, capsys, monkeypatch):
    folder, url = server
    put(folder, ARCHIVE.name, PACKED)
    monkeypatch.setitem(DATASETS._infos, "toy", toy(url, files=(ARCHIVE,)))
    run(["data", "fetch", "toy"])
    out, err = capsys.readouterr()
    assert f"{ARCHIVE.name}: 0 of 0 MB" in err
    assert f"ok  toy  {cache / 'toy' / ARCHIVE.name}" in out
    assert read_all(toy(files=(ARCHIVE,))) == {"archive.tar.gz": PACKED}
