"""Colours of films that the test writes number by number, by the formulas of BT.2100, BT.2020, BT.709 and H.273: keyframes and
exported frames must show the pictures that went in. Nothing here uses the reader's own formulas or tables."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.reading.colour import SIDE, Colour, _cube, colour_of, shoulder, table, to_sdr, to_xyz
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pictures import AnalysisFrames
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import VideoInfo, as_shown, probe
from longtake.curation.recipe import parse_recipe

Floats = npt.NDArray[np.float64]

SIZE = (320, 192)
# Coded BT.709 colours, 0 to 1: skin, foliage, sky, greys and the darker primaries, all below the knee.
PATCHES = np.array(
    [
        [(0.75, 0.58, 0.50), (0.35, 0.43, 0.25), (0.38, 0.50, 0.70), (0.50, 0.50, 0.50)],
        [(0.70, 0.20, 0.20), (0.25, 0.60, 0.30), (0.20, 0.25, 0.65), (0.10, 0.10, 0.12)],
        [(0.75, 0.75, 0.75), (0.70, 0.65, 0.20), (0.60, 0.30, 0.60), (0.25, 0.60, 0.62)],
    ]
)
# From linear BT.709 to linear RGB of other primaries: BT.2087 for BT.2020; SMPTE RP 177 for the others.
TO_2020 = np.array([(0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)])
TO_P3 = np.array([(0.8225, 0.1774, 0.0000), (0.0332, 0.9669, 0.0000), (0.0171, 0.0724, 0.9108)])
TO_625 = np.array([(0.9578, 0.0422, 0.0000), (0.0000, 1.0000, 0.0000), (0.0000, -0.0119, 1.0119)])
TO_525 = np.array([(1.0654, -0.0554, -0.0100), (-0.0196, 1.0364, -0.0167), (0.0016, 0.0044, 0.9940)])
FROM_709: dict[int, Floats] = {1: np.eye(3), 5: TO_625, 6: TO_525, 7: TO_525, 9: TO_2020, 12: TO_P3}
LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}


CONSTANT_LUMINANCE = 100  # BT.2020's own transfer, the inverse of which is the light that is shown. No number of H.273.


def pq(nit: Floats) -> Floats:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    y = (np.maximum(nit, 0) / 10000) ** m1
    return np.asarray(((c1 + c2 * y) / (1 + c3 * y)) ** m2)


def hlg_of_scene(scene: Floats) -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * np.maximum(scene, 0)), a * np.log(np.maximum(12 * scene - b, 1e-6)) + c
    )


def scene_of_display(nit: Floats) -> Floats:
    """BT.2100's inverse OOTF for a display of 1000 nit and no black lift."""
    bright = np.maximum(nit @ (0.2627, 0.6780, 0.0593), 1e-9)[..., None] / 1000
    return np.asarray(bright ** ((1 - 1.2) / 1.2) * nit / 1000)


def source_rgb(coded: Floats, primaries: int, transfer: int) -> Floats:
    """The coded BT.709 picture, shown on an SDR display with white at 203 nit, in other primaries and another transfer."""
    light = coded**2.4 @ FROM_709[primaries].T
    if transfer == 16:
        return pq(203 * light)
    if transfer == 18:
        return hlg_of_scene(scene_of_display(203 * light))
    if transfer == 8:
        return light
    if transfer == CONSTANT_LUMINANCE:
        return np.where(light < 0.018054, 4.5 * light, 1.099297 * np.maximum(light, 0.018) ** 0.45 - 0.099297)
    return np.asarray(np.maximum(light, 0) ** (1 / 2.4))


def components(rgb: Floats, matrix: int, transfer: int) -> Floats:
    """Luma from 0 to 1 and two chroma components from -0.5 to 0.5 (H.273, 8.3)."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    if matrix == 8:
        return np.stack([r / 4 + g / 2 + b / 4, -r / 4 + g / 2 - b / 4, r / 2 - b / 2], -1)
    if matrix == 10:  # Matrix 10 is constant luminance: the luma is that of the linear light.

        def linear(v: Floats) -> Floats:
            return np.where(v < 0.0812428583, v / 4.5, ((v + 0.0992968268) / 1.0992968268) ** (1 / 0.45))

        light = 0.2627 * linear(r) + 0.6780 * linear(g) + 0.0593 * linear(b)
        y = np.where(light < 0.0180539685, 4.5 * light, 1.0992968268 * light**0.45 - 0.0992968268)
        u = np.where(b - y < 0, (b - y) / 1.9404, (b - y) / 1.5816)
        v = np.where(r - y < 0, (r - y) / 1.7184, (r - y) / 0.9936)
        return np.stack([y, u, v], -1)
    if matrix == 14:  # Matrix 14 is ICtCp with PQ.
        nit = pq_inverse(rgb)
        lms = nit @ (np.array([(1688, 2146, 262), (683, 2951, 462), (99, 309, 3688)]) / 4096).T
        return np.asarray(pq(lms) @ (np.array([(2048, 2048, 0), (6610, -13613, 7003), (17933, -17390, -543)]) / 4096).T)
    kr, kb = LUMA[matrix]
    y = kr * r + (1 - kr - kb) * g + kb * b
    return np.stack([y, (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)], -1)


def pq_inverse(coded: Floats) -> Floats:
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = np.maximum(coded, 0) ** (1 / m2)
    return np.asarray(10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def numbers(parts: Floats, full: bool, bits: int) -> npt.NDArray[np.uint16]:
    """H.273, 8.3: equations 20 to 34."""
    scale = 2.0 ** (bits - 8)
    if full:
        levels = parts * (2**bits - 1) + np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)])
    else:
        levels = scale * (parts * np.array([219, 224, 224]) + np.array([16, 128, 128]))
    return np.asarray(np.clip(np.round(levels), 0, 2**bits - 1), np.uint16)


def write(path: Path, patches: Floats, case: dict[str, Any], size: tuple[int, int] = SIZE) -> Path:
    """A lossless film of six equal frames of `patches`."""
    pixel, full = case.get("pixel", "yuv444p10le"), case.get("full", False)
    primaries, transfer, matrix = (case.get(key, 2) for key in ("primaries", "transfer", "matrix"))
    meant = {key: case.get(f"meant_{key}", value) for key, value in (("primaries", primaries), ("transfer", transfer))}
    meant["primaries"] = 1 if meant["primaries"] == 2 else meant["primaries"]
    rgb = source_rgb(patches, meant["primaries"], meant["transfer"])
    bits = int(pixel[-4:-2]) if pixel.endswith("le") else 8
    if pixel.startswith("gbrp"):
        # The planes are green, blue and red.
        small = numbers(rgb[..., [1, 2, 0]] - np.array([0, 0.5, 0.5]), True, bits)
    else:
        small = numbers(components(rgb, case.get("meant_matrix", matrix), meant["transfer"]), full, bits)
    planes = [cv2.resize(np.ascontiguousarray(small[..., i]), size, interpolation=cv2.INTER_NEAREST) for i in range(3)]
    if "420" in pixel or "422" in pixel:
        planes[1:] = [plane[:: 2 if "420" in pixel else 1, ::2] for plane in planes[1:]]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=24)
        stream.width, stream.height = size
        stream.pix_fmt = pixel
        tags = {"colorspace": 0 if pixel.startswith("gbrp") else matrix, "color_primaries": primaries}
        tags |= {"color_trc": transfer, "color_range": 2 if full or pixel.startswith("gbrp") else 1}
        for number in range(6):
            frame = av.VideoFrame(*size, pixel)
            for plane, values in zip(frame.planes, planes, strict=True):
                row = np.zeros((plane.height, plane.line_size), np.uint8)
                data = np.ascontiguousarray(values.astype("<u2" if bits > 8 else np.uint8)).view(np.uint8)
                row[:, : data.shape[1]] = data
                plane.update(row.tobytes())
            for key, value in tags.items():
                setattr(frame, key, value)
                setattr(stream.codec_context, key, value)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def keyframe(path: Path) -> tuple[VideoInfo, npt.NDArray[np.uint8]]:
    with open_video(str(path)) as video:
        info = probe(video)
        frame = next(iter(decode(video, info, DecodeCount()))).frame
        info = as_shown(video, info, frame)
        analysis = AnalysisFrames(info)
        return info, analysis.rgb(analysis.shrink(frame))


def exported(path: Path, folder: Path) -> npt.NDArray[np.float64]:
    """The first frame of an exported clip, brought to RGB by the formulas of BT.709."""
    target = folder / "clip.mp4"
    cut_clip(str(path), 0.0, 0.25, target, EncodeSettings(fps=None, frames=None, crf=1, preset="ultrafast"))
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    luma, u, v = ((part.astype(float)) for part in planes_of(frame))
    luma, u, v = (luma - 16) / 219, (u - 128) / 224, (v - 128) / 224
    rgb = np.stack([luma + 1.5748 * v, luma - 0.18732427 * u - 0.46812427 * v, luma + 1.8556 * u], -1)
    return np.asarray(255 * np.clip(rgb, 0, 1))


def planes_of(frame: av.VideoFrame) -> list[npt.NDArray[np.uint8]]:
    """Luma and both chroma planes at the size of luma, nearest neighbours."""
    packed = frame.to_ndarray()
    chroma = packed[frame.height :].reshape(2, frame.height // 2, -1)
    return [packed[: frame.height], *(part.repeat(2, 0).repeat(2, 1) for part in chroma)]


def at_patches(picture: npt.NDArray[Any], rows: int = 3, columns: int = 4) -> Floats:
    """The mean of the middle of each patch, [rows, columns, 3]."""
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    middle = picture.astype(float).reshape(rows, height, columns, width, 3)[:, height // 4 : -height // 4]
    return np.asarray(middle[:, :, :, width // 4 : -width // 4].mean((1, 3)))


CASES: dict[str, dict[str, Any]] = {
    "bt709": {"primaries": 1, "transfer": 1, "matrix": 1},
    "bt709 8 bit": {"primaries": 1, "transfer": 1, "matrix": 1, "pixel": "yuv420p"},
    "bt709 full": {"primaries": 1, "transfer": 1, "matrix": 1, "full": True, "pixel": "yuv422p10le"},
    "bt709 12 bit": {"primaries": 1, "transfer": 1, "matrix": 1, "pixel": "yuv420p12le"},
    "untagged SD": {"meant_matrix": 5, "pixel": "yuv420p"},
    "bt470bg": {"primaries": 5, "transfer": 1, "matrix": 5},
    "smpte170m full": {"primaries": 6, "transfer": 6, "matrix": 6, "full": True},
    "smpte240m": {"primaries": 7, "transfer": 7, "matrix": 7},
    "fcc": {"primaries": 1, "transfer": 1, "matrix": 4},
    "srgb": {"primaries": 1, "transfer": 13, "matrix": 1},
    "srgb p3": {"primaries": 12, "transfer": 13, "matrix": 1},
    "srgb as rgb": {"primaries": 1, "transfer": 13, "meant_transfer": 1, "pixel": "gbrp10le"},
    "gamma 2.2": {"primaries": 1, "transfer": 4, "matrix": 1},
    "gamma 2.8": {"primaries": 5, "transfer": 5, "matrix": 5, "pixel": "yuv420p"},
    "linear": {"primaries": 1, "transfer": 8, "matrix": 1, "pixel": "yuv444p12le"},
    "linear rgb p3": {"primaries": 12, "transfer": 8, "pixel": "gbrp16le"},
    "display p3": {"primaries": 12, "transfer": 1, "matrix": 1},
    "bt2020 sdr": {"primaries": 9, "transfer": 14, "matrix": 9},
    "bt2020 by its matrix": {"matrix": 9, "meant_primaries": 9},
    "bt2020 constant luminance": {
        "primaries": 9,
        "transfer": 14,
        "matrix": 10,
        "meant_transfer": CONSTANT_LUMINANCE,
    },
    "ycgco": {"primaries": 1, "transfer": 1, "matrix": 8},
    "ycgco 4:2:0": {"primaries": 1, "transfer": 1, "matrix": 8, "pixel": "yuv420p"},
    "rgb": {"primaries": 1, "transfer": 1, "pixel": "gbrp10le"},
    "rgb 10 bit p3": {"primaries": 12, "transfer": 1, "pixel": "gbrp10le"},
    "pq": {"primaries": 9, "transfer": 16, "matrix": 9, "pixel": "yuv420p10le"},
    "pq full 12 bit": {"primaries": 9, "transfer": 16, "matrix": 9, "full": True, "pixel": "yuv444p12le"},
    "pq p3": {"primaries": 12, "transfer": 16, "matrix": 1},
    "pq by its transfer": {"transfer": 16, "meant_primaries": 9, "meant_matrix": 9},
    "pq ictcp": {
        "primaries": 9,
        "transfer": 16,
        "matrix": 14,
        "most": 13,
    },  # Red is a small difference of large numbers.
    "pq rgb": {"primaries": 9, "transfer": 16, "pixel": "gbrp12le"},
    "hlg": {"primaries": 9, "transfer": 18, "matrix": 9, "pixel": "yuv420p10le"},
}


@pytest.mark.parametrize("name", CASES)
def test_keyframe_and_export_show_what_went_in(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "film.mkv", PATCHES, CASES[name])
    info, key = keyframe(path)
    out = exported(path, tmp_path)
    assert info.tone_mapped == (CASES[name].get("transfer") in (16, 18))
    # A chroma of 8 bits and the steps of the table are worth some levels in one channel of a saturated patch.
    for picture in (key, out):
        apart = np.abs(at_patches(picture) - 255 * PATCHES)
        assert apart.mean() < 1.6, apart.round(1)
        assert apart.max() < CASES[name].get("most", 6), apart.round(1)
    assert np.abs(at_patches(key) - at_patches(out)).mean() < 1.6


@pytest.mark.parametrize(
    ("size", "matrix"), [((640, 360), 5), ((720, 576), 5), ((720, 480), 6), ((1280, 544), 1), ((608, 1080), 1)]
)
def test_a_matrix_that_is_not_named_goes_by_size(size: tuple[int, int], matrix: int) -> None:
    frame = av.VideoFrame(*size, "yuv420p")
    assert colour_of(frame).matrix == (5 if matrix == 6 else matrix)
    assert colour_of(av.VideoFrame(64, 64, "yuv420p"), size).matrix == (5 if matrix == 6 else matrix)


def test_light_above_white_is_rolled_off_and_never_burns(tmp_path: Path) -> None:
    """Greys from 50 to 10000 nit in PQ: darker than the knee as they are, then ever closer, none of them white."""
    nit = np.array([50, 100, 150, 203, 400, 800, 1500, 3000, 4000, 6000, 8000, 10000], float)
    patches = (nit / 203).reshape(3, 4, 1).repeat(3, -1) ** (1 / 2.4)
    _, key = keyframe(write(tmp_path / "film.mkv", patches, CASES["pq full 12 bit"]))
    seen = at_patches(key)[..., 0].ravel()
    assert seen[:2] == pytest.approx(255 * (nit[:2] / 203) ** (1 / 2.4), abs=2)
    assert (np.diff(seen) >= 0).all()
    assert 225 < seen[3] < 240
    assert seen[-1] < 254


@pytest.mark.parametrize("pixel", ["yuv444p16le", "gbrp16le"])
def test_the_dark_of_linear_light(tmp_path: Path, pixel: str) -> None:
    """Greys from 3 to 36 of 255 lie between the first two points of a table, and on few of the numbers of ten bits."""
    greys = np.linspace(3, 36, 12).reshape(3, 4, 1).repeat(3, -1) / 255
    path = write(tmp_path / "film.mkv", greys, {"primaries": 1, "transfer": 8, "matrix": 1, "pixel": pixel})
    for picture in (keyframe(path)[1], exported(path, tmp_path)):
        assert at_patches(picture) == pytest.approx(255 * greys, abs=2.5)


def test_greys_stay_grey_and_the_curve_rises() -> None:
    steps = np.linspace(0, 1, 101)[:, None].repeat(3, 1)
    for colour in (Colour(9, 16, 9, False, False), Colour(9, 18, 9, False, False), Colour(9, 1, 9, False, False)):
        shown = to_sdr(steps, colour)
        assert np.abs(shown - shown[:, :1]).max() < 2e-3
        assert (np.diff(shown[:, 0]) > 0).all()
    assert (shoulder(np.linspace(0, 0.8, 9)) == np.linspace(0, 0.8, 9)).all()


@pytest.mark.parametrize("transfer", [1, 16])
def test_colours_out_of_the_gamut_keep_their_hue(transfer: int) -> None:
    """The primaries of BT.2020: nothing is cut off into another colour."""
    for primary in range(3):
        coded = np.full((1, 3), 0.02)
        coded[0, primary] = 0.5
        shown = to_sdr(coded, Colour(9, transfer, 9, False, False))[0]
        assert int(np.argmax(shown)) == primary
        assert shown.min() >= 0
        assert shown.max() <= 1


def test_grey_film_in_the_limited_range(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    with av.open(str(path), "w") as container:
        options = {"x265-params": "log-level=none:range=limited", "preset": "ultrafast", "crf": "1"}
        stream: Any = container.add_stream("libx265", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "gray"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full(SIZE[::-1], 180, np.uint8), "gray")
            frame.pts, frame.time_base, frame.color_range = number, Fraction(1, 24), 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    grey = 255 * (180 - 16) / 219
    assert at_patches(keyframe(path)[1]) == pytest.approx(grey, abs=2)
    assert at_patches(exported(path, tmp_path)) == pytest.approx(grey, abs=2)


@pytest.mark.parametrize(("name", "hdr"), [("pq", 1.0), ("display p3", 0.0)])
def test_the_scan_says_what_was_mapped(tmp_path: Path, name: str, hdr: float) -> None:
    path = write(tmp_path / "film.mkv", PATCHES, CASES[name])
    asked = {"name": "x", "filters": {"width": {}, "hdr": {}}, "tiers": {"all": {"width": ">= 1", "hdr": "[0, 1]"}}}
    scan = scan_video(str(path), parse_recipe(asked, source="test"), lambda span, sample: None)
    assert (scan.info.transfer, scan.info.primaries) == {
        "pq": ("smpte2084", "bt2020"),
        "display p3": ("bt709", "smpte432"),
    }[name]
    assert [clip.scores["hdr"].score.value for clip in scan.clips] == [hdr]


def test_the_table_is_written_as_numbers_of_six_digits() -> None:
    """Red changes fastest; from black to white."""
    pq = Colour(9, 16, 9, False, False)
    lines = _cube(pq).decode("ascii").splitlines()
    assert lines[0] == f"LUT_3D_SIZE {SIDE}"
    assert len(lines) == 1 + SIDE**3
    truth = table(pq)
    for red, green, blue in ((0, 0, 0), (1, 0, 0), (0, 5, 64), (64, 64, 64), (17, 30, 50)):
        row = lines[1 + red + SIDE * (green + SIDE * blue)]
        assert row == " ".join(f"{value:.6f}" for value in truth[red, green, blue])


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_tags_that_only_the_container_has(tmp_path: Path, container: str) -> None:
    """PQ in BT.2020, with nothing of it in the stream: the decoder of HEVC forgets what the container says."""
    whole = write(tmp_path / "whole.mkv", PATCHES, CASES["pq"])
    path = tmp_path / f"film.{container}"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "write_colr"}) as out:
        untold = "colorprim=undef:transfer=undef:colormatrix=undef"
        options = {"x265-params": f"log-level=none:{untold}", "preset": "ultrafast", "crf": "2"}
        stream: Any = out.add_stream("libx265", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p10le"
        for name, tag in (("color_primaries", 9), ("color_trc", 16), ("colorspace", 9), ("color_range", 1)):
            setattr(stream.codec_context, name, tag)
        for frame in source.decode(video=0):
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with av.open(str(path)) as check:
        assert next(check.decode(video=0)).color_trc == 2
    info, key = keyframe(path)
    assert (info.transfer, info.primaries, info.tone_mapped) == ("smpte2084", "bt2020", True)
    for picture in (key, exported(path, tmp_path)):
        assert np.abs(at_patches(picture) - 255 * PATCHES).mean() < 3


@pytest.mark.parametrize(("codec", "container"), [("libx265", "mp4"), ("libvpx-vp9", "mp4"), ("libvpx-vp9", "mkv")])
def test_the_full_range_that_only_the_container_has(tmp_path: Path, codec: str, container: str) -> None:
    """The decoders of HEVC and VP9 take a stream that is silent for one of the limited range. The container has the last word
    (ISO/IEC 14496-12, 12.1.5)."""
    whole = write(tmp_path / "whole.mkv", PATCHES, CASES["bt709 8 bit"] | {"full": True})
    silent, path = tmp_path / "silent.mp4", tmp_path / f"film.{container}"
    with av.open(str(whole)) as source, av.open(str(silent), "w") as out:
        options = {"x265-params": "log-level=none", "preset": "ultrafast", "crf": "2", "cpu-used": "8", "b": "8000000"}
        stream: Any = out.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, frame in enumerate(source.decode(video=0)):
            bare = av.VideoFrame.from_ndarray(frame.to_ndarray(), "yuv420p")
            bare.pts, bare.time_base = number, Fraction(1, 24)
            out.mux(stream.encode(bare))
        out.mux(stream.encode(None))
    with av.open(str(silent)) as source, av.open(str(path), "w", options={"movflags": "write_colr"}) as out:
        copied: Any = out.add_stream_from_template(source.streams.video[0])
        for name, tag in (("color_primaries", 1), ("color_trc", 1), ("colorspace", 1), ("color_range", 2)):
            setattr(copied.codec_context, name, tag)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    with av.open(str(path)) as check:
        assert next(check.decode(video=0)).color_range == 1
    for picture in (keyframe(path)[1], exported(path, tmp_path)):
        assert np.abs(at_patches(picture) - 255 * PATCHES).mean() < 3


@pytest.mark.parametrize(("size", "meant"), [(SIZE, 5), ((1280, 720), 1)])
def test_vp8_says_nothing_of_its_matrix(tmp_path: Path, size: tuple[int, int], meant: int) -> None:
    """Its decoder names BT.601 for every film, since the format has no other; those of HD are coded by BT.709 all the same."""
    case = {"pixel": "yuv420p", "meant_matrix": meant}
    path = tmp_path / "film.webm"
    with av.open(str(write(tmp_path / "whole.mkv", PATCHES, case, size))) as source, av.open(str(path), "w") as out:
        options = {"cpu-used": "8", "deadline": "realtime", "crf": "4", "b": "20000000"}
        stream: Any = out.add_stream("libvpx", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in source.decode(video=0):
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    for picture in (keyframe(path)[1], exported(path, tmp_path)):
        assert np.abs(at_patches(picture) - 255 * PATCHES).mean() < 3


@pytest.mark.parametrize(("codec", "container"), [("rawvideo", "avi"), ("ffvhuff", "avi"), ("ffv1", "nut")])
def test_grey_film_that_names_no_range_uses_all_of_it(tmp_path: Path, codec: str, container: str) -> None:
    """Cameras of machines write grey numbers from 0 to 255, in formats that have no tag for it; players show them so."""
    path = tmp_path / f"film.{container}"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "gray"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full(SIZE[::-1], 180, np.uint8), "gray")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with av.open(str(path)) as check:
        assert next(check.decode(video=0)).color_range == 0
    for picture in (keyframe(path)[1], exported(path, tmp_path)):
        assert at_patches(picture) == pytest.approx(180, abs=2)


@pytest.mark.parametrize("primaries", [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22])
def test_white_is_white_with_all_primaries(primaries: int) -> None:
    assert to_xyz(primaries) @ np.ones(3) == pytest.approx(np.array([0.3127 / 0.3290, 1, 0.3583 / 0.3290]), abs=1e-3)
