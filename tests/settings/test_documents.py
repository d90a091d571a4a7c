"""A payload and its document: written whole or not at all, and any damage is found in one sentence."""

from __future__ import annotations

import json

import pytest

from kasmina_env.settings.documents import document_path, load_pair, save_pair

DOCUMENT = {"kind": "thing", "schema": 1, "sizes": (1, 2), "facts": {"x": 0.1}}


@pytest.fixture
def path(tmp_path):
    save_pair(tmp_path / "a" / "thing.bin", b"payload" * 100, DOCUMENT)
    return tmp_path / "a" / "thing.bin"


def load(path):
    return load_pair(path, "thing", 1, ("sizes", "facts"))


def change(path, **values: object) -> None:
    """Edit the document by hand; None drops a key."""
    document = {**json.loads(document_path(path).read_text()), **values}
    document_path(path).write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def test_what_is_written_is_read_back_as_plain_json(path):
    payload, document = load(path)
    assert payload == b"payload" * 100
    assert document == {**DOCUMENT, "sizes": [1, 2]}
    assert sorted(file.name for file in path.parent.iterdir()) == ["thing.bin", "thing.json"]


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1], lambda c: b"", lambda c: c + b"x", lambda c: flip(c, 0), lambda c: flip(c, 350)],
    ids=["cut short", "empty", "too long", "first bit", "middle bit"],
)
def test_a_damaged_payload_is_found(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"thing\.bin` must be as it was written, got other content than thing\.json"):
        load(path)


def test_no_flipped_bit_and_no_cut_of_the_document_goes_unnoticed(path):
    content = document_path(path).read_bytes()
    for place in range(len(content.rstrip())):
        for damaged in (flip(content, place), content[:place]):
            document_path(path).write_bytes(damaged)
            try:
                _, document = load(path)
            except ValueError as error:
                assert "thing.json` must" in str(error) or "thing.bin` must" in str(error)  # noqa: PT017
            else:
                assert document == {**DOCUMENT, "sizes": [1, 2]}  # a bit of the layout


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"schema": 2}, "json` must have 1 as schema, got 2. Save it with this version."),
        ({"kind": "other"}, "json` must have 'thing' as kind, got 'other'. Save it with this version."),
        ({"facts": None}, "json` must have the key 'facts', got kind, schema, sizes, sha256. Name or write it anew."),
        ({"sha256": None}, "json` must have the key 'sha256', got kind, schema, sizes, facts. Name or write it anew."),
        ({"sha256": 3}, "json` must be as it was written"),
        ({"facts": {"x": 0.2}}, "json` must be as it was written"),
    ],
)
def test_a_document_changed_by_hand_is_answered_in_one_sentence(path, values, sentence):
    change(path, **values)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load(path)
    assert sentence in str(caught.value)


def test_a_document_that_is_no_object_is_refused(path):
    document_path(path).write_text("[1]")
    with pytest.raises(ValueError, match=r"must hold a JSON object, got \[1\]"):
        load(path)


@pytest.mark.parametrize("name", ["thing.bin", "thing.json"])
def test_a_missing_half_is_named(path, name):
    path.with_name(name).unlink()
    with pytest.raises(FileNotFoundError, match=f"`path` must have {name} in "):
        load(path)


@pytest.mark.parametrize("name", ["thing.bin", "thing.json"])
def test_neither_half_is_overwritten_unless_asked_to(path, name):
    other = ({"thing.bin", "thing.json"} - {name}).pop()
    path.with_name(other).unlink()
    before = path.with_name(name).read_bytes()
    with pytest.raises(FileExistsError, match=f"`path` must be new, got .*{name}, which exists"):
        save_pair(path, b"new", DOCUMENT)
    assert path.with_name(name).read_bytes() == before
    save_pair(path, b"new", DOCUMENT, overwrite=True)
    assert load(path)[0] == b"new"


def test_what_cannot_be_written_whole_leaves_what_was_there(path):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for bad in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            save_pair(path, b"new", {**DOCUMENT, "facts": bad}, overwrite=True)
    with pytest.raises(TypeError):
        save_pair(path, "not bytes", DOCUMENT, overwrite=True)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
