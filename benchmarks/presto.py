"""How fast the trainer is: attention, reading, and on a GPU a step of the published size. `make bench-presto`.

python -m benchmarks.presto [attention | reading | step | gpu | trainer | vae]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch

from longtake.presto.attention import segment
from longtake.presto.batches import Reader, StepBatches, loader
from longtake.presto.budget import measured_peak, memory_bytes, nominal_peak, parameters, step_flops, tokens
from longtake.presto.config import Bucket, load_config
from longtake.presto.encoded import EncodingFile, latents_path
from longtake.presto.logs import read_log
from longtake.presto.model import rotary
from longtake.presto.objective import Objective
from longtake.presto.prepare import Run, prepare
from longtake.presto.segments import Segmentation, Variant
from longtake.presto.tiny import tiny_model
from longtake.presto.train import fit
from longtake.presto.vae import allow_tf32, encode_moments
from tests.presto.made import config, encoded_folder


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median of `repeats` runs, after one that does not count."""
    work()
    found = []
    for _ in range(repeats):
        _wait()
        start = time.perf_counter()
        work()
        _wait()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def attention(device: str) -> None:
    """Text attention of one block of the published width, forward and backward, at 88×720×1280 (on a CPU 40×192×320)."""
    from diffusers.models.transformers.transformer_allegro import AllegroTransformerBlock

    frames, area = (22, 3600) if device == "cuda" else (10, 12 * 20)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    block = AllegroTransformerBlock(2304, 24, 96, cross_attention_dim=2304, attention_bias=True).to(device, dtype)
    video = torch.randn(1, frames * area, 2304, device=device, dtype=dtype, requires_grad=True)
    text = torch.randn(1, 5 * 256, 2304, device=device, dtype=dtype)
    mask = torch.zeros(1, 1, 5 * 256, device=device, dtype=dtype)
    holder = torch.nn.Module()
    holder.transformer_blocks = torch.nn.ModuleList([block])
    print(f"text attention, {frames * area} tokens, 5 captions of 256 tokens, forward and backward:")
    base = None
    variants: tuple[Variant, ...] = ("isolated", "overlapped", "sequential-pair", "sequential")
    for variant in variants:
        segment(holder, Segmentation(variant=variant))
        block.attn2.processor.frames = frames
        spent = seconds(lambda: block.attn2(video, text, mask).sum().backward(), 7)
        base = base or spent
        print(f"  {variant:<16} {spent * 1e3:9.1f} ms  {spent / base:5.2f} of isolated")


def reading() -> None:
    """Pre-encoded clips as large as those of 88×720×1280 (5 MB of moments, 4 MB of text), against reading the bytes; in
    batches of two."""
    with tempfile.TemporaryDirectory() as scratch:
        model, folder = tiny_model(Path(scratch) / "model"), Path(scratch) / "latents"
        count, bucket = 24, {"frames": 88, "height": 720, "width": 1280}
        settings = config(global_batch=2, data={"buckets": [bucket]}, loss={"dropout": 0.0})
        encoded_folder(folder, model, count, (22, 90, 160), words=80, width=4096)
        run = Run(settings, model, folder, Path(scratch) / "run")
        found = prepare(run)
        paths = [latents_path(folder, clip.clip_id) for clip in found.clips]
        size = sum(os.path.getsize(path) for path in paths)
        # The share of the files that batches read: all but the overall captions.
        part = 1 - sum(_overall(path) for path in paths) / size

        def plainly(together: int, kept: int = 1) -> None:
            held = deque[list[bytes]](maxlen=kept)
            for first in range(0, count, together):
                held.append([path.read_bytes() for path in paths[first : first + together]])

        print(f"{count} clips of {size / count / 1e6:.1f} MB, files in memory; MB/s of the files' bytes:")
        alone = size / seconds(lambda: plainly(1), 5) / 1e6
        print(
            f"  plainly, one file at a time        {alone:8.0f}  (into one buffer, which the processor's cache holds)"
        )
        batches = StepBatches(found.clips, found.plan, Reader(settings, found.null), 0, 1)

        def batched(workers: int) -> None:
            for _ in loader(batches, 0, 12, workers=workers, prefetch=2, pin=False):
                pass

        for workers in (0, 1, 2):
            kept = 1 + 2 * workers  # Batches that are in memory at once. Each takes memory that no cache has then.
            plain = size / seconds(lambda n=kept: plainly(2, n), 5) / 1e6  # type: ignore[misc]
            rate = part * size / seconds(lambda n=workers: batched(n), 5) / 1e6  # type: ignore[misc]
            what = f"as batches, {workers} threads"
            print(
                f"  {what:<34} {rate:8.0f}  {rate / plain:.2f} of reading plainly ({plain:.0f}), {kept} batches in memory"
            )


def _overall(path: Path) -> int:
    with EncodingFile(path) as file:
        return int(file.lengths[0] * file.text[1] * file.text[0].itemsize)


def step() -> None:
    """A run of a small model on pre-encoded clips: the share of the time that it waits for them."""
    with tempfile.TemporaryDirectory() as scratch:
        model, folder = tiny_model(Path(scratch) / "model"), Path(scratch) / "latents"
        encoded_folder(folder, model, 16, (22, 24, 40))
        bucket = {"frames": 88, "height": 192, "width": 320}
        settings = config(steps=12, log_every=6, data={"buckets": [bucket], "workers": 1}, checkpoints={"every": 99})
        fit(Run(settings, model, folder, Path(scratch) / "run"))
        last = [line for line in read_log(Path(scratch) / "run") if line["kind"] == "train"][-1]
        print(
            f"a step on pre-encoded clips, tiny model: {last['step_seconds']:.2f} s, data wait {last['data_wait']:.1%}, "
            f"{last['tokens_per_second']:.0f} tokens/s, MFU {last['mfu_measured']:.1%} of this machine's matrix product"
        )


def gpu() -> None:
    """Steps of the published size, random weights, by bucket: seconds, tokens per second, MFU, memory."""
    if not torch.cuda.is_available():
        print("no GPU here: a step of 2.77 B parameters was not measured")
        return
    from diffusers import AllegroTransformer3DModel

    device = torch.device("cuda")
    peak = measured_peak(device, "bf16")
    nominal = nominal_peak(torch.cuda.get_device_name(), "bf16") or peak
    print(f"{torch.cuda.get_device_name()}: matrix product bf16 {peak / 1e12:.0f} of {nominal / 1e12:.0f} TFLOP/s")
    with device:
        model = AllegroTransformer3DModel().float()
    segmentation = load_config("pretrain").attention
    segment(model, segmentation)
    model.enable_gradient_checkpointing()
    model.train()
    shape = dict(model.config)
    print(f"{parameters(shape) / 1e9:.3f} B parameters, float32 master weights, autocast to bf16, checkpointing")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    objective, t = Objective(), torch.tensor([500], device=device)
    mask = torch.zeros(1, 1, 5 * 512, device=device, dtype=torch.bfloat16)
    for frames, height, width in ((40, 368, 640), (88, 368, 640), (88, 720, 1280)):
        bucket = Bucket(frames=frames, height=height, width=width)
        place = rotary(model.config, *bucket.latent, device=device)
        video = torch.randn(1, 4, *bucket.latent, device=device)
        text = torch.randn(1, 5 * 512, 4096, device=device)
        torch.cuda.reset_peak_memory_stats()

        def one(video: torch.Tensor = video, text: torch.Tensor = text, place: object = place) -> None:
            noise = torch.randn_like(video)
            with torch.autocast("cuda", torch.bfloat16):
                found = model(objective.noisy(video, noise, t), text, t, None, mask, place, return_dict=False)[0]
            objective.losses(found, noise, t).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        try:
            spent = seconds(one, 3)
        except torch.cuda.OutOfMemoryError:
            print(f"  {bucket.name:>14}: does not fit")
            continue
        rate = step_flops(shape, bucket, segmentation, 512) / spent
        memory = torch.cuda.max_memory_allocated() / 2**30
        told = f"MFU {rate / nominal:.1%}, {rate / peak:.1%} of the product measured, {memory:.0f} GiB"
        print(f"  {bucket.name:>14}: {spent:.2f} s, {tokens(shape, bucket) / spent:.0f} tokens/s, {told}")


# The settings of the trainer that are compared: how activations are recomputed, and whether blocks are compiled.
SETTINGS: tuple[tuple[bool | str, bool], ...] = ((True, False), ("selective", False), (True, True), ("selective", True))


def trainer() -> None:
    """Steps of the trainer itself at 88×720×1280, one clip a step, the published size with random weights: seconds, MFU,
    and memory against the budget's estimate, by what is recomputed and compiled. The first step of each does not count."""
    if not torch.cuda.is_available():
        print("no GPU here: the trainer was not measured at the published size")
        return
    from diffusers import AllegroTransformer3DModel

    from longtake.presto.parallel import ranks
    from longtake.presto.train import Trainer

    bucket = {"frames": 88, "height": 720, "width": 1280}
    with tempfile.TemporaryDirectory() as scratch, ranks() as found:
        model, folder = tiny_model(Path(scratch) / "model"), Path(scratch) / "latents"
        encoded_folder(folder, model, 4, (22, 90, 160), words=506, width=4096)
        with found.device:
            AllegroTransformer3DModel().bfloat16().save_pretrained(model / "transformer")
        print(f"{torch.cuda.get_device_name()}: the trainer at 88×720×1280, bf16, one clip a step:", flush=True)
        for recomputed, compiled in SETTINGS:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            settings = config(
                attention=load_config("pretrain").attention.model_dump(),
                precision="bf16",
                global_batch=1,
                steps=99,
                data={"buckets": [bucket], "workers": 1},
                optimizer={"ema": None},
                loss={"dropout": 0.0},
                activation_checkpointing=recomputed,
                compile=compiled,
            )
            prepared = prepare(Run(settings, model, folder, Path(scratch) / "run"))
            made = Trainer(Run(settings, model, folder, Path(scratch) / "run"), prepared, found)
            reading = made._reading()
            made.train_step(reading, stop=False)
            made.meter._clear()
            for made.step in (1, 2):
                made.train_step(reading, stop=False)
            entry = made.meter.entry()
            estimate = memory_bytes(
                prepared.model,
                settings.data.buckets[0],
                1,
                ema=False,
                checkpointing=settings.activation_checkpointing,
                precision="bf16",
                captions=settings.captions,
            )
            how = f"{'selective' if recomputed == 'selective' else 'all'} recomputed, {'compiled' if compiled else 'eager'}"
            print(
                f"  {how:<32} {entry['step_seconds']:6.2f} s, {entry['tokens_per_second']:.0f} tokens/s, MFU "
                f"{entry.get('mfu', 0):.1%}, {entry['mfu_measured']:.1%} of the product measured, "
                f"{entry['memory_gib']:.1f} GiB, estimated {sum(estimate.values()) / 2**30:.1f}",
                flush=True,
            )
            reading.close()
            del made, reading


def vae() -> None:
    """Encoding 88×720×1280 by a VAE of the published size with random weights, float32 with TF32, in the published tiles:
    clips per second, eager and compiled."""
    if not torch.cuda.is_available():
        print("no GPU here: the rate of the VAE at the published size was not measured")
        return
    from diffusers import AutoencoderKLAllegro

    allow_tf32()
    with torch.device("cuda"):
        model = AutoencoderKLAllegro().eval()
        frames = torch.randint(0, 256, (1, 88, 720, 1280, 3), dtype=torch.uint8)
    print(f"{torch.cuda.get_device_name()}: VAE encode of 88×720×1280, float32 (TF32):")
    eager = seconds(lambda: encode_moments(model, frames), 1)
    print(f"  eager     {eager:.2f} s per clip, {torch.cuda.max_memory_allocated() / 2**30:.0f} GiB", flush=True)
    model.encoder.compile()
    compiled = seconds(lambda: encode_moments(model, frames), 1)
    print(f"  compiled  {compiled:.2f} s per clip, {eager / compiled:.2f} times as fast")


def main() -> None:
    """All of it, or one part."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("part", nargs="?", choices=["attention", "reading", "step", "gpu", "trainer", "vae"])
    part = parser.parse_args().part
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    if part in (None, "attention"):
        attention(device)
    if part in (None, "reading"):
        reading()
    if part in (None, "step"):
        step()
    if part in (None, "gpu"):
        gpu()
    if part in (None, "trainer"):
        trainer()
    if part in (None, "vae"):
        vae()


if __name__ == "__main__":
    main()
