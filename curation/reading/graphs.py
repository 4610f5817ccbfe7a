"""Filters of ffmpeg for decoded frames, each in a graph of its own."""

from __future__ import annotations

from typing import cast

import av
import av.filter

Kind = tuple[int, int, str, int, int]


def kind_of(frame: av.VideoFrame) -> Kind:
    """What a graph is made for: width and height (px), format, matrix and range of its frames."""
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)


def graph_for(frame: av.VideoFrame, name: str, arguments: str) -> av.filter.Graph:
    """A graph of one filter for frames of this one's kind, on one thread. Raises av.error.FFmpegError and ValueError."""
    graph = av.filter.Graph()
    graph.threads = 1
    # Without the matrix and the range, packed pictures would be brought to another matrix on the way.
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={frame.time_base}"
        f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
    )
    graph.link_nodes(source, graph.add(name, arguments), graph.add("buffersink")).configure()
    return graph


def top_down(frame: av.VideoFrame) -> av.VideoFrame:
    """A frame whose lines lie in memory from the upper one on, as all that reads its planes expects; itself, if they do. AMV and
    bitmaps in AVI are stored the other way round."""
    if frame.planes[0].line_size > 0:
        return frame
    graph = graph_for(frame, "copy", "")
    graph.push(frame)
    return cast(av.VideoFrame, graph.pull())
