"""Tables, buckets, drops, frames by time, the plan, and what a micro-batch holds."""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from longtake.manifests.dataset.shards import dataset_schema, dataset_table, finish_dataset, write_shards
from longtake.presto import encoded
from longtake.presto.batches import Reader, StepBatches, draw, loader, noises
from longtake.presto.config import Bucket, Encoding, load_config, parse_config, recipes
from longtake.presto.dataset import Clip, choose_bucket, divided, held_out, read_dataset, usable
from longtake.presto.errors import ClipError, PrestoError
from longtake.presto.folder import text_fingerprint, vae_fingerprint
from longtake.presto.frames import fit, read_frames, shown
from longtake.presto.objective import TIMESTEPS, Objective
from longtake.presto.plan import Plan
from longtake.presto.prepare import Run, describe, prepare
from tests.presto.made import config, dataset, encoded_folder, film, row
from tests.presto.ranks import wait_until

SMALL = Bucket(frames=24, height=64, width=64)


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fps", [10, 24, 30, 60])
def test_any_rate_gives_the_same_moments(tmp_path: Path, fps: int) -> None:
    """Two seconds of film, frame i of grey 8·i: the moment of each frame read can be told from its grey."""
    film(tmp_path / "a.mp4", frames=min(2 * fps, 30), fps=fps)
    there = min(2 * fps, 30)
    found = read_frames(tmp_path / "a.mp4", 20, 64, 96).mean((1, 2, 3))
    wanted = np.linspace(0, there - 1, 20).astype(int) * 8
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("rounded", [None, 6, 3])
def test_450_frames_are_read_as_released(rounded: int | None) -> None:
    """The released trainer cuts off the fractions of linspace(0, 449, 88). rounded: decimals of the times in the file."""
    starts = np.arange(450) / 30 if rounded is None else np.round(np.arange(450) / 30, rounded)
    # Some moments are 1/87 of a frame (0.4 ms) from the start of a frame, so rounding to a millisecond changes the frame.
    if rounded != 3:
        assert shown(starts, 88) == np.linspace(0, 449, 88, dtype=int).tolist()
    assert np.abs(np.array(shown(starts, 88)) - np.linspace(0, 449, 88, dtype=int)).max() <= 1
    uneven = np.array([0.0, 0.1, 0.2, 1.0, 2.0])
    assert shown(uneven, 3) == [0, 3, 4]
    assert shown(np.array([0.0]), 1) == [0]


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_frame_that_is_shown_has_begun_and_the_next_has_not(there: int, count: int) -> None:
    starts = np.cumsum(np.random.default_rng(there).uniform(0.01, 1, there))
    wanted = np.linspace(starts[0], starts[-1], count)
    late = 0.01 * (starts[-1] - starts[0]) / max(1, there - 1)
    found = np.array(shown(starts, count))
    ends = np.append(starts[1:], np.inf)
    assert (starts[found] <= wanted + late).all()
    assert (ends[found] > wanted).all()


def test_frames_cover_the_size_and_are_cut_around_the_middle() -> None:
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, None, :, None], (2, 64, 96, 3))
    found = fit(np.ascontiguousarray(ramp), 64, 64)
    assert found[0, 0, :, 0].tolist() == list(range(16, 80))
    assert fit(np.ascontiguousarray(ramp), 32, 16).shape == (2, 32, 16, 3)


def test_broken_and_short_clips_say_so(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    with pytest.raises(ClipError, match="30 frames, 450 promised") as short:
        read_frames(tmp_path / "a.mp4", 24, 64, 64, 450)
    assert short.value.reason == "short"
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError, match=r"b\.mp4") as bad:
        read_frames(tmp_path / "b.mp4", 24, 64, 64)
    assert bad.value.reason == "unreadable"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_clip_whose_end_is_missing_costs_itself(tmp_path: Path, share: float) -> None:
    """Its index stands in front, as in files of the export. Such an error of decord's is no RuntimeError, and one such
    file ended the encoding of all others."""
    film(tmp_path / "a.mp4", movflags="faststart")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    (tmp_path / "b.mp4").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ClipError, match=r"b\.mp4 cannot be decoded") as bad:
        read_frames(tmp_path / "b.mp4", 24, 64, 64)
    assert bad.value.reason == "unreadable"


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips, of which four can be used."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = [row(i, folder) for i in range(8)]
    rows[1] |= {"num_frames": 20}
    rows[2] |= {"height": 32}
    rows[3] |= {"height": 640}
    rows[4] |= {"sub_captions": ["a", "b", "", "d", "e"]}
    return dataset(folder, rows)


def test_each_drop_has_its_reason(shards: Path) -> None:
    (shards / row(5, shards)["path"]).rename(shards / "away.mp4")
    try:
        clips, drops = usable(read_dataset(shards), shards, [SMALL], 1.6, 5)
    finally:
        (shards / "away.mp4").rename(shards / row(5, shards)["path"])
    by_id = {drop.clip_id: drop.reason for drop in drops}
    wanted = {1: "short", 2: "small", 3: "aspect", 4: "captions", 5: "missing"}
    assert by_id == {row(i, shards)["clip_id"]: reason for i, reason in wanted.items()}
    assert {clip.clip_id for clip in clips} == {row(i, shards)["clip_id"] for i in (0, 6, 7)}
    first = next(clip for clip in clips if clip.clip_id == row(0, shards)["clip_id"])
    assert first.captions == ("clip 0", *row(0, shards)["sub_captions"])


def test_too_many_drops_stop_before_anything(shards: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PrestoError, match=r"4 of 8 clips cannot be used.*\n.*short"):
        prepare(Run(config(), model, shards, tmp_path))
    found = prepare(Run(config(data={"max_dropped": 0.5}), model, shards, tmp_path))
    assert (len(found.clips), len(found.drops), found.total) == (4, 4, 8)
    told = describe(Run(config(), model, shards, tmp_path), found, 1)
    assert "24x64x64" in told
    assert "4 of 8" in told


def test_a_table_of_another_schema_is_named(shards: Path, tmp_path: Path) -> None:
    table = pq.read_table(shards / "index.parquet")
    pq.write_table(table.drop_columns(["cap"]), tmp_path / "index.parquet")
    with pytest.raises(PrestoError, match=r"index\.parquet has no column 'cap'"):
        read_dataset(tmp_path)
    at = table.schema.get_field_index("num_frames")
    pq.write_table(
        table.set_column(at, "num_frames", table["num_frames"].cast(pa.string())), tmp_path / "index.parquet"
    )
    with pytest.raises(PrestoError, match="'num_frames' is of type string"):
        read_dataset(tmp_path)
    (tmp_path / "index.parquet").write_bytes((shards / "index.parquet").read_bytes()[:-100])
    with pytest.raises(PrestoError, match=r"index\.parquet cannot be read"):
        read_dataset(tmp_path)
    with pytest.raises(PrestoError, match=r"holds no index\.parquet"):
        read_dataset(tmp_path / "nothing")


def test_a_path_that_leads_elsewhere_stops(shards: Path, tmp_path: Path) -> None:
    table = pq.read_table(shards / "index.parquet")
    paths = ["../../etc/passwd", *table["path"].to_pylist()[1:]]
    table = table.set_column(table.schema.get_field_index("path"), "path", pa.array(paths))
    pq.write_table(table, tmp_path / "index.parquet")
    with pytest.raises(PrestoError, match="no path inside the dataset"):
        usable(read_dataset(tmp_path), tmp_path, [SMALL], 1.6, 5)


def test_another_number_of_captions_or_tier_is_named(shards: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PrestoError, match=r"'cap' holds 5 captions, and attention\.segments is 3"):
        prepare(Run(config(attention={"segments": 3}), model, shards, tmp_path))
    with pytest.raises(PrestoError, match=r"'tier' says pretrain, and the recipe small is for finetune"):
        prepare(Run(config(tier="finetune"), model, shards, tmp_path))


def test_a_clip_goes_to_the_nearest_bucket_it_can_fill() -> None:
    wide, tall, big = (
        Bucket(frames=24, height=64, width=128),
        Bucket(frames=24, height=128, width=64),
        Bucket(frames=40, height=128, width=256),
    )
    buckets = [wide, tall, big]
    assert choose_bucket(30, 200, 400, buckets, 1.5) == 0
    assert choose_bucket(60, 200, 400, buckets, 1.5) == 2
    assert choose_bucket(60, 400, 200, buckets, 1.5) == 1
    for frames, height, width, reason in ((10, 200, 400, "short"), (30, 32, 400, "small"), (30, 128, 128, "aspect")):
        with pytest.raises(ClipError) as error:
            choose_bucket(frames, height, width, buckets, 1.5)
        assert error.value.reason == reason


def test_held_out_clips_are_whole_videos() -> None:
    clips = [Clip(f"c{i}", f"v{i // 3}", "", 0) for i in range(30)]
    chosen = held_out(clips, 4)
    assert len(chosen) == 6
    videos = {c.video_id for c in clips if c.clip_id in chosen}
    assert chosen == {c.clip_id for c in clips if c.video_id in videos}
    assert held_out(clips[::-1], 4) == chosen
    assert held_out(clips, 0) == set()


def test_the_splits_of_a_dataset_count(tmp_path: Path) -> None:
    table = dataset_table(
        [row(i, tmp_path) | {"split": ("train", "validation", "test")[min(i // 2, 2)]} for i in range(6)],
        dataset_schema(frames=30, split=True),
    )
    write_shards(table, tmp_path)
    finish_dataset(tmp_path)
    clips, drops = usable(read_dataset(tmp_path), tmp_path, [SMALL], 2.0, None)
    assert not drops
    kept, held = divided(clips, 4)
    assert sorted(clip.captions[0] for clip in kept) == ["clip 0", "clip 1"]
    assert sorted(clip.captions[0] for clip in held) == ["clip 2", "clip 3"]
    plain = [Clip(f"c{i}", f"v{i // 3}", "", 0) for i in range(30)]
    assert {clip.clip_id for clip in divided(plain, 4)[1]} == held_out(plain, 4)


# ── plan ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 1000),
    st.sampled_from([1, 2, 4]),
)
def test_an_epoch_takes_each_clip_once_in_batches_of_one_bucket(
    sizes: list[int], batch: int, seed: int, world: int
) -> None:
    batch *= world
    clips = [Clip(f"{b}-{i}", "v", "", b) for b, size in enumerate(sizes) for i in range(size)]
    buckets = [Bucket(frames=24, height=64, width=64 * (b + 1)) for b in range(len(sizes))]
    if min(sizes) < batch:
        with pytest.raises(PrestoError, match=r"data\.buckets"):
            Plan(clips, buckets, batch, seed)
        return
    plan = Plan(clips, buckets, batch, seed)
    assert plan.steps_per_epoch == sum(size // batch for size in sizes)
    for epoch in range(2):
        taken: list[int] = []
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            bucket, places = plan.step(step)
            assert {clips[i].bucket for i in places} == {bucket}
            shares = [plan.share(step, rank, world) for rank in range(world)]
            assert np.concatenate([places for _, places, _ in shares]).tolist() == places.tolist()
            assert [number for _, _, number in shares] == [step * batch + r * (batch // world) for r in range(world)]
            taken += places.tolist()
        assert len(set(taken)) == len(taken)
        assert len(taken) == sum(size // batch * batch for size in sizes)


def test_epochs_and_seeds_differ_and_a_position_is_enough() -> None:
    clips = [Clip(str(i), "v", "", 0) for i in range(40)]
    first, again, other = Plan(clips, [SMALL], 4, 0), Plan(clips, [SMALL], 4, 0), Plan(clips, [SMALL], 4, 1)
    whole = [first.step(i)[1].tolist() for i in range(20)]
    assert again.step(17)[1].tolist() == whole[17]  # The plan needs no steps before this one.
    assert whole[:10] != whole[10:]
    assert [other.step(i)[1].tolist() for i in range(20)] != whole
    assert first.digest != Plan(clips[1:], [SMALL], 4, 0).digest


def test_an_empty_bucket_and_a_batch_that_cannot_be_dealt_are_named() -> None:
    clips = [Clip(str(i), "v", "", 0) for i in range(8)]
    with pytest.raises(PrestoError, match="40x64x64 has 0"):
        Plan(clips, [SMALL, Bucket(frames=40, height=64, width=64)], 4, 0)
    with pytest.raises(PrestoError, match="global_batch = 4 is no multiple of 3 ranks"):
        Plan(clips, [SMALL], 4, 0).require_groups(3)


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_captions_are_dropped_together() -> None:
    found = config(loss={"dropout": 0.1, "independent_dropout": 0.05})
    drawn = [draw(found, number) for number in range(6000)]
    joint = np.mean([all(d.dropped) for d in drawn])
    some = np.mean([d.dropped for d in drawn if not all(d.dropped)])
    assert abs(joint - 0.1) < 4 * math.sqrt(0.09 / 6000)
    assert abs(some - 0.05) < 4 * math.sqrt(0.05 / (5 * 5400))
    t = np.array([d.t for d in drawn])
    assert np.abs(np.histogram(t, 10, (0, TIMESTEPS))[0] / 600 - 1).max() < 0.2
    none = config(loss={"dropout": 0.0})
    assert not any(any(draw(none, number).dropped) for number in range(500))


def test_what_is_random_depends_on_seed_and_number_only() -> None:
    first, again, other = draw(config(), 7), draw(config(), 7), draw(config(seed=4), 7)
    assert first == again
    assert first.seed != other.seed
    one, two = (noises([first.seed, other.seed], Objective(), (4, 2, 2, 2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    # The noise of a clip does not depend on its neighbours in the batch.
    assert torch.equal(noises([other.seed], Objective(), (4, 2, 2, 2))[0][0], one[0][1])
    assert len({float(x.sum()) for x in (*one[0], *one[1])}) == 4
    assert len({draw(config(), number).seed for number in range(3000)}) == 3000


def test_batches_hold_the_clips_of_the_plan(model: Path, tmp_path: Path) -> None:
    """Read back: moments and text of each clip in its place, by two reading processes as by none, from any position."""
    folder = encoded_folder(tmp_path, model, 8)
    run = Run(config(global_batch=4, loss={"dropout": 0.0}), model, folder, tmp_path)
    found = prepare(run)
    reader = Reader(run.config, found.null)
    batches = StepBatches(found.clips, found.plan, reader, group=1, groups=2)
    here = list(loader(batches, 0, 4, workers=0, prefetch=1, pin=False))
    there = list(loader(batches, 2, 4, workers=2, prefetch=2, pin=False))
    assert [b.clip_ids for b in there] == [b.clip_ids for b in here[4:]]
    assert [(b.seeds, b.t.tolist()) for b in there] == [(b.seeds, b.t.tolist()) for b in here[4:]]
    for item, batch in enumerate(here):
        place = found.plan.step(item // 2)[1][2 + item % 2]
        clip = found.clips[place]
        assert batch.clip_ids == [clip.clip_id]
        stored = load_file(clip.path)
        assert batch.moments is not None
        assert torch.equal(batch.moments[0], stored["moments"])
        text, mask = batch.padded()
        captions = torch.split(stored["text"], stored["lengths"].tolist())[1:]
        for i, caption in enumerate(captions):
            assert torch.equal(text[0, i * 64 : i * 64 + len(caption)], caption)
        assert int(mask.sum()) == sum(len(c) for c in captions)


def test_videos_are_read_by_threads_as_by_none(model: Path, tmp_path: Path) -> None:
    """One of them is damaged, and takes no part, wherever it is read."""
    folder = dataset(tmp_path / "data", [row(i, tmp_path / "data") for i in range(6)])
    bad = next((folder / "clips").rglob("*.mp4"))
    bad.write_bytes(bad.read_bytes()[:900])
    settings = config(global_batch=2, data={"max_dropped": 0.5})
    found = prepare(Run(settings, model, folder, tmp_path))
    batches = StepBatches(found.clips, found.plan, Reader(settings, found.null), group=0, groups=1)
    here = list(loader(batches, 0, 3, workers=0, prefetch=1, pin=False))
    reading = loader(batches, 0, 100, workers=3, prefetch=2, pin=False)
    with closing(reading):
        there = [next(reading) for _ in here]
    for one, other in zip(here, there, strict=True):
        assert one.frames is not None
        assert other.frames is not None
        assert torch.equal(one.frames, other.frames)
        assert (one.clip_ids, one.captions, one.drops) == (other.clip_ids, other.captions, other.drops)
        assert torch.equal(one.weight, other.weight)
    assert [drop.clip_id for batch in here for drop in batch.drops] == [bad.stem]
    assert sum(float(batch.weight.sum()) for batch in here) == 5
    wait_until(lambda: not any(thread.name.startswith("read") for thread in threading.enumerate()))


def test_a_clip_id_that_is_no_name_is_refused(model: Path, tmp_path: Path) -> None:
    made = row(0, tmp_path / "data") | {"clip_id": "../../elsewhere"}
    folder = dataset(tmp_path / "data", [made])
    with pytest.raises(PrestoError, match=r"elsewhere.* is no clip id"):
        prepare(Run(config(), model, folder, tmp_path))


def test_a_dropped_caption_is_the_empty_one_and_the_others_stay(model: Path, tmp_path: Path) -> None:
    folder = encoded_folder(tmp_path, model, 8)
    settings = config(loss={"dropout": 0.0, "independent_dropout": 0.5})
    found = prepare(Run(settings, model, folder, tmp_path))
    assert found.null is not None
    null = torch.full_like(found.null, 7.0)
    batch = Reader(settings, null).batch(found.clips, range(8))
    assert batch.text is not None
    places = iter(torch.split(batch.text, [n for clip in batch.lengths for n in clip]))
    for number, clip in enumerate(found.clips):
        stored = load_file(clip.path)
        captions = torch.split(stored["text"], stored["lengths"].tolist())[1:]
        for caption, dropped in zip(captions, draw(settings, number).dropped, strict=True):
            assert torch.equal(next(places), null if dropped else caption)


def test_a_damaged_encoding_takes_no_part(model: Path, tmp_path: Path) -> None:
    folder = encoded_folder(tmp_path, model, 4)
    run = Run(config(), model, folder, tmp_path)
    found = prepare(run)
    path = Path(found.clips[0].path)
    path.write_bytes(path.read_bytes()[:-9])
    batch = Reader(run.config, found.null).batch(found.clips[:2], [0, 1])
    assert batch.weight.tolist() == [0.0, 1.0]
    assert [(d.clip_id, d.reason) for d in batch.drops] == [(found.clips[0].clip_id, "unreadable")]
    assert batch.moments is not None
    assert not batch.moments[0].any()
    assert torch.equal(batch.moments[1], load_file(found.clips[1].path)["moments"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda head: head.pop("text"), "'text'"),
        (lambda head: head["text"].update(dtype="F64"), "text is F64"),
        (lambda head: head["moments"].update(shape=[8, 6, 64]), "moments is F16"),
        (lambda head: head["moments"].update(shape=[8, 6, 8, 9]), "moments does not fill its place"),
        (lambda head: head["moments"].update(shape=[-8, -6, 8, 8]), "moments has F16"),
        (lambda head: head["moments"].update(shape=[10**400, 1.5, 1, 1]), "moments has F16"),
        (lambda head: head["moments"].update(shape=[True, 6, 8, 8]), "moments has F16"),
        (lambda head: head["text"].update(data_offsets=[10**9, 10**9 + 10]), "text has"),
        (lambda head: head["lengths"].update(dtype="F32"), "lengths is F32"),
        (lambda head: head.update(text=None), "NoneType"),
    ],
)  # fmt: skip
def test_an_encoding_with_a_false_head_is_told_from_a_good_one(
    model: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    found = prepare(Run(config(), model, encoded_folder(tmp_path, model, 4), tmp_path))
    path = Path(found.clips[0].path)
    with encoded.EncodingFile(path) as file:
        assert (file.moments, len(file.lengths)) == ((8, 6, 8, 8), 6)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    change(head)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    with pytest.raises(ClipError, match=told) as error:
        encoded.EncodingFile(path)
    assert error.value.reason == "unreadable"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_encoding_or_a_fault_of_the_clip(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        with pytest.raises(ClipError, match="is damaged"):
            encoded.EncodingFile(Path(file.name))


def test_latents_of_another_vae_are_refused(model: Path, other_model: Path, tmp_path: Path) -> None:
    folder = encoded_folder(tmp_path, model, 4)
    with pytest.raises(PrestoError, match=r"4 of 4 clips were encoded by another VAE \(column 'vae'"):
        prepare(Run(config(), other_model, folder, tmp_path))
    vae, text = vae_fingerprint(model, Encoding()), text_fingerprint(other_model, Encoding())
    with pytest.raises(PrestoError, match="another text encoder"):
        encoded.read_encoded(folder, (SMALL,), 5, vae, text)


def test_an_encoding_of_another_size_is_dropped(model: Path, tmp_path: Path) -> None:
    folder = encoded_folder(tmp_path, model, 4)
    other = config(data={"buckets": [{"frames": 40, "height": 64, "width": 64}]})
    with pytest.raises(PrestoError, match="4 bucket: it was encoded for a size that is no bucket"):
        prepare(Run(other, model, folder, tmp_path))


# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", recipes())
def test_recipes_that_ship_can_be_read_and_printed(name: str) -> None:
    import yaml

    found = load_config(name)
    assert found.name == name
    assert parse_config(yaml.safe_load(found.to_yaml()), name) == found


def test_the_recipes_of_table_3_differ_in_one_thing() -> None:
    def differing(name: str) -> set[str]:
        a, b = load_config("table3-overlapped").model_dump(), load_config(name).model_dump()
        return {key for key in a if a[key] != b[key]} - {"name", "description"}

    assert differing("table3-isolated") == differing("table3-sequential") == {"attention"}
    assert differing("table3-without-fine-filtering") == {"tier"}
    assert differing("table3-one-caption") == {"attention", "data"}


def test_faults_of_a_recipe_are_named(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"optimiser": {}}, "optimiser"),
        ({"data": {"buckets": [{"frames": 32, "height": 64, "width": 64}]}}, "24 \\+ 16"),
        ({"data": {"buckets": [{"frames": 24, "height": 60, "width": 64}]}}, "multiples of 16"),
        ({"data": {"captions": "overall"}}, r"attention\.segments is 5"),
        ({"attention": {"variant": "overlapped", "overlap": 4}}, "latent frames"),
        ({"samples": {"prompts": [["one"]]}}, "1 prompts"),
        ({"seed": -1}, "seed"),
    ]
    for changed, message in cases:
        with pytest.raises((PrestoError, ValueError), match=message):
            config(**changed)
    (tmp_path / "a.yaml").write_text("[1, 2")
    with pytest.raises(PrestoError, match="no YAML"):
        load_config(str(tmp_path / "a.yaml"))
    with pytest.raises(PrestoError, match="did you mean table3-isolated"):
        load_config("table3-isolatd")
    assert load_config("tiny", {"optimizer.rate": 0.5, "steps": 3}).optimizer.rate == 0.5


def test_the_ledger_is_json_lines(shards: Path, tmp_path: Path) -> None:
    from longtake.presto.dataset import write_ledger

    _, drops = usable(read_dataset(shards), shards, [SMALL], 1.6, 5)
    write_ledger(drops, tmp_path / "drops.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "drops.jsonl").read_text().splitlines()]
    assert [(d["clip_id"], d["reason"]) for d in lines] == [(d.clip_id, d.reason) for d in drops]
