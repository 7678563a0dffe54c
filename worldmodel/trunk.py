"""The trunk: a causal transformer over frames. state[t] is what is known after frame t."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.attention import Block, rotary_angles
from worldmodel.frame_group import FrameGroup
from worldmodel.modules import Modules
from worldmodel.settings import TransformerSettings
from worldmodel.sight import Sight


@dataclass
class TrunkCache:
    """Keys and values of the frames that the next frame can still see, and the number of frames read so far."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    num_frames: int = 0


class Trunk(nn.Module):
    """Every token of frame t attends to all tokens of the frames t - window_frames + 1 ... t."""

    def __init__(self, settings: TransformerSettings, window_frames: int, places: Float[Tensor, "token 2"]) -> None:
        """Build for frames whose tokens stand at `places`, (row, column) from 0 to 1."""
        super().__init__()
        self.window_frames, self.num_tokens = window_frames, len(places)
        self.head_dim = settings.dim // settings.num_heads
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor
        self.blocks = Modules[Block](
            Block(settings.dim, settings.num_heads, settings.attention) for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(settings.dim, bias=False)

    def forward(self, tokens: Float[Tensor, "batch frame token dim"]) -> Float[Tensor, "batch frame token dim"]:
        """States of whole clips that start at time 0."""
        return self.read(tokens, TrunkCache())

    def share(
        self, tokens: Float[Tensor, "batch part token dim"], group: FrameGroup
    ) -> Float[Tensor, "batch part token dim"]:
        """States of this process's frames of whole clips, of which the others have as many each; see `forward`."""
        num_frames = tokens.shape[1]
        angles = self._angles(group.rank * num_frames, num_frames)
        sight = Sight.of_frames(group.size * num_frames, self.num_tokens, self.window_frames)
        x = tokens.flatten(1, 2)
        for block in self.blocks:
            x, _ = block(x, angles, None, sight, group.attend)
        return self.norm(x).unflatten(1, (num_frames, self.num_tokens))

    def step(self, tokens: Float[Tensor, "batch token dim"], cache: TrunkCache) -> Float[Tensor, "batch token dim"]:
        """State of the next frame; see `read`."""
        return self.read(tokens[:, None], cache)[:, 0]

    def read(
        self, tokens: Float[Tensor, "batch frame token dim"], cache: TrunkCache
    ) -> Float[Tensor, "batch frame token dim"]:
        """States of the next frames in one pass; the cache is updated in place and never grows beyond the window.

        Keys keep the rotation of their absolute time: attention depends on differences of time only, so nothing is
        recomputed when the window slides.
        """
        num_frames = tokens.shape[1]
        angles = self._angles(cache.num_frames, num_frames)
        num_past = cache.layers[0][0].shape[2] // self.num_tokens if cache.layers else 0
        # One frame sees all that is kept.
        several = Sight.of_frames(num_frames, self.num_tokens, self.window_frames, num_past)
        sight = several if num_frames > 1 else None
        keep = (self.window_frames - 1) * self.num_tokens
        x, layers = tokens.flatten(1, 2), []
        for index, block in enumerate(self.blocks):
            past = cache.layers[index] if cache.layers else None
            x, (key, value) = block(x, angles, past, sight)
            layers.append((key[:, :, -keep:], value[:, :, -keep:]) if keep else (key[:, :, :0], value[:, :, :0]))
        cache.layers, cache.num_frames = layers, cache.num_frames + num_frames
        return self.norm(x).unflatten(1, (num_frames, self.num_tokens))

    def _angles(self, start: int, num_frames: int) -> Tensor:
        time = torch.arange(start, start + num_frames, device=self.places.device).repeat_interleave(self.num_tokens)
        return rotary_angles(time.double(), self.places.repeat(num_frames, 1), self.head_dim)
