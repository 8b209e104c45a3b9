from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.core.uris.datasets import UriRefused, check_uri
from app.core.uris.models import check_model_uri

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory


@pytest.mark.parametrize(
    ("name", "format_", "compression"),
    [
        ("a.jsonl", "jsonl", None),
        ("a.ndjson", "jsonl", None),
        ("a.json", "json", None),
        ("a.CSV", "csv", None),
        ("a.parquet", "parquet", None),
        ("a.b.jsonl.gz", "jsonl", "gzip"),
        ("a.csv.zst", "csv", "zstd"),
        ("a.parquet.GZ", "parquet", "gzip"),
    ],
)
def test_the_suffix_tells_format_and_compression(
    root: Path, settings: Settings, name: str, format_: str, compression: str | None
) -> None:
    checked = check_uri((root / name).as_uri(), settings)
    assert (checked.format, checked.compression) == (format_, compression)


def test_a_format_given_overrides_the_suffix(root: Path, settings: Settings) -> None:
    checked = check_uri((root / "train.json.gz").as_uri(), settings, "jsonl")
    assert (checked.format, checked.compression) == ("jsonl", "gzip")
    assert check_uri((root / "train").as_uri(), settings, "csv").format == "csv"
    with pytest.raises(UriRefused, match="format 'xml' is unknown"):
        check_uri((root / "train.json").as_uri(), settings, "xml")


@pytest.mark.parametrize("name", ["a", "a.txt", "a.jsonl.bz2", "a.gz", ".jsonl/"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(root: Path, settings: Settings, name: str) -> None:
    with pytest.raises(UriRefused, match=r"\.jsonl.*\.parquet"):
        check_uri(f"{root.as_uri()}/{name}x" if name.endswith("/") else f"{root.as_uri()}/{name}", settings)


def test_a_file_is_resolved_and_need_not_exist(root: Path, settings: Settings) -> None:
    checked = check_uri(f"{root.as_uri()}/sub/../with%20space%3F.jsonl", settings)
    assert checked.path == root.resolve() / "with space?.jsonl"
    assert check_uri(checked.uri, settings) == checked
    assert check_uri(f"file://localhost{root}/a.jsonl", settings).path == root.resolve() / "a.jsonl"


def test_a_file_outside_the_roots_is_refused(root: Path, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (root / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (tmp_path / "root-beside").mkdir()
    for path in (
        "secret.jsonl",
        "root/../secret.jsonl",
        "root/link.jsonl",
        "root-beside/a.jsonl",
        "root/%2e%2e/s.json",
    ):
        with pytest.raises(UriRefused, match="outside the directories that may be read"):
            check_uri(f"{tmp_path.as_uri()}/{path}", settings)
    with pytest.raises(UriRefused, match="outside"):
        check_uri("file:///etc/passwd", settings)


def test_a_link_inside_the_roots_is_followed(root: Path, settings: Settings) -> None:
    (root / "real.jsonl").write_text("{}")
    (root / "link.jsonl").symlink_to("real.jsonl")
    assert check_uri((root / "link.jsonl").as_uri(), settings).path == (root / "real.jsonl").resolve()


def test_a_root_that_is_itself_a_link_works(root: Path, make_settings: SettingsFactory, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    settings = make_settings(allowed_roots=(str(tmp_path / "alias"),))
    assert check_uri(f"{tmp_path.as_uri()}/alias/a.jsonl", settings).path == root.resolve() / "a.jsonl"


def test_a_loop_of_links_is_refused(root: Path, settings: Settings) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(UriRefused, match="cannot be resolved"):
        check_uri(f"{root.as_uri()}/a/x.jsonl", settings)


def test_without_roots_no_file_is_allowed(make_settings: SettingsFactory) -> None:
    with pytest.raises(UriRefused, match="SPICE_ALLOWED_ROOTS names no directory"):
        check_uri("file:///data/a.jsonl", make_settings(allowed_roots=()))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("a.jsonl", "has no scheme"),
        ("/data/a.jsonl", "has no scheme"),
        ("", "has no scheme"),
        ("file:a.jsonl", "not an absolute path"),
        ("file://host/a.jsonl", "three slashes"),
        ("file:///a%00.jsonl", "not an absolute path"),
        ("file:///a.jsonl?x=1", "'\\?' or '#'"),
        ("http://example.org/a.jsonl", "serve the file over https"),
        ("ftp://example.org/a.jsonl", "scheme 'ftp' is not allowed"),
        ("gopher://x/a.jsonl", "use one of file://, https://, s3://"),
        ("memory://a.jsonl", "not allowed"),
        ("https:///a.jsonl", "names no host"),
        ("https://[::1/a.jsonl", "is not a URI"),
        ("https://example.org:99999/a.jsonl", "is not a URI"),
        ("https://exam\tple.org/a.jsonl", "control character"),
        ("https://example.org\\@evil/a.jsonl", "backslash"),
        ("https://exämple.org/a.jsonl", "beyond ASCII"),
        ("https://x/" + "a" * 5000, "characters long"),
    ],
)
def test_malformed_uris_are_refused(settings: Settings, uri: str, says: str) -> None:
    with pytest.raises(UriRefused, match=says):
        check_uri(uri, settings)


def test_an_https_uri_loses_its_fragment_only(settings: Settings) -> None:
    checked = check_uri("https://data.example.org:8443/a%20b.jsonl.gz?sig=x%2By#frag", settings)
    assert checked.uri == "https://data.example.org:8443/a%20b.jsonl.gz?sig=x%2By"
    assert (checked.scheme, checked.format, checked.compression) == ("https", "jsonl", "gzip")
    with pytest.raises(ValueError, match="is not a file"):
        _ = checked.path


def test_credentials_are_refused_and_not_repeated(settings: Settings) -> None:
    with pytest.raises(UriRefused, match="carries credentials") as caught:
        check_uri("https://me:hunter2@example.org/a.jsonl", settings)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "[::1]", "[fe80::1]", "[::ffff:127.0.0.1]", "0.0.0.0",  # noqa: S104
     "localhost", "LOCALHOST.", "x.localhost"],
)  # fmt: skip
def test_hosts_that_are_plainly_private_are_refused(make_settings: SettingsFactory, host: str) -> None:
    with pytest.raises(UriRefused, match="private, loopback or link-local"):
        check_uri(f"https://{host}/a.jsonl", make_settings())
    assert check_uri(f"https://{host}/a.jsonl", make_settings(https_allow_private=True)).scheme == "https"


@pytest.mark.parametrize("key", ["../other/a.jsonl", "x/../../other/a.jsonl", "./a.jsonl", "x/..", "x/./a.jsonl"])
def test_a_key_leads_out_of_no_bucket(make_settings: SettingsFactory, key: str) -> None:
    settings = make_settings(s3_buckets=("train",))
    with pytest.raises(UriRefused, match="between slashes"):
        check_uri(f"s3://train/{key}", settings, "jsonl")
    with pytest.raises(UriRefused, match="between slashes"):
        check_model_uri(f"s3://train/{key}", settings)


def test_only_listed_buckets_are_allowed(make_settings: SettingsFactory) -> None:
    settings = make_settings(s3_buckets=("train",))
    assert check_uri("s3://train/a/b.jsonl.zst", settings).compression == "zstd"
    with pytest.raises(UriRefused, match=r"bucket 'other' is not among the allowed ones \(train\)"):
        check_uri("s3://other/a.jsonl", settings)
    for uri in ("s3://train", "s3://train/", "s3://train/a.jsonl?versionId=1"):
        with pytest.raises(UriRefused, match="s3://bucket/key"):
            check_uri(uri, settings)


def test_a_scheme_can_be_switched_off(make_settings: SettingsFactory, root: Path) -> None:
    with pytest.raises(UriRefused, match="use one of s3://"):
        check_uri(f"{root.as_uri()}/a.jsonl", make_settings(allowed_schemes=("s3",)))
