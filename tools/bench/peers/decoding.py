"""Other ways to roll the same model out: nothing kept between scales, and one code after another with a cache."""

import torch
from torch import Tensor

from worldmodel.attention import Attention
from worldmodel.blocks import Block
from worldmodel.decoder import DecoderCache, FrameDecoder
from worldmodel.model import ModelCache, WorldModel


class Uncached:
    """Computes all frames and all scales so far anew for every scale, as a loop without a cache does."""

    def __init__(self, model: WorldModel, frames: Tensor, has_sound: Tensor) -> None:
        self.model, self.frames, self.has_sound = model, frames, has_sound
        self.scales, self.slices = model.decoder.scales, model.decoder.slices
        self.finest_level, self.vectors = model.decoder.finest_level, model.decoder.vectors

    def start(self, state: Tensor, before: list[Tensor] | None = None) -> DecoderCache:
        """Keeps nothing."""
        return DecoderCache()

    def step(self, state: Tensor, previous: Tensor, codes: Tensor, cache: DecoderCache) -> Tensor:
        """Logits of the next scale; the state that is given is not used."""
        decoder = self.model.decoder
        state = self.model.states(self.frames, self.has_sound)[:, -1]
        inner, logits = decoder.start(state), torch.empty(0)
        for _ in range(cache.num_scales + 1):
            logits = decoder.step(state, previous, codes, inner)
        cache.num_scales += 1
        return logits


class RasterModel:
    """Ours with a decoder code by code. The trunk embeds every frame anew: that decoder keeps nothing for it."""

    def __init__(self, model: WorldModel) -> None:
        self.model, self.decoder = model, Raster(model.decoder)
        self.states, self.start, self.read = model.states, model.start, model.read

    def step(self, codes: Tensor, has_sound: Tensor, cache: ModelCache, decoded: DecoderCache | None = None) -> Tensor:
        """State after one more frame."""
        return self.model.step(codes, has_sound, cache)


class Raster:
    """The same net with one call of its blocks for every code, each of which sees the codes before it, from a cache.

    The inputs of a scale are prepared for all of its codes at once, and buffers for all keys and values are made once a
    frame: both make it faster than a loop that does neither.
    """

    def __init__(self, decoder: FrameDecoder) -> None:
        self.decoder, self.scales, self.slices = decoder, decoder.scales, decoder.slices
        self.finest_level, self.vectors = decoder.finest_level, decoder.vectors

    def start(self, state: Tensor, before: list[Tensor] | None = None) -> DecoderCache:
        """Keys and values of the state, with room for all codes."""
        num_codes = self.slices[-1].stop
        layers = [
            (
                torch.cat((key, key.new_empty(*key.shape[:2], num_codes, key.shape[3])), 2),
                torch.cat((value, value.new_empty(*value.shape[:2], num_codes, value.shape[3])), 2),
            )
            for key, value in self.decoder.start(state).layers
        ]
        return DecoderCache(layers)

    def step(self, state: Tensor, previous: Tensor, codes: Tensor, cache: DecoderCache) -> Tensor:
        """Logits of the next scale, code by code."""
        decoder, level = self.decoder, cache.num_scales
        x, left_over = decoder.scale_inputs(state, previous, codes, cache)
        old_codes, vectors = previous[:, self.slices[level]], decoder.vectors(level)
        logits = []
        for place in range(x.shape[1]):
            here, column = slice(place, place + 1), self.slices[level].start + place
            token, turns = x[:, here], decoder.turns[column : column + 1]
            stop = state.shape[1] + column + 1
            for block, (keys, values) in zip(decoder.blocks, cache.layers, strict=True):
                token = one_token(block, token, turns, keys[:, :, :stop], values[:, :, :stop])
            logits.append(decoder.readouts[level](token, left_over[:, here], vectors, old_codes[:, here])[0])
        cache.num_scales += 1
        return torch.cat(logits, 1)


def one_token(block: Block, x: Tensor, turns: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """A block's output for one token, whose own key and value are written where the given ones end."""
    attention: Attention = block.attention
    normed = block.attention_norm(x)
    keys[:, :, -1:], values[:, :, -1:] = attention.keys_values(normed, turns)
    x = x + attention(normed, turns, keys, values, None)
    return x + block.feed(block.feed_norm(x))
