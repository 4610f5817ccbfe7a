"""Colour: what a frame's numbers mean, and how they become SDR pictures of BT.709, for scan and export alike.

Most film is SDR in BT.709 or BT.601: there only the matrix and the range matter, and the scaler does both. Film in a wide gamut,
or in PQ or HLG, goes through a 3-D table besides, which is made here from the formulas of BT.2100, BT.1886 and BT.2408.

Light up to what a knee lets through stays as it is, relative to SDR white (203 nit, BT.2408); above the knee it is rolled off, so
that nothing burns out, however bright the source may be (`shoulder`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import cast

import av
import av.filter
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

Floats = npt.NDArray[np.float64]

WHITE = 203.0  # Nit. HDR film shows SDR white at this light (BT.2408).
# A share of the picture's coded range. Darker numbers are left as they are; a higher knee would leave no room for highlights.
KNEE = 0.8
GAMMA = 2.4  # The exponent of an SDR display (BT.1886).
HLG_PEAK = 1000.0  # Nit. HLG is graded on a display of this peak, where the system gamma is 1.2 (BT.2100).
# Points of the 3-D table along each side. With so many, interpolation is off by less than a grey level.
SIDE = 65

_DEEP = "gbrp16le"

_YCGCO, _BT2020_CL, _DERIVED, _ICTCP = 8, 10, 12, 14  # The scaler does not know these matrices (AVCOL_SPC).
KNOWN = (1, 4, 5, 6, 7, 9)  # The scaler knows these matrices.
_BY_TABLE = (_YCGCO, _BT2020_CL, _DERIVED, _ICTCP)
# The x and y of red, green, blue and white are those of ITU-T H.273, table 2.
_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
_NAMES_OF_PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020", 10: "smpte428",
    11: "smpte431", 12: "smpte432", 22: "ebu3213",
}  # fmt: skip
_NAMES_OF_TRANSFERS = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316",
    11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
    17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Colour:
    """What the numbers of a frame mean, nothing left open. primaries, transfer, matrix: numbers of ITU-T H.273. full: the whole
    range of numbers is used. rgb: there is no matrix."""

    primaries: int
    transfer: int
    matrix: int
    full: bool
    rgb: bool

    @property
    def mapped(self) -> bool:
        """Whether more than a matrix is between its numbers and SDR pictures of BT.709."""
        return self.primaries != ColorPrimaries.BT709 or self.transfer in _LIGHT or self.by_table

    @property
    def plain(self) -> bool:
        """Whether the scaler brings it to limited YUV of BT.709 in one step. From another matrix, or from the full range, it
        would be off by up to three grey levels: it rounds down twice."""
        return not self.mapped and (self.rgb or (self.matrix == 1 and not self.full))

    @property
    def by_table(self) -> bool:
        """Whether even its matrix is none that the scaler knows."""
        return not self.rgb and self.matrix in _BY_TABLE


def primaries_name(number: int) -> str:
    """ffmpeg's name of primaries by their number in H.273; "" where the file does not say."""
    return _NAMES_OF_PRIMARIES.get(number, "")


def transfer_name(number: int) -> str:
    """ffmpeg's name of a transfer by its number in H.273; "" where the file does not say."""
    return _NAMES_OF_TRANSFERS.get(number, "")


def hdr(transfer: int) -> bool:
    """Whether film with a transfer, by its number in H.273, may be brighter than SDR white: PQ and HLG."""
    return transfer in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


def colour_of(frame: av.VideoFrame, size: tuple[int, int] | None = None) -> Colour:
    """What the numbers of a frame mean. size: width and height as coded, if the frame was made smaller since.

    What the file does not say is taken as players take it: HD (at least 1280 wide, or more than 576 lines) has the matrix of
    BT.709 and SD that of BT.601; PQ and HLG come with the gamut and the matrix of BT.2020; all other film has the primaries
    of BT.709, at a fraction of what a wrong matrix does.
    """
    name = frame.format.name
    rgb = frame.format.is_rgb or frame.format.has_palette or name.startswith("xyz")
    primaries, transfer, matrix = int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace)
    wide = transfer in (16, 18) or matrix in (9, 10, _ICTCP)
    if primaries not in _PRIMARIES:
        primaries = 9 if wide else 1
    if matrix not in KNOWN and matrix not in _BY_TABLE:
        width, height = size or (frame.width, frame.height)
        hd = width >= 1280 or height > 576
        matrix = 9 if primaries == 9 else 1 if hd else 5
    # Grey formats that name no range use all of it, as the scaler takes it.
    grey = name.startswith(("gray", "ya")) and frame.color_range != ColorRange.MPEG
    full = rgb or grey or frame.color_range == ColorRange.JPEG or name.startswith("yuvj")
    return Colour(primaries, transfer, matrix, full, rgb)


def stand_in(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix by which the scaler is to take a frame's components, and to leave them alone, if it does not know their own: it
    would refuse the frame. None: its own."""
    return None if frame.format.is_rgb or frame.colorspace in (*KNOWN, 0, 2) else Colorspace.ITU709


def with_chroma(frame: av.VideoFrame) -> av.VideoFrame:
    """`frame`, or, if it is grey in the limited range, as YUV: the scaler takes all grey frames for full-range ones."""
    if not frame.format.name.startswith("gray") or frame.color_range != ColorRange.MPEG:
        return frame
    matrix = stand_in(frame)
    grey = frame.reformat(format="gray", src_colorspace=matrix, dst_colorspace=matrix, threads=1).to_ndarray()
    even = np.pad(grey, [(0, side % 2) for side in grey.shape], mode="edge")
    chroma = np.full((even.shape[0] // 2, even.shape[1]), 128, np.uint8)
    made = av.VideoFrame.from_ndarray(np.concatenate([even, chroma]), format="yuv420p")
    made.pts, made.time_base, made.color_range = frame.pts, frame.time_base, ColorRange.MPEG
    return made


# Formulas -----------------------------------------------------------------------------------------------------------


def pq_light(coded: Floats) -> Floats:
    """Nit of PQ numbers from 0 to 1 (BT.2100, table 4)."""
    power = np.maximum(coded, 0.0) ** (32 / 2523)
    ratio = np.maximum(power - 3424 / 4096, 0.0) / (2413 / 128 - 2392 / 128 * power)
    return np.asarray(10000.0 * ratio ** (16384 / 2610))


def hlg_scene(coded: Floats) -> Floats:
    """Scene light, 0 to 1, of HLG numbers (BT.2100, table 5: the inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(coded <= 0.5, coded**2 / 3, (np.exp((np.maximum(coded, 0.5) - c) / a) + b) / 12)


def _hlg_light(coded: Floats) -> Floats:
    """Nit of HLG numbers [..., 3], on a display of HLG_PEAK (BT.2100's OOTF, with its gamma of 1.2)."""
    scene = hlg_scene(coded)
    bright = scene @ np.array([0.2627, 0.6780, 0.0593])
    return np.asarray(HLG_PEAK * np.maximum(bright, 0.0)[..., None] ** 0.2 * scene)


# An SDR display would show the numbers of these transfers wrongly. Each function gives their light, SDR white being 1. All other
# transfers are shown by BT.1886, as players show them: they differ from each other by less than displays do. So is sRGB, since
# the numbers of a computer's picture are those that are wanted, and so are gamma 2.2 and 2.8, the tags of old NTSC and PAL.
_LIGHT: dict[int, Callable[[Floats], Floats]] = {
    8: lambda coded: coded,
    9: lambda coded: np.where(coded > 0, 10 ** (2.0 * (coded - 1)), 0.0),
    10: lambda coded: np.where(coded > 0, 10 ** (2.5 * (coded - 1)), 0.0),
    16: lambda coded: pq_light(coded) / WHITE,
    17: lambda coded: coded**2.6 * 52.37 / 48,
    18: lambda coded: _hlg_light(coded) / WHITE,
}


def shoulder(coded: Floats) -> Floats:
    """What is left of brightness, both coded by GAMMA, SDR white being 1: the same up to KNEE, and above it ever less, so that
    even the brightest stays below 1."""
    over = np.maximum(coded - KNEE, 0.0) / (1 - KNEE)
    return np.where(coded <= KNEE, coded, KNEE + (1 - KNEE) * over / (1 + over))


def to_xyz(primaries: int) -> Floats:
    """The matrix [3, 3] from linear RGB to CIE XYZ, whose white is D65 (other whites are adapted to it, by Bradford)."""
    points = np.array([(x, y, 1 - x - y) for x, y in _PRIMARIES[primaries]])
    rgb, white = points[:3].T, points[3] / points[3, 1]
    matrix = rgb * np.linalg.solve(rgb, white)
    x, y = _D65
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gain = (bradford @ (x / y, 1.0, (1 - x - y) / y)) / (bradford @ white)
    return np.asarray(np.linalg.inv(bradford) @ (gain[:, None] * bradford) @ matrix)


def to_sdr(coded: Floats, colour: Colour) -> Floats:
    """What numbers [..., 3], RGB from 0 to 1, are as SDR pictures of BT.709, 0 to 1."""
    bright_of = _LIGHT.get(colour.transfer)
    if bright_of is None and colour.matrix == _BT2020_CL:
        # Its luma is that of the light itself. All other tools take it so that this is the light that is shown, too.
        bright_of = _bt2020_linear
    light = bright_of(coded) if bright_of else np.maximum(coded, 0.0) ** GAMMA
    to_709 = np.linalg.inv(to_xyz(1)) @ to_xyz(colour.primaries)
    light = light @ to_709.T
    bright = light @ to_xyz(1)[1]
    light = _towards_grey(light, bright, light.min(-1), 0.0)
    if hdr(colour.transfer):
        most = np.maximum(light.max(-1), 1e-9)  # One factor for all three colours leaves the hue as it is.
        light *= (shoulder(most ** (1 / GAMMA)) ** GAMMA / most)[..., None]
    else:
        light = _towards_grey(light, bright, light.max(-1), 1.0)
    return np.asarray(np.clip(light, 0.0, 1.0) ** (1 / GAMMA))


def _towards_grey(light: Floats, bright: Floats, extreme: Floats, limit: float) -> Floats:
    """Colours out of the gamut, made paler until `extreme`, the least or greatest of their three, is at `limit`."""
    outside = extreme < limit if limit == 0.0 else extreme > limit
    apart = np.where(outside, extreme - bright, 1.0)
    pale = np.where(outside, np.clip((limit - bright) / np.where(apart == 0, 1.0, apart), 0.0, 1.0), 1.0)
    return np.asarray(bright[..., None] + (light - bright[..., None]) * pale[..., None])


def from_components(planes: Floats, colour: Colour) -> Floats:
    """RGB [..., 3] of luma and two chroma components [..., 3], all from 0 to 1, by a matrix that the scaler does not know."""
    y, u, v = planes[..., 0], planes[..., 1] - 0.5, planes[..., 2] - 0.5
    if colour.matrix == _YCGCO:
        return np.stack([y - u + v, y + u, y - u - v], -1)
    if colour.matrix == _ICTCP:
        return _from_ictcp(np.stack([y, u, v], -1), colour)
    if colour.matrix == _BT2020_CL:
        blue = y + u * np.where(u <= 0, 1.9404, 1.5816)
        red = y + v * np.where(v <= 0, 1.7184, 0.9936)
        bright = _bt2020_linear(y)
        green = (bright - 0.2627 * _bt2020_linear(red) - 0.0593 * _bt2020_linear(blue)) / 0.6780
        return np.stack([red, _bt2020_coded(green), blue], -1)
    kr, kg, kb = to_xyz(colour.primaries)[1]
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.stack([red, (y - kr * red - kb * blue) / kg, blue], -1)


def _bt2020_linear(coded: Floats) -> Floats:
    return np.where(coded < 0.08145, coded / 4.5, ((np.maximum(coded, 0.0) + 0.0993) / 1.0993) ** (1 / 0.45))


def _bt2020_coded(linear: Floats) -> Floats:
    return np.where(linear < 0.0181, linear * 4.5, 1.0993 * np.maximum(linear, 0.0) ** 0.45 - 0.0993)


def _from_ictcp(ictcp: Floats, colour: Colour) -> Floats:
    """BT.2100, tables 7 and 8."""
    if colour.transfer == 18:
        mix = np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]) / 4096
    else:
        mix = np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096
    lms = ictcp @ np.linalg.inv(mix).T
    to_lms = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
    linear = hlg_scene(lms) if colour.transfer == 18 else pq_light(lms) / 10000.0
    rgb = np.maximum(linear @ np.linalg.inv(to_lms).T, 0.0)
    return _hlg_coded(rgb) if colour.transfer == 18 else _pq_coded(rgb)


def _pq_coded(light: Floats) -> Floats:
    power = light ** (2610 / 16384)
    return np.asarray(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


def _hlg_coded(scene: Floats) -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    above = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), above)


# Tables -------------------------------------------------------------------------------------------------------------


def table(colour: Colour) -> Floats:
    """[SIDE, SIDE, SIDE, 3]: for numbers of red, green and blue (of luma and two chroma components, if `by_table`), evenly
    spaced from 0 to 1, the SDR picture of BT.709."""
    line = np.linspace(0.0, 1.0, SIDE)
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1)
    return to_sdr(np.clip(from_components(grid, colour), 0.0, 1.0) if colour.by_table else grid, colour)


@lru_cache(maxsize=2)
def _cube(colour: Colour) -> bytes:
    """The table as a file of the `.cube` format: numbers as `%.6f` writes them, in a tenth of the time."""
    # In the file, red changes fastest.
    rest = np.rint(table(colour).transpose(2, 1, 0, 3).reshape(-1, 3) * 1e6).astype(np.int32)
    text = np.full((len(rest), 3, len("0.000000 ")), ord(" "), np.uint8)
    text[:, :, 1] = ord(".")
    for place in range(7, 1, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, :, place] = digit + ord("0")
    text[:, :, 0] = rest + ord("0")
    text[:, -1, -1] = ord("\n")
    return f"LUT_3D_SIZE {SIDE}\n".encode() + text.tobytes()


def _for_scaler(colour: Colour) -> int:
    """Its matrix, by swscale's number."""
    return 1 if colour.by_table else 5 if colour.matrix == 6 else colour.matrix


def _graph(colour: Colour, width: int, height: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat(_DEEP), time_base=Fraction(1))
    with tempfile.TemporaryDirectory() as folder:  # The filter reads a table from a file only.
        path = os.path.join(folder, "table.cube")
        with open(path, "wb") as file:
            file.write(_cube(colour))
        table_filter = graph.add("lut3d", f"file={path}:interp=tetrahedral")
        graph.link_nodes(source, table_filter, graph.add("buffersink")).configure()
    return graph


# Light of 16 bits as it is coded for an SDR display, uint16 [65536].
_CODED_LIGHT = np.rint(65535 * np.linspace(0.0, 1.0, 65536) ** (1 / GAMMA)).astype(np.uint16)


class Mapper:
    """Makes deep SDR pictures of one size out of frames of one colour, by libavfilter's `lut3d` where it is `mapped`."""

    def __init__(self, colour: Colour, width: int, height: int) -> None:
        self._colour = colour
        self._size = width, height
        self._reformatter = VideoReformatter()
        # Dark light would fall between the first few points of a table, so it is coded before by a table of its own.
        self._coded = _CODED_LIGHT if colour.transfer == ColorTrc.LINEAR and not colour.by_table else None
        coded = replace(colour, transfer=int(ColorTrc.BT709)) if self._coded is not None else colour
        self._graph = _graph(coded, width, height) if colour.mapped else None

    def map(self, frame: av.VideoFrame) -> av.VideoFrame:
        """`frame` as full-range RGB of 16 bits (gbrp16le), SDR, BT.709. Raises FFmpegError, ValueError."""
        width, height = self._size
        colour = self._colour
        deep = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="yuv444p16le" if colour.by_table else _DEEP,
            src_colorspace=None if colour.rgb else _for_scaler(colour),
            dst_colorspace=_for_scaler(colour) if colour.by_table else None,
            src_color_range=ColorRange.JPEG if colour.full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation="BICUBIC",
            threads=1,
        )
        if colour.by_table:  # Luma and the two chroma components take the places of red, green and blue.
            planes = [np.frombuffer(plane, "<u2").reshape(height, -1)[:, :width] for plane in deep.planes]
            deep = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.stack(planes, -1)), format=_DEEP)
        if self._coded is not None:
            deep = av.VideoFrame.from_ndarray(self._coded[deep.to_ndarray()], format=_DEEP)
        if self._graph is None:
            return deep
        deep.pts, deep.time_base = 0, Fraction(1)
        self._graph.push(deep)
        return cast(av.VideoFrame, self._graph.pull())
