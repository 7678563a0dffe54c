"""A trunk whose blocks attend in turn over the places of a frame, and over the times of a place.

As ViViT's and 1xgpt's factorised space and time (Arnab et al. 2021, model 3; Bruce et al. 2024, "Genie").
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tools.ablation.candidate import Candidate
from worldmodel.attention import rotary_angles
from worldmodel.model import WorldModel, initialise
from worldmodel.sight import Sight
from worldmodel.trunk import Trunk, TrunkCache


class FactorisedTrunk(Trunk):
    """Even blocks are of space, odd ones of time; only those of time have a cache."""

    def read(
        self, tokens: Float[Tensor, "batch frame token dim"], cache: TrunkCache
    ) -> Float[Tensor, "batch frame token dim"]:
        """States of the next frames in one pass; see `Trunk.read`."""
        num_clips, num_frames = tokens.shape[:2]
        still = torch.zeros(self.num_tokens, device=tokens.device)
        space = rotary_angles(still.double(), self.places, self.head_dim)
        times = torch.arange(cache.num_frames, cache.num_frames + num_frames, device=tokens.device)
        time = rotary_angles(times.double(), self.places.new_zeros(num_frames, 2), self.head_dim)
        num_past = cache.layers[0][0].shape[2] if cache.layers else 0
        sight = Sight.of_frames(num_frames, 1, self.window_frames, num_past) if num_frames > 1 else None
        keep, layers, x = self.window_frames - 1, [], tokens
        for number, block in enumerate(self.blocks):
            if number % 2 == 0:
                x = block(x.flatten(0, 1), space, None, None)[0].unflatten(0, (num_clips, num_frames))
                continue
            past = cache.layers[number // 2] if cache.layers else None
            columns, (key, value) = block(x.transpose(1, 2).flatten(0, 1), time, past, sight)
            x = columns.unflatten(0, (num_clips, self.num_tokens)).transpose(1, 2)
            layers.append((key[:, :, -keep:], value[:, :, -keep:]) if keep else (key[:, :, :0], value[:, :, :0]))
        cache.layers, cache.num_frames = layers, cache.num_frames + num_frames
        return self.norm(x)


class Factorised(Candidate):
    """The decoder as it is."""

    def __init__(self, model: WorldModel) -> None:
        """Replace the trunk of a model."""
        super().__init__(model)
        model.trunk = FactorisedTrunk(model.settings.trunk, model.settings.window_frames, model.trunk.places)
        model.trunk.apply(initialise)
