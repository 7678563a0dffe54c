"""Picture codec of learned tokens in one row: a transformer reads them off the patches of a frame, another paints them.

TiTok (Yu et al. 2024, "An Image is Worth 32 Tokens for Reconstruction and Generation"), trained on pixels from the
start. Prefixes of the row are scales, because training cuts the row at random (nested dropout: Rippel et al. 2014; as
in FlexTok: Bachmann et al. 2025).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from streams.settings import ClipSettings
from worldmodel.attention import grid_positions, rotary_turns
from worldmodel.blocks import Block
from worldmodel.codecs.picture import PictureVQ
from worldmodel.codecs.prefix_quantizer import PrefixQuantizer
from worldmodel.codecs.quantizer import MultiScaleQuantizer
from worldmodel.modules import Modules
from worldmodel.settings import QuantizerSettings, Tokens1dSettings, TransformerSettings


class Mix(nn.Module):
    """Every position of one row as a learned sum of all positions of another, apart for each head's channels.

    After the token mixing of MLP-Mixer (Tolstikhin et al. 2021): a straight way from every place to every token, which
    attention takes long to find.
    """

    def __init__(self, weight: Float[Tensor, "other position"], num_heads: int) -> None:
        """Build with the sums to start from."""
        super().__init__()
        self.weight = nn.Parameter(weight.repeat(num_heads, 1, 1))

    def forward(self, x: Float[Tensor, "item position dim"]) -> Float[Tensor, "item other dim"]:
        """As many positions as there are in the other row."""
        heads = x.unflatten(2, (len(self.weight), -1)).transpose(1, 2)
        return (self.weight.to(x.dtype) @ heads).transpose(1, 2).flatten(2)


class PatchesAndTokens(nn.Module):
    """A transformer in which the patches of a frame and the tokens of its row all see each other."""

    def __init__(self, settings: TransformerSettings, grid: tuple[int, int], num_tokens: int) -> None:
        super().__init__()
        self.names = nn.Parameter(torch.randn(grid[0] * grid[1] + num_tokens, settings.dim) * 0.02)
        self.blocks = Modules[Block](
            Block(settings.dim, settings.num_heads, settings.attention) for _ in range(settings.depth)
        )
        # Tokens stand at no place: all at the corner, whence they can ask for the places of patches.
        places = torch.cat((grid_positions(*grid), torch.zeros(num_tokens, 2)))
        turns = rotary_turns(torch.zeros(len(places)), places, settings.dim // settings.num_heads)
        self.register_buffer("turns", turns, persistent=False)
        self.turns: Tensor

    def forward(self, x: Float[Tensor, "item both dim"]) -> Float[Tensor, "item both dim"]:
        """Patches row by row, then tokens; same shape out."""
        x = x + self.names
        for block in self.blocks:
            x = block(x, self.turns, None, None)
        return x


class TokenEncoder(nn.Module):
    """Frames to rows of latents."""

    def __init__(self, settings: Tokens1dSettings, grid: tuple[int, int], num_tokens: int) -> None:
        super().__init__()
        self.patch, self.num_tokens = settings.patch, num_tokens
        dim = settings.transformer.dim
        self.read = nn.Linear(3 * settings.patch**2, dim)
        self.mix = Mix(cosine_waves(grid, num_tokens), settings.transformer.num_heads)
        self.transformer = PatchesAndTokens(settings.transformer, grid, num_tokens)
        self.out = nn.Linear(dim, settings.quantizer.dim)

    def forward(self, frames: Float[Tensor, "item 3 height width"]) -> Float[Tensor, "item latent 1 token"]:
        """Latents before quantisation."""
        patches = self.read(F.pixel_unshuffle(frames, self.patch).flatten(2).transpose(1, 2))
        x = self.transformer(torch.cat((patches, self.mix(patches)), 1))
        return self.out(x[:, -self.num_tokens :]).transpose(1, 2)[:, :, None]


class TokenDecoder(nn.Module):
    """Rows of latents, whole or cut, to frames."""

    def __init__(self, settings: Tokens1dSettings, grid: tuple[int, int], num_tokens: int) -> None:
        super().__init__()
        self.patch, self.grid = settings.patch, grid
        dim = settings.transformer.dim
        self.read = nn.Linear(settings.quantizer.dim, dim)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)
        self.mix = Mix(cosine_waves(grid, num_tokens).T, settings.transformer.num_heads)
        self.transformer = PatchesAndTokens(settings.transformer, grid, num_tokens)
        self.out = nn.Linear(dim, 3 * settings.patch**2)

    def forward(
        self, latent: Float[Tensor, "item latent 1 token"], num_tokens: Int[Tensor, " item"]
    ) -> Float[Tensor, "item 3 height width"]:
        """Frames from the first `num_tokens` of each row; what the others are is not seen."""
        tokens = self.read(latent[:, :, 0].transpose(1, 2))
        known = torch.arange(tokens.shape[1], device=latent.device) < num_tokens[:, None]
        tokens = torch.where(known[..., None], tokens, self.absent.to(tokens.dtype))
        x = self.transformer(torch.cat((self.mix(tokens), tokens), 1))
        patches = self.out(x[:, : self.grid[0] * self.grid[1]]).transpose(1, 2).unflatten(2, self.grid)
        return F.pixel_shuffle(patches, self.patch)


def cosine_waves(grid: tuple[int, int], num_waves: int) -> Float[Tensor, "wave place"]:
    """The longest waves of the orthonormal cosine transform over a grid, longest first; zeros when there are no more.

    Where tokens start from these, a prefix is a coarse picture from the first step on, and no place is favoured.
    """
    axes = [
        torch.cos(torch.pi / size * torch.outer(torch.arange(size), torch.arange(size) + 0.5)) * (2 / size) ** 0.5
        for size in grid
    ]
    for axis in axes:
        axis[0] *= 0.5**0.5
    waves = torch.einsum("ur,vc->uvrc", *axes).flatten(2).flatten(0, 1)
    lengths = torch.cartesian_prod(*(torch.arange(size) / size for size in grid)).square().sum(1)
    ordered = waves[lengths.argsort(stable=True)][:num_waves]
    return F.pad(ordered, (0, 0, 0, num_waves - len(ordered)))


class PictureTokens(PictureVQ):
    """Frames to codes and back: a code is that of one token, each of the whole frame; any prefix of scales decodes."""

    family = "tokens_1d"
    settings: Tokens1dSettings

    def make_quantizer(self, settings: QuantizerSettings) -> MultiScaleQuantizer:
        """Whose scales are prefixes."""
        return PrefixQuantizer(settings)

    def build(self, settings: Tokens1dSettings, clips: ClipSettings) -> None:
        """The transformers.

        Raises:
            ValueError: a size does not fit another, or a share is none.
        """
        if clips.height % settings.patch or clips.width % settings.patch:
            raise ValueError(
                f"frames of {clips.height}x{clips.width} are not whole patches of tokens_1d.patch={settings.patch}: "
                "change it or clips.height/width"
            )
        if not 0 <= settings.nested_dropout <= 1:
            raise ValueError(
                f"tokens_1d.nested_dropout={settings.nested_dropout} is out of range: it must be from 0 to 1"
            )
        grid, num_tokens = (clips.height // settings.patch, clips.width // settings.patch), self.pyramid.num_codes
        self.encoder = TokenEncoder(settings, grid, num_tokens)
        self.decoder = TokenDecoder(settings, grid, num_tokens)

    def analyse(self, frames: Float[Tensor, "item 3 height width"]) -> Float[Tensor, "item dim row column"]:
        """Latents of frames (range -1 to 1), in one row."""
        return self.encoder(frames)

    def synthesise(self, latent: Float[Tensor, "item dim row column"]) -> Float[Tensor, "item 3 height width"]:
        """Frames of latents; in training mode, some of what is drawn prefixes of them."""
        whole = torch.full((len(latent),), self.pyramid.num_codes, device=latent.device)
        return self.decoder(latent, self.cut(whole) if self.training else whole)

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, "batch frame code"], num_scales: int | None = None
    ) -> Float[Tensor, "batch frame 3 height width"]:
        """Frames of codes, from the first `num_scales` scales (all by default)."""
        flat = codes.flatten(0, 1)
        num_tokens = sum(scale.num_codes for scale in self.pyramid.scales[:num_scales])
        lengths = torch.full((len(flat),), num_tokens, device=codes.device)
        return self.decoder(self.quantizer.embed(flat, num_scales), lengths).clamp(-1, 1).unflatten(0, codes.shape[:2])

    def cut(self, lengths: Int[Tensor, " item"]) -> Int[Tensor, " item"]:
        """Lengths of rows after nested dropout: a share of them end where one of the scales does, all alike likely."""
        ends = torch.tensor([part.stop for part in self.pyramid.slices], device=lengths.device)
        drawn = ends[torch.randint(len(ends), lengths.shape, device=lengths.device)]
        chosen = torch.rand(lengths.shape, device=lengths.device) < self.settings.nested_dropout
        return torch.where(chosen, drawn, lengths)
