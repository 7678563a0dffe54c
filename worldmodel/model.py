"""The world model: codes of past frames in, a distribution over the codes of the next frame out."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldmodel.attention import grid_positions
from worldmodel.blocks import Block
from worldmodel.decoder import DecoderCache, FrameDecoder, Quantizer, Readout
from worldmodel.frame_group import FrameGroup, part_of
from worldmodel.modules import Modules
from worldmodel.settings import ModelSettings
from worldmodel.trunk import Trunk, TrunkCache

COMPARE_CHANNELS = 64  # channels of an embedding's first convolution


@dataclass
class ModelCache:
    """What a rollout keeps between frames: the trunk's keys and values, and the last frame's latents, by modality."""

    trunk: TrunkCache = field(default_factory=TrunkCache)
    latents: list[Tensor] | None = None

    def branch(self, count: int) -> None:
        """Go on with `count` copies of every rollout, next to each other."""
        if count > 1 and self.latents is not None:
            self.trunk.branch(len(self.latents[0]), count)
            self.latents = [latent.repeat_interleave(count, 0) for latent in self.latents]


class FrameEmbedding(nn.Module):
    """Latents of finished frames to the trunk's tokens.

    Convolutions over the latents of a frame and of the frame before make motion visible to the first layer.
    """

    def __init__(self, latent_dim: int, patch: tuple[int, int], dim: int, num_named: int = 0) -> None:
        """Build for tokens of so many latents.

        Args:
            latent_dim: channels of a latent.
            patch: rows and columns of latents that make a token.
            dim: channels of a token.
            num_named: tokens of a frame, where each means something else and no place tells them apart; else 0.
        """
        super().__init__()
        # Squares of more than one latent overlap by one on each side.
        more = (int(patch[0] > 1), int(patch[1] > 1))
        kernel = (patch[0] + 2 * more[0], patch[1] + 2 * more[1])
        self.compare = nn.Conv2d(2 * latent_dim, COMPARE_CHANNELS, 3, padding=1)
        self.project = nn.Conv2d(COMPARE_CHANNELS, dim, kernel, stride=patch, padding=more)
        self.kind = nn.Parameter(torch.randn(*([num_named] if num_named else []), dim) * 0.02)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)

    def forward(
        self,
        latents: Float[Tensor, "batch frame channel row column"],
        before: Float[Tensor, "batch 1 channel row column"],
        present: Bool[Tensor, " batch"],
    ) -> Float[Tensor, "batch frame token dim"]:
        """Tokens of a clip; where the modality is absent, a learned token stands in."""
        earlier = torch.cat((before, latents[:, :-1]), 1)
        maps = self.project(F.silu(self.compare(torch.cat((latents, latents - earlier), 2).flatten(0, 1))))
        tokens = maps.flatten(2).transpose(1, 2).unflatten(0, latents.shape[:2])
        return torch.where(present[:, None, None, None], tokens, self.absent.to(tokens.dtype)) + self.kind


class WorldModel(nn.Module):
    """Trunk over finished frames, decoder inside a frame, over frozen codecs' latents.

    A frame's codes are one row: the picture's pyramid, then the sound's (if the run has sound).
    """

    def __init__(self, settings: ModelSettings, picture: Quantizer, sound: Quantizer | None) -> None:
        super().__init__()
        self.settings = settings = settings.sized()
        quantizers = [picture] if sound is None else [picture, sound]
        self.quantizers = nn.ModuleList(quantizers).requires_grad_(False)
        (rows, columns), whole = picture.pyramid.grid, picture.pyramid.whole_frame
        patch = (1 if whole else settings.patch, settings.patch)
        if rows % patch[0] or columns % patch[1]:
            raise ValueError(f"model.patch={settings.patch} must divide the finest grid {rows}x{columns}")
        grids = [(rows // patch[0], columns // patch[1]), (1, 1)][: len(quantizers)]
        places = torch.cat([grid_positions(*grid) for grid in grids])
        if settings.window_frames < 1:
            raise ValueError(f"model.window_frames={settings.window_frames}: a frame sees itself, so 1 at least")
        dim = settings.trunk.dim
        if settings.decoder.dim != dim:
            raise ValueError(f"model.decoder.dim={settings.decoder.dim} must equal model.trunk.dim={dim}")
        self.embeddings = Modules[FrameEmbedding](
            FrameEmbedding(
                q.dim,
                (q.pyramid.grid[0] // g[0], q.pyramid.grid[1] // g[1]),
                dim,
                g[0] * g[1] if q.pyramid.whole_frame else 0,
            )
            for q, g in zip(quantizers, grids, strict=True)
        )
        self.trunk = Trunk(settings.trunk, settings.window_frames, places, settings.factorised)
        self.decoder = FrameDecoder(settings.decoder, quantizers, grids, places, settings.copy_bias)
        for part in (self.embeddings, self.trunk, self.decoder):  # and not the trained quantizers
            part.apply(initialise)

    def train(self, mode: bool = True) -> "WorldModel":
        """Training mode for everything but the frozen codecs, whose codebooks must not move."""
        super().train(mode)
        self.quantizers.eval()
        return self

    @property
    def blocks(self) -> list[Block]:
        """The transformers' blocks."""
        return [*self.trunk.blocks, *self.decoder.blocks]

    @property
    def num_codes(self) -> int:
        """Codes of one frame."""
        return sum(quantizer.pyramid.num_codes for quantizer in self.decoder.quantizers)

    def embed(
        self,
        codes: Int[Tensor, "batch frame code"],
        has_sound: Bool[Tensor, " batch"],
        before: Int[Tensor, "batch code"] | None = None,
    ) -> Float[Tensor, "batch frame token dim"]:
        """The trunk's tokens of finished frames; `before` are the codes of the frame before the first."""
        if before is None:
            return self._tokens(self._latents(codes), None, has_sound)
        latents = self._latents(torch.cat((before[:, None], codes), 1))
        return self._tokens([each[:, 1:] for each in latents], [each[:, 0] for each in latents], has_sound)

    def _latents(self, codes: Int[Tensor, "batch frame code"]) -> list[Tensor]:
        """Latents of frames, of every modality, (batch, frame, channel, row, column)."""
        parts = zip(self.decoder.quantizers, self.decoder.parts, strict=True)
        return [q.embed(codes[..., part].flatten(0, 1)).unflatten(0, codes.shape[:2]) for q, part in parts]

    def _tokens(self, latents: list[Tensor], before: list[Tensor] | None, has_sound: Tensor) -> Tensor:
        """The trunk's tokens of frames with these latents; `before` are those of the frame before the first."""
        # Nothing is before a clip: its first frame stands still.
        first = [each[:, :1] for each in latents] if before is None else [each[:, None] for each in before]
        present = [torch.ones_like(has_sound), has_sound]
        given = zip(self.embeddings, latents, first, present, strict=False)
        return torch.cat([embedding(*each) for embedding, *each in given], 2)

    def states(
        self,
        codes: Int[Tensor, "batch frame code"],
        has_sound: Bool[Tensor, " batch"],
        group: FrameGroup | None = None,
    ) -> Float[Tensor, "batch frame token dim"]:
        """state[t] of every frame: what is known after frames up to t.

        The processes of a group, all of which have the same codes, each compute the states of a part of the frames.
        """
        if group is None:
            return self.trunk(self.embed(codes, has_sound))
        part = part_of(group, codes.shape[1])
        before = codes[:, part.start - 1] if part.start else None
        return group.gather(self.trunk.share(self.embed(codes[:, part], has_sound, before), group))

    def start(self) -> ModelCache:
        """Begin a rollout."""
        return ModelCache()

    def step(
        self,
        codes: Int[Tensor, "batch code"],
        has_sound: Bool[Tensor, " batch"],
        cache: ModelCache,
        decoded: DecoderCache | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        """State after one more frame; see `read`."""
        return self.read(codes[:, None], has_sound, cache, decoded)

    def read(
        self,
        codes: Int[Tensor, "batch frame code"],
        has_sound: Bool[Tensor, " batch"],
        cache: ModelCache,
        decoded: DecoderCache | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        """State after several more frames, read in one pass; the cache is updated in place.

        Of a single frame that the decoder has just `decoded`, the latents are there already.
        """
        if decoded is None:
            latents = self._latents(codes)
        else:
            latents = [each[:, None] for each in self.decoder.finish(codes[:, 0], decoded)]
        tokens = self._tokens(latents, cache.latents, has_sound)
        cache.latents = [each[:, -1] for each in latents]
        if tokens.shape[1] == 1:
            return self.trunk.step(tokens[:, 0], cache.trunk)
        return self.trunk.read(tokens, cache.trunk, 1)[:, 0]


def initialise(module: nn.Module) -> None:
    """Normal weights of variance 1 / fan-in and zero biases; readouts start as a copy."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Readout):
        module.initialise()  # after its own linear layers
