"""Data behind URIs: over HTTP from a server here, and in a store that can be written; against the same on the disk."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from safetensors.torch import load

from longtake.presto import encoded, files
from longtake.presto.config import Encoding
from longtake.presto.dataset import read_dataset, usable
from longtake.presto.encode import Todo, compact, encode_here, plan
from longtake.presto.errors import DROPS, ClipError, PrestoError
from longtake.presto.folder import text_fingerprint, vae_fingerprint
from longtake.presto.frames import read_frames
from longtake.presto.prepare import Run, prepare
from longtake.presto.progress import left, outcome
from longtake.presto.train import fit
from tests.presto.made import config, dataset, encoded_folder, row
from tests.presto.ranks import losses


class _Handler(SimpleHTTPRequestHandler):
    """A folder, with ranges, as every object store has them. `broken`: so many answers for tensors to come are errors."""

    broken = 0

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if type(self).broken and path.suffix == ".safetensors":
            type(self).broken -= 1
            self.send_error(503)
        elif wanted and path.is_file():
            first, last = map(int, wanted.groups())
            data = path.read_bytes()
            self.send_response(206)
            part = data[first : last + 1]
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URI of tmp_path."""
    _Handler.broken = 0
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_run_on_remote_latents_is_the_run_on_the_disk(model: Path, tmp_path: Path, server: str) -> None:
    """The same losses, though the first read fails."""
    encoded_folder(tmp_path / "data", model, 6)
    settings = config(steps=2)
    fit(Run(settings, model, tmp_path / "data", tmp_path / "here"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WAITS", (0.01, 0.01))
        _Handler.broken = 1
        fit(Run(settings, model, f"{server}/data", tmp_path / "there"))
    assert losses(tmp_path / "here") == losses(tmp_path / "there")
    (tmp_path / "data" / "latents").rename(tmp_path / "away")
    found = encoded.read_encoded(
        f"{server}/data",
        settings.data.buckets,
        5,
        vae_fingerprint(model, settings.encoding),
        text_fingerprint(model, settings.encoding),
    )
    assert (len(found[0]), {drop.reason for drop in found[1]}) == (0, {"missing"})


def test_a_remote_dataset_is_read_as_the_one_on_the_disk(tmp_path: Path, server: str) -> None:
    rows = [row(i, tmp_path / "data") for i in range(3)]
    dataset(tmp_path / "data", rows)
    (tmp_path / "data" / rows[1]["path"]).unlink()
    buckets = config().data.buckets
    here, there = (usable(read_dataset(f), f, buckets, 1.6, 5) for f in (tmp_path / "data", f"{server}/data"))
    assert [(c.clip_id, c.content) for c in here[0]] == [(c.clip_id, c.content) for c in there[0]]
    assert [(d.clip_id, d.reason) for d in there[1]] == [(rows[1]["clip_id"], "missing")]
    for one, other in zip(here[0], there[0], strict=True):
        assert other.path == f"{server}/data/{Path(one.path).relative_to(tmp_path / 'data')}"
        assert (read_frames(one.path, 24, 64, 64) == read_frames(other.path, 24, 64, 64)).all()
    with pytest.raises(ClipError, match=r"none\.mp4 is not there"):
        read_frames(f"{server}/data/none.mp4", 24, 64, 64)
    (tmp_path / "data" / "index.parquet").unlink()
    # The shards hold the same rows as the index.
    assert read_dataset(f"{server}/data").equals(read_dataset(tmp_path / "data"))


def test_a_store_that_does_not_answer_stops_the_run_and_drops_no_clip(
    model: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded_folder(tmp_path / "data", model, 6)
    monkeypatch.setattr(files, "WAITS", (0.01, 0.01))
    run = Run(config(steps=2), model, f"{server}/data", tmp_path / "run")
    prepared = prepare(run)
    _Handler.broken = 10**6
    with pytest.raises(PrestoError, match=r"latents/.*safetensors cannot be read, 3 tries"):
        encoded.EncodingFile(prepared.clips[0].path)
    with pytest.raises(PrestoError, match="Protocol not known: nfs5"):
        prepare(Run(config(), model, "nfs5://bucket/data", tmp_path))


def test_encoding_into_a_store_and_training_from_it(model: Path, tmp_path: Path) -> None:
    """fsspec's own store in memory stands for one that can be written; what is encoded there is not encoded again."""
    store = "memory://bucket/latents"
    rows = [row(i, tmp_path / "data") for i in range(2)]
    dataset(tmp_path / "data", rows)
    buckets = config().data.buckets

    def paths(clip_id: str) -> list[files.Place]:
        return [encoded.latents_path(folder, clip_id) for folder in (store, tmp_path / "disk")]

    try:
        assert encode_here(plan(tmp_path / "data", model, store, buckets, 1.6, Encoding())) == (2, 0)
        compact(store)
        encode_here(plan(tmp_path / "data", model, tmp_path / "disk", buckets, 1.6, Encoding()))
        again = plan(tmp_path / "data", model, store, buckets, 1.6, Encoding())
        assert (again.done, again.batches) == (2, [])
        for each in rows:
            there, here = (load(fsspec.open(str(p)).open().read()) for p in paths(each["clip_id"]))
            assert {name: tensor.tolist() for name, tensor in there.items()} == {n: t.tolist() for n, t in here.items()}
        fit(Run(config(steps=1), model, store, tmp_path / "run"))
        path = str(paths(rows[0]["clip_id"])[0])
        fsspec.filesystem("memory").pipe_file(path.removeprefix("memory:/"), b"short")
        assert (
            plan(tmp_path / "data", model, store, buckets, 1.6, Encoding()).done == 1
        )  # One stored file does not have the bytes of its row.
    finally:
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_from_a_remote_dataset_to_remote_latents_over_a_stop(model: Path, tmp_path: Path) -> None:
    """Six clips in a store, two batches. What is left after the first is said, and encoded by the same command; nothing lies
    on this disk meanwhile."""
    memory, store = fsspec.filesystem("memory"), "memory://bucket/dataset"
    dataset(tmp_path / "data", [row(i, tmp_path / "data") for i in range(6)])
    buckets = config().data.buckets

    def todo(output: str) -> Todo:
        return plan(store, model, output, buckets, 1.6, Encoding())

    def stop(rows: int, errors: int) -> None:
        raise KeyboardInterrupt

    try:
        memory.put(str(tmp_path / "data"), "/bucket/dataset", recursive=True)
        shutil.rmtree(tmp_path / "data")
        first = todo("memory://bucket/latents")
        assert left(first).splitlines()[0] == "6 clips: 0 done, 0 cannot be used, 6 to encode"
        with pytest.raises(KeyboardInterrupt):
            encode_here(first, stop)
        rest = todo("memory://bucket/latents")
        assert left(rest).splitlines()[0] == "6 clips: 4 done, 0 cannot be used, 2 to encode"
        assert outcome(rest).splitlines() == ["4 encoded, 2 not", f"  2 not_encoded: {DROPS['not_encoded']}"]
        assert encode_here(rest) == (2, 0)
        assert outcome(rest) == "6 encoded, 0 not"
        whole = todo("memory://bucket/whole")
        encode_here(whole)
        for path in memory.glob("/bucket/whole/latents/*/*"):
            assert memory.cat(path) == memory.cat(path.replace("/whole/", "/latents/"))
        run = Run(config(steps=1), model, "memory://bucket/latents", tmp_path / "run")
        assert len(prepare(run).clips) == 6
        fit(run)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    finally:
        memory.rm("/bucket", recursive=True)
