"""The identity and the access of a URI: nothing secret in the first, and the URI again out of both."""

from __future__ import annotations

import os
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.manifests import ids
from longtake.manifests.uris import (
    UriAccess,
    host_of,
    join_uri,
    path_of,
    redact,
    scheme_of,
    split_uri,
    stored_path,
)

SIGNED = {
    "aws": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=SECRET%2Fus&X-Amz-Date=SECRET&X-Amz-Signature=SECRET",
    "google": "X-Goog-Algorithm=SECRET&X-Goog-Credential=SECRET%40x&X-Goog-Expires=900&X-Goog-Signature=SECRET",
    "azure": "sp=r&st=SECRET&se=SECRET&spr=https&sv=2022-11-02&sr=b&sig=SECRET%3D",
    "cloudfront": "Policy=SECRET&Expires=1700000000&Signature=SECRET~-_&Key-Pair-Id=SECRET",
    "token": "token=SECRET",
    "key": "key=SECRET",
    "auth": "Auth=SECRET",
}


@pytest.mark.parametrize("signer", SIGNED)
def test_the_signature_of_each_known_signer_is_no_part_of_the_identity(signer: str) -> None:
    query = SIGNED[signer]
    for around in (
        "https://h/v.mp4?{}",
        "https://h/v.mp4?take=2&{}",
        "https://h/v.mp4?{}&take=2",
        "https://h/v.mp4?{}#t=1",
    ):
        uri = around.format(query)
        identity, access = split_uri(uri)
        assert identity == around.format("").replace("?&", "?").rstrip("?&").replace("?#", "#")
        assert access is not None
        assert join_uri(identity, access) == uri
        assert split_uri(uri.replace("SECRET", "RENEWED"))[0] == identity


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        ("https://user:pass@host:8080/a.mp4", "https://host:8080/a.mp4"),
        ("https://user@host/a@b.mp4", "https://host/a@b.mp4"),
        ("sftp://me:p@ss@host/a.mp4", "sftp://host/a.mp4"),
        ("https://user:pa/ss@host/a.mp4", "https://host/a.mp4"),
        ("https://user:pa#s?s@host/a.mp4", "https://host/a.mp4"),
        ("https://host:8080/a@b.mp4", "https://host:8080/a@b.mp4"),
        ("http://[::1]:80/a@b.mp4", "http://[::1]:80/a@b.mp4"),
        ("abfs://films@account.dfs.core.windows.net/a.mp4", "abfs://films@account.dfs.core.windows.net/a.mp4"),
        ("https://h/a.mp4?X%2DAmz-Signature=1", "https://h/a.mp4"),
        ("https://h/a.mp4#access_token=1&x=2", "https://h/a.mp4#x=2"),
        ("https://h/a.mp4?u=http://x/y?token=1", "https://h/a.mp4?u=http://x/y"),
        ("/data/a.mp4?token=1", "/data/a.mp4?token=1"),
        ("file:///data/u:p@a.mp4?token=1", "file:///data/u:p@a.mp4?token=1"),
    ],
)
def test_what_is_identity(uri: str, identity: str) -> None:
    found, access = split_uri(uri)
    assert found == identity
    assert join_uri(found, access) == uri
    assert (access is None) == (uri == identity)


@pytest.mark.parametrize(
    "uri", ["https://h/a?v=1&list=2", "https://h/a?st=1", "https://h/a?policy=x", "s3://b/a#1?.mp4?versionId=3", "a.mp4", "https://h/a?"]
)  # fmt: skip
def test_a_uri_without_a_secret_is_its_own_identity(uri: str) -> None:
    assert split_uri(uri) == (uri, None)
    assert ids.video_id(split_uri(uri)[0]) == ids.video_id(uri)


def test_further_keys_are_secret_if_they_are_named() -> None:
    assert split_uri("https://h/a?visa=1&b=2")[0] == "https://h/a?visa=1&b=2"
    assert split_uri("https://h/a?Visa=1&b=2", ["vISA"])[0] == "https://h/a?b=2"


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        ("https://r/v?url=https%3A%2F%2Fh%2F{}.mp4%3Ftoken%3DSECRET", "https://r/v?url=https%3A%2F%2Fh%2F{}.mp4"),
        (
            "https://r/v?w=1&url=https%3a%2f%2fh%2f{}.mp4%3fsig%3dSECRET%26t%3d1&h=2",
            "https://r/v?w=1&url=https%3A%2F%2Fh%2F{}.mp4%3Ft%3D1&h=2",
        ),
        ("https://r/v?url=https%3A%2F%2Fme%3ASECRET%40h%2F{}.mp4", "https://r/v?url=https%3A%2F%2Fh%2F{}.mp4"),
        ("https://r/v?url=https://me:SECRET@h/{}.mp4", "https://r/v?url=https://h/{}.mp4"),
        ("https://r/v?u=https://h/{}.mp4?token=SECRET", "https://r/v?u=https://h/{}.mp4"),
        ("https://r/v?path=%2F{}.mp4%3Ftoken%3DSECRET", "https://r/v?path=%2F{}.mp4"),
        (
            "https://r/v?url=https%253A%252F%252Fh%252F{}.mp4%253Ftoken%253DSECRET",
            "https://r/v?url=https%253A%252F%252Fh%252F{}.mp4",
        ),
        (
            "https://r/v?u=https%3A%2F%2Fs%2F%3Fu%3Dhttps%253A%252F%252Fh%252F{}.mp4%253Ftoken%253DSECRET",
            "https://r/v?u=https%3A%2F%2Fs%2F%3Fu%3Dhttps%253A%252F%252Fh%252F{}.mp4",
        ),
        ("https://r/{}.mp4?v=1;token=SECRET&b=2", "https://r/{}.mp4?v=1&b=2"),
        ("https://r/{}.mp4?token=SECRET;a=SECRET&b=2", "https://r/{}.mp4?b=2"),
        ("https://r/{}.mp4?auth_key=1-SECRET", "https://r/{}.mp4"),
        ("https://r/{}.mp4?q-sign-algorithm=sha1&q-ak=SECRET&q-signature=SECRET", "https://r/{}.mp4?q-sign-algorithm=sha1"),
    ],
)  # fmt: skip
def test_a_secret_of_a_uri_in_a_uri_is_no_part_of_the_identity(uri: str, identity: str) -> None:
    for film in ("a", "b%25C3%25A9"):
        found, access = split_uri(uri.format(film))
        assert found == identity.format(film)
        assert join_uri(found, access) == uri.format(film)
        assert split_uri(found) == (found, None)
        assert split_uri(uri.format(film).replace("SECRET", "RENEWED"))[0] == found
        assert access is not None
        for told in (redact(f"no answer from {found}."), redact(f"no {uri.format(film)}.", [access])):
            assert "SECRET" not in told
        assert any("SECRET" in secret for secret in access.secrets())


@pytest.mark.parametrize(
    "uri", ["https://r/v?url=https%3a%2F%2Fh%2Fa.mp4%3Ft%3D1", "https://r/v?name=a;b.mp4&x=%FF%3F;y=1"]
)
def test_a_uri_in_a_uri_without_a_secret_stays_as_it_is_written(uri: str) -> None:
    assert split_uri(uri) == (uri, None)


words = st.text("abcdefgh123-_.~", min_size=1, max_size=8)
secret_keys = st.sampled_from([
    "X-Amz-Signature", "x-goog-credential", "sig", "se", "sp", "sv", "Signature", "Expires", "Key-Pair-Id", "token", "key",
    "auth", "MINE",
])  # fmt: skip
open_keys = words.map(lambda word: f"q{word}")


@given(
    st.sampled_from(["https", "http", "s3", "gs", "sftp"]),
    st.none() | words | st.tuples(words, st.text("abc:@!%41", min_size=1, max_size=8)).map(":".join),
    words,
    st.lists(words, max_size=3),
    st.lists(st.tuples(open_keys, words), max_size=3),
    st.lists(secret_keys, max_size=4, unique=True),
    st.integers(10**11, 10**12),
    st.randoms(use_true_random=False),
    st.none() | words,
)
def test_identity_and_access(scheme, user, host, path, query, secret, value, random, fragment) -> None:  # type: ignore[no-untyped-def]
    def uri(secret_value: int) -> str:
        pieces = [f"{key}={value}" for key, value in query]
        signed = [f"{key}={secret_value + i}" for i, key in enumerate(random.sample(secret, len(secret)))]
        for piece in signed:
            pieces.insert(random.randint(0, len(pieces)), piece)
        tail = ("?" + "&".join(pieces) if pieces else "") + (f"#{fragment}" if fragment else "")
        return f"{scheme}://{f'{user}@' if user else ''}{host}/{'/'.join(path)}{tail}"

    one = uri(value)
    identity, access = split_uri(one, ["mine"])
    tail = "&".join(f"{key}={value}" for key, value in query)
    assert (
        identity
        == f"{scheme}://{host}/{'/'.join(path)}{f'?{tail}' if tail else ''}{f'#{fragment}' if fragment else ''}"
    )
    assert str(value)[:9] not in identity
    assert join_uri(identity, access) == one
    assert (access is None) == (identity == one) == (not secret and not user)
    assert split_uri(uri(value + 10**9 + 7), ["mine"])[0] == identity
    assert split_uri(identity, ["mine"]) == (identity, None)
    if access:
        assert repr(access) == "UriAccess()"
        assert UriAccess.of_text(access.as_text()) == access
    told = redact(f"cannot read '{one}': [{one}]", [access], ["mine"])
    assert str(value)[:9] not in told
    assert f"{user}@" not in told


@given(st.text(max_size=40))
def test_any_text_splits_and_joins(text: str) -> None:
    for uri in (text, f"https://{text}", f"https://h/v?{text}"):
        identity, access = split_uri(uri)
        assert join_uri(identity, access) == uri
        assert split_uri(identity)[0] == identity
        redact(text, [access])


def test_uris_in_one_another_without_end_take_no_time() -> None:
    uri = "x"
    for _ in range(40):
        uri = f"https://h/?u={quote(uri, safe='')}"
    for endless in (
        uri,
        "https://h/" + "?a=" * 20000,
        "https://h/?" + "%3Fa%3D" * 20000,
        "https://h/?" + "a=;b" * 5000,
    ):
        assert split_uri(endless) == (endless, None)
        assert redact(endless) == endless
    assert redact("x" * 200_000) == "x" * 200_000


def test_an_access_of_the_host_is_added() -> None:
    host = UriAccess("u:p", "?token=1")
    assert join_uri("https://h/a.mp4", host) == "https://u:p@h/a.mp4?token=1"
    assert join_uri("https://h/a.mp4?v=2#t=3", host) == "https://u:p@h/a.mp4?v=2&token=1#t=3"
    renewed = split_uri("https://h/a.mp4?v=2&token=9")[1]
    assert join_uri("https://h/a.mp4?v=2", renewed) == "https://h/a.mp4?v=2&token=9"


def test_a_text_is_shown_without_secrets() -> None:
    access = split_uri("https://me:pa%24word@h/a?sig=ab%2Fcd==")[1]
    text = "401, url='https://h/a?sig=ab/cd==' auth=BasicAuth('me', 'pa$word') ftp://x:y@z/ http://q/?a=1&Token=t&amp;key=k end"
    shown = redact(text, [access])
    for secret in ("ab/cd", "pa$word", "x:y", "Token=t", "key=k"):
        assert secret not in shown
    assert shown.endswith(" end")
    assert "a=1" in shown
    assert redact("abfs://films@account/x") == "abfs://films@account/x"


def test_hosts_schemes_and_paths() -> None:
    assert host_of("https://u:p@Host:80/a?b") == "host:80"
    assert scheme_of("S3://b/k") == "s3"
    assert scheme_of("a.mp4") is None
    assert path_of("file:///my%20video.mp4") == path_of("file://localhost/my video.mp4") == "/my video.mp4"
    assert path_of("file:/a.mp4") == "/a.mp4"
    assert path_of("file:///50%[1].mp4") == "/50%[1].mp4"
    name = os.fsdecode(b"/d/\xff\xfe.mp4")
    assert stored_path(name) == "file:///d/%FF%FE.mp4"
    assert path_of(stored_path(name)) == name
    assert stored_path("/d/50%.mp4") == "/d/50%.mp4"
