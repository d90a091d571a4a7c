"""Files are written whole or not at all, and a JSON document that is not one is answered in one sentence."""

from __future__ import annotations

import os

import pytest

from kasmina_env.settings.documents import read_document, write_document, write_file


@pytest.fixture
def path(tmp_path):
    write_document(tmp_path / "a" / "thing.json", {"sizes": (1, 2), "name": "Größe"})
    return tmp_path / "a" / "thing.json"


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def test_what_is_written_is_read_back_as_plain_json(path):
    assert read_document(path, "sizes") == {"sizes": [1, 2], "name": "Größe"}
    assert names_in(path.parent) == ["thing.json"]


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "must be a JSON file, got another one: Expecting value"),
        (b'{"sizes": [1', "must be a JSON file, got another one: Expecting"),
        (b'{"sizes": "\xff"}', "must be a JSON file, got another one: 'utf-8' codec"),
        (b"[" * 200_000, "must be a JSON file, got another one: maximum recursion depth"),
        (b"[1]", "must hold a JSON object, got [1]"),
        (b"{}", "must have the key 'sizes', got nothing"),
        (b'{"size": 1, "name": 2}', "must have the key 'sizes', got size, name"),
    ],
)
def test_a_document_that_is_none_is_answered_in_one_sentence(path, content, sentence):
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_document(path, "sizes")
    assert f"thing.json` {sentence}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(path):
    with pytest.raises(FileExistsError, match=r"`path` must be new, got .*thing\.json, which exists"):
        write_document(path, {"sizes": 3})
    assert read_document(path)["sizes"] == [1, 2]
    write_document(path, {"sizes": 3}, overwrite=True)
    assert read_document(path) == {"sizes": 3}


@pytest.mark.parametrize("bad", [float("nan"), object(), b"bytes"], ids=["nan", "object", "bytes"])
def test_a_value_that_json_does_not_have_changes_nothing(path, bad):
    with pytest.raises(ValueError, match=r"^`thing\.json` must hold plain JSON values: "):
        write_document(path, {"sizes": bad}, overwrite=True)
    assert read_document(path)["sizes"] == [1, 2]
    assert names_in(path.parent) == ["thing.json"]


def test_a_disk_that_is_full_leaves_what_was_there(path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_file(path, b"new", overwrite=True)
    assert read_document(path)["sizes"] == [1, 2]
    assert names_in(path.parent) == ["thing.json"]
