"""The model catalog file."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.models_catalog import CatalogError, read_catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_entries_with_their_defaults(catalog: Path) -> None:
    catalog.write_text('[[models]]\nid = "tiny"\nengine = "text"\nsource = "hub/tiny"\n')
    (entry,) = read_catalog(catalog)
    assert (entry.id, entry.engine, entry.source, entry.serving_pool()) == (
        "tiny",
        "text",
        "hub/tiny",
        "text",
    )
    assert entry.served_endpoints() == ["/v1/chat/completions", "/v1/completions"]
    assert entry.settings == {}


def test_a_directory_beside_the_file_becomes_absolute(catalog: Path) -> None:
    (catalog.parent / "models" / "tiny").mkdir(parents=True)
    catalog.write_text('[[models]]\nid = "tiny"\nengine = "text"\nsource = "models/tiny"\n')
    assert read_catalog(catalog)[0].source == str(catalog.parent / "models" / "tiny")


def test_endpoints_and_settings_may_be_given(catalog: Path) -> None:
    catalog.write_text(
        '[[models]]\nid = "e"\nengine = "embedding"\n'
        '[[models]]\nid = "f"\nengine = "fake"\nendpoints = ["/v1/completions"]\n'
        'pool = "slow"\nsettings = { step_seconds = 0.5 }\nowned_by = "me"\n'
    )
    embedding, fake = read_catalog(catalog)
    assert embedding.served_endpoints() == ["/v1/embeddings"]
    assert fake.served_endpoints() == ["/v1/completions"]
    assert (fake.pool, fake.settings, fake.owned_by) == ("slow", {"step_seconds": 0.5}, "me")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[models]\n", "models.toml"),
        ("", "models"),
        ('[[models]]\nengine = "text"\n', "models.0.id"),
        ('[[models]]\nid = ""\nengine = "text"\n', "models.0.id"),
        ('[[models]]\nid = "a"\nengine = "os.system"\n', "models.0.engine"),
        ('[[models]]\nid = "a"\nengine = "text"\nsize = 3\n', "models.0.size"),
        ('[[models]]\nid = "a"\nengine = "text"\n[[models]]\nid = "a"\nengine = "fake"\n', "for a"),
        ("[[servers]]\n", "models"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(text: str, says: str, catalog: Path) -> None:
    catalog.write_text(text)
    with pytest.raises(CatalogError, match=says):
        read_catalog(catalog)


def test_a_missing_file_is_refused(catalog: Path) -> None:
    with pytest.raises(CatalogError, match=r"models\.toml"):
        read_catalog(catalog)


def test_names_of_aliases_are_left_to_tenants(catalog: Path) -> None:
    catalog.write_text('[[models]]\nid = "writer@production"\nengine = "fake"\n')
    with pytest.raises(CatalogError, match="writer@production"):
        read_catalog(catalog)
