"""UniMatch's network for optical flow, for inference: takes the published GMFlow and UniMatch checkpoints.

Source: Xu et al., "Unifying Flow, Stereo and Depth Estimation" (TPAMI 2023), autonomousvision/unimatch (MIT). Written
anew from the paper and the checkpoints' layout: the names of the parameters are theirs, since files are loaded by them.
What only training, stereo or depth need is left out.

Why not the package `ptlflow`: it brings opencv-python (which overwrites the headless cv2), lightning, tensorboard,
plotly and more, to run 7 million parameters; its model is the peer that the tests compare this one with.

Shapes: B pairs, C = 128 channels, H×W feature positions, K windows a side, R radius.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 128
LAYERS = 6
RADIUS = 4  # Radius of local matching, and of the correlations that the refinement looks at.


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with instance norm, and a 1×1 one on the way round where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.InstanceNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride), nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(self.conv1(x)))
        y = functional.relu(self.norm(self.conv2(y)))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class SharedConv(nn.Module):
    """One 3×3 convolution that is used at stride 1 and at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CHANNELS, CHANNELS, 3, 3))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor, stride: int) -> Tensor:
        return functional.conv2d(x, self.weight, stride=stride, padding=1)


class Backbone(nn.Module):
    """Images → features, coarse to fine: at 1/8 alone, or at 1/8 and 1/4."""

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm1 = nn.InstanceNorm2d(64)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1), ResidualBlock(64, 64, 1))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2), ResidualBlock(96, 96, 1))
        last = 2 if scales == 1 else 1
        self.layer3 = nn.Sequential(ResidualBlock(96, CHANNELS, last), ResidualBlock(CHANNELS, CHANNELS, 1))
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.trident_conv = SharedConv() if scales == 2 else None

    def forward(self, images: Tensor) -> list[Tensor]:
        x = functional.relu(self.norm1(self.conv1(images)))
        x = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return [x] if self.trident_conv is None else [self.trident_conv(x, 2), self.trident_conv(x, 1)]


class Attention(nn.Module):
    """One head of attention from source to target within windows, then (cross-attention only) an MLP."""

    def __init__(self, *, mlp: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.merge = (
            nn.Linear(CHANNELS, CHANNELS, bias=False) for _ in range(4)
        )
        self.norm1 = nn.LayerNorm(CHANNELS)
        self.mlp: nn.Sequential | None = None
        if mlp:
            self.mlp = nn.Sequential(
                nn.Linear(2 * CHANNELS, 8 * CHANNELS, bias=False),
                nn.GELU(),
                nn.Linear(8 * CHANNELS, CHANNELS, bias=False),
            )
            self.norm2 = nn.LayerNorm(CHANNELS)

    def forward(
        self, source: Tensor, target: Tensor, windows: int, shift: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """source, target: [B, H, W, C]. mask: [K², L, L] added to the scores of shifted windows, or None."""
        q, k, v = self.q_proj(source), self.k_proj(target), self.v_proj(target)
        if mask is not None:
            q, k, v = (torch.roll(x, (-shift[0], -shift[1]), dims=(1, 2)) for x in (q, k, v))
        q, k, v = (split_windows(x, windows).flatten(1, 2) for x in (q, k, v))
        whole_mask = None if mask is None else mask.to(q.dtype).repeat(len(source), 1, 1)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=whole_mask)
        size = source.shape[1] // windows, source.shape[2] // windows
        message = merge_windows(torch.unflatten(attended, 1, size), windows)
        if mask is not None:
            message = torch.roll(message, shift, dims=(1, 2))
        message = self.norm1(self.merge(message))
        if self.mlp is not None:
            message = self.norm2(self.mlp(torch.cat([source, message], dim=-1)))
        return torch.add(source, message)


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention(mlp=False)
        self.cross_attn_ffn = Attention(mlp=True)


class Transformer(nn.Module):
    """Six blocks of self- and cross-attention over both images; every second one with shifted windows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerBlock() for _ in range(LAYERS))

    def forward(self, first: Tensor, second: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """first, second: [B, C, H, W], both sides multiples of `windows`."""
        both = torch.cat([first, second]).permute(0, 2, 3, 1)
        height, width = both.shape[1] // windows, both.shape[2] // windows
        shift = height // 2, width // 2
        mask = shift_mask(both.shape[1], both.shape[2], windows, shift).to(both.device)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, TransformerBlock)
            own_mask = mask if number % 2 else None
            # Each image attends to the other as it was before this block.
            other = torch.cat(both.chunk(2)[::-1])
            both = layer.self_attn(both, both, windows, shift, own_mask)
            both = layer.cross_attn_ffn(both, other, windows, shift, own_mask)
        one, two = both.permute(0, 3, 1, 2).contiguous().chunk(2)
        return one, two


class Propagation(nn.Module):
    """Flow carried from positions that match well to those like them: attention whose values are the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(CHANNELS, CHANNELS)
        self.k_proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, feature: Tensor, flow: Tensor, radius: int | None) -> Tensor:
        """feature [B, C, H, W], flow [B, 2, H, W]. radius: of the neighbourhood, or None for the whole image."""
        size = feature.shape[2:]
        x = feature.flatten(2).transpose(1, 2)  # [B, HW, C]
        q = self.q_proj(x)
        if radius is None:
            # The published weights were trained with keys made from the queries, not from the features.
            return torch.unflatten(attend(q, self.k_proj(q), flow.flatten(2).transpose(1, 2)).transpose(1, 2), 2, size)
        side = 2 * radius + 1
        k = torch.unflatten(self.k_proj(x).transpose(1, 2), 2, size)
        keys = torch.unflatten(functional.unfold(k, side, padding=radius), 1, (CHANNELS, -1))  # [B, C, S, HW]
        values = torch.unflatten(functional.unfold(flow, side, padding=radius), 1, (2, -1))  # [B, 2, S, HW]
        scores = torch.einsum("bpc,bcsp->bsp", q, keys) / math.sqrt(CHANNELS)
        spread = (values * wide(scores).softmax(dim=1)[:, None]).sum(dim=2)
        return torch.unflatten(spread, 2, size)


class MotionEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d((2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(256, 126, 3, padding=1)

    def forward(self, correlation: Tensor, flow: Tensor) -> Tensor:
        c = functional.relu(self.convc2(functional.relu(self.convc1(correlation))))
        f = functional.relu(self.convf2(functional.relu(self.convf1(flow))))
        return torch.cat([functional.relu(self.conv(torch.cat([c, f], dim=1))), flow], dim=1)


class SeparableGru(nn.Module):
    """A convolutional GRU, first along the rows, then along the columns."""

    def __init__(self) -> None:
        super().__init__()
        for gate in "zrq":
            setattr(self, f"conv{gate}1", nn.Conv2d(3 * CHANNELS, CHANNELS, (1, 5), padding=(0, 2)))
            setattr(self, f"conv{gate}2", nn.Conv2d(3 * CHANNELS, CHANNELS, (5, 1), padding=(2, 0)))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        for axis in "12":
            joined = torch.cat([hidden, x], dim=1)
            update = torch.sigmoid(getattr(self, f"convz{axis}")(joined))
            reset = torch.sigmoid(getattr(self, f"convr{axis}")(joined))
            new = torch.tanh(getattr(self, f"convq{axis}")(torch.cat([reset * hidden, x], dim=1)))
            hidden = (1 - update) * hidden + update * new
        return hidden


class FlowHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)


class Refinement(nn.Module):
    """One step of the refinement: correlations around the present flow → a change of it, and how to enlarge it."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = SeparableGru()
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(nn.Conv2d(CHANNELS, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, factor**2 * 9, 1))

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """(change of the flow [B, 2, H, W], weights for `enlarge`)."""
        hidden = self.gru(hidden, torch.cat([context, self.encoder(correlation, flow)], dim=1))
        return self.flow_head.conv2(functional.relu(self.flow_head.conv1(hidden))), self.mask(hidden)


class UniMatch(nn.Module):
    """Optical flow of image pairs.

    scales: 1 (features at 1/8, sides must be multiples of 16) or 2 (1/8, then 1/4; multiples of 32). refinements:
    steps of local refinement at the end (the published files have 6, or none).
    """

    def __init__(self, *, scales: int, refinements: int) -> None:
        super().__init__()
        self.windows = (2, 8)[:scales]  # Windows per side, as published.
        self.refinements = refinements
        self.factor = 8 if scales == 1 else 4
        self.backbone = Backbone(scales)
        self.transformer = Transformer()
        self.feature_flow_attn = Propagation()
        if refinements:
            self.refine_proj = nn.Conv2d(CHANNELS, 2 * CHANNELS, 1)
            self.refine = Refinement(self.factor)
        else:
            self.upsampler = nn.Sequential(
                nn.Conv2d(2 + CHANNELS, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, self.factor**2 * 9, 1)
            )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """float32 [B, 3, H, W] twice, values 0 to 255, RGB → flow float32 [B, 2, H, W], (right, down) in pixels."""
        images = torch.cat([first, second]) / 255
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        flow: Tensor | None = None
        for features, windows in zip(self.backbone((images - mean) / std), self.windows, strict=True):
            one, two = features.chunk(2)
            target = two
            if flow is not None:
                flow = 2 * functional.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
                target = sample(two, positions(flow) + flow)
            place = position_code(one.shape[2] // windows, one.shape[3] // windows, one).repeat(1, windows, windows)
            source, target = self.transformer(one + place, target + place, windows)
            if flow is None:
                flow, radius = match_globally(source, target), None
            else:
                flow, radius = flow + match_locally(source, target), 1
            flow = wide(self.feature_flow_attn(source, flow, radius))
        assert flow is not None
        if not self.refinements:
            return enlarge(flow, self.upsampler(torch.cat([flow, source], dim=1)), self.factor)
        hidden, context = self.refine_proj(source).chunk(2, dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        weights = flow
        for _ in range(self.refinements):
            correlation = local_correlation(one, two, positions(flow) + flow)
            # Each step starts from the same hidden state, as published; only the flow is carried on.
            change, weights = self.refine(hidden, context, correlation, flow)
            flow = flow + wide(change)
        return enlarge(flow, weights, self.factor)


def wide(x: Tensor) -> Tensor:
    """Half precision as float32; others as they are. Half cannot place a point among hundreds of positions."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def split_windows(x: Tensor, windows: int) -> Tensor:
    """[B, H, W, C] → [B·K², H/K, W/K, C], row by row."""
    height, width = x.shape[1] // windows, x.shape[2] // windows
    rows = torch.unflatten(torch.unflatten(x, 2, (windows, width)), 1, (windows, height))
    return rows.transpose(2, 3).flatten(0, 2)


def merge_windows(x: Tensor, windows: int) -> Tensor:
    """The inverse of `split_windows`."""
    return torch.unflatten(x, 0, (-1, windows, windows)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def shift_mask(height: int, width: int, windows: int, shift: tuple[int, int]) -> Tensor:
    """float32 [K², L, L]: 0 between positions that lie together in the picture, −100 between those that a shift by
    half a window brought together from opposite edges. L: positions per window."""

    def parts(length: int, moved: int) -> Tensor:
        place = torch.arange(length)
        return (place >= length - length // windows).int() + (place >= length - moved).int()

    regions = 3 * parts(height, shift[0])[:, None] + parts(width, shift[1])
    ids = split_windows(regions[None, :, :, None], windows).flatten(1)  # [K², L]
    return torch.where(ids[:, :, None] == ids[:, None, :], 0.0, -100.0)


def position_code(height: int, width: int, like: Tensor) -> Tensor:
    """[C, height, width]: sines and cosines of the row, then of the column, counted from 1 and scaled to end at 2π."""
    exact = wide(like)

    def code(length: int) -> Tensor:
        place = torch.arange(1, length + 1, dtype=exact.dtype, device=exact.device) / (length + 1e-6) * (2 * math.pi)
        pairs = torch.arange(CHANNELS // 4, dtype=exact.dtype, device=exact.device)
        angles = place[:, None] / 10000 ** (4 * pairs / CHANNELS)
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # [length, C/2]

    rows = code(height).T[:, :, None].expand(-1, -1, width)
    columns = code(width).T[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns]).to(like.dtype)


def positions(like: Tensor) -> Tensor:
    """[1, 2, H, W]: the (x, y) of each position of `like` [B, ·, H, W], at least float32."""
    exact = wide(like)
    y, x = torch.meshgrid(
        torch.arange(like.shape[2], dtype=exact.dtype, device=like.device),
        torch.arange(like.shape[3], dtype=exact.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([x, y])[None]


def sample(feature: Tensor, places: Tensor) -> Tensor:
    """Bilinear values of `feature` [B, C, H, W] at `places` [B, 2, H', W'] (x, y); zero outside. → [B, C, H', W']."""
    half = places.new_tensor([(feature.shape[3] - 1) / 2, (feature.shape[2] - 1) / 2])
    grid = places.permute(0, 2, 3, 1) / half - 1
    return functional.grid_sample(wide(feature), grid, padding_mode="zeros", align_corners=True)


def window_offsets(places: Tensor) -> Tensor:
    """[2, S]: (x, y) of the (2R + 1)² places around one, row by row."""
    span = torch.arange(-RADIUS, RADIUS + 1, dtype=places.dtype, device=places.device)
    y, x = torch.meshgrid(span, span, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()])


def local_correlation(source: Tensor, target: Tensor, places: Tensor) -> Tensor:
    """Products of each source feature with the target's around its place: [B, S, H, W]. places: [B, 2, H, W]."""
    offsets = window_offsets(places)
    # One offset at a time: all at once would hold (2R + 1)² copies of the features.
    products = [(source * sample(target, places + offset.view(1, 2, 1, 1))).sum(dim=1) for offset in offsets.T]
    return torch.stack(products, dim=1) / math.sqrt(CHANNELS)


def match_globally(source: Tensor, target: Tensor) -> Tensor:
    """Flow [B, 2, H, W] by matching every position of `source` with all of `target`."""
    places = positions(source)
    q, k = (x.flatten(2).transpose(1, 2) for x in (source, target))
    places_found = attend(q, k, places.flatten(2).transpose(1, 2).expand(len(source), -1, -1))
    return torch.unflatten(places_found.transpose(1, 2), 2, source.shape[2:]) - places


def attend(q: Tensor, k: Tensor, values: Tensor) -> Tensor:
    """Attention [B, L, C] whose values are places or flow: never in half precision, which rounds them to pixels."""
    with torch.autocast(q.device.type, enabled=False):
        return functional.scaled_dot_product_attention(wide(q), wide(k), values)


def match_locally(source: Tensor, target: Tensor) -> Tensor:
    """Flow [B, 2, H, W] by matching every position of `source` with those of `target` at most R away."""
    height, width = source.shape[2:]
    places = positions(source)
    offsets = window_offsets(places)
    around = places[:, :, None] + offsets.view(1, 2, -1, 1, 1)  # [1, 2, S, H, W]
    x, y = around[:, 0], around[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    scores = local_correlation(source, target, places.expand(len(source), -1, -1, -1))
    chances = wide(scores).masked_fill(~inside, -1e9).softmax(dim=1)
    # This is no einsum, since autocast would run that in half precision.
    return (chances[:, None] * offsets.view(1, 2, -1, 1, 1)).sum(dim=2)


def enlarge(flow: Tensor, weights: Tensor, factor: int) -> Tensor:
    """Flow [B, 2, H, W] → [B, 2, fH, fW]: each new vector a weighted mean of the 3×3 around it, in new pixels.

    weights: [B, 9 · f², H, W], before their softmax over the nine.
    """
    nine = torch.unflatten(functional.unfold(factor * flow, 3, padding=1), 1, (2, 9))  # [B, 2, 9, HW]
    shares = torch.unflatten(wide(weights).flatten(2), 1, (9, factor, factor)).softmax(dim=1)  # [B, 9, f, f, HW]
    large = (nine[:, :, :, None, None] * shares[:, None]).sum(dim=2)  # [B, 2, f, f, HW]
    large = torch.unflatten(large, 4, flow.shape[2:]).permute(0, 1, 4, 2, 5, 3)
    return large.flatten(4, 5).flatten(2, 3)
