"""The sound of a rollout in blocks, while it goes on, with no seam where two blocks meet."""

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from worldmodel.codecs.sound import SoundVQ
from worldmodel.evaluation.films import join_frames, sample_starts

BLOCK_FRAMES = 8  # whose sound is decoded at once
SHARED_FRAMES = 4  # that two blocks have both decoded, and are faded over


class SoundBlocks:
    """Decodes sound codes as they come.

    A block's waveform is found together with that of the frames before it, whose phases it may choose anew; there one
    fades into the other. So what is heard lags up to a block and the shared frames behind the codes.
    """

    def __init__(self, codec: SoundVQ) -> None:
        """Nothing was heard."""
        self.codec, self.device = codec, next(codec.parameters()).device
        self.codes = torch.zeros(0, codec.pyramid.num_codes, dtype=torch.int64)  # not told yet, shared ones first
        self.first = 0  # frame of the video that `codes` begin with
        self.told = torch.zeros(0)  # what the last block said of the shared frames

    def add(self, codes: Int[Tensor, "frame code"]) -> Float32[Tensor, " sample"]:
        """More codes; returns the sound that is final now, which may be none."""
        self.codes = torch.cat((self.codes, codes.cpu()))
        parts = []
        while len(self.codes) >= BLOCK_FRAMES + SHARED_FRAMES:
            parts.append(self._decode(BLOCK_FRAMES + SHARED_FRAMES, SHARED_FRAMES))
        return torch.cat(parts) if parts else torch.zeros(0)

    def finish(self) -> Float32[Tensor, " sample"]:
        """The sound of all that is left."""
        return self._decode(len(self.codes), 0) if len(self.codes) else torch.zeros(0)

    def _decode(self, num_frames: int, num_kept: int) -> Float32[Tensor, " sample"]:
        """The sound of so many frames but the last `num_kept`, which the next block says again."""
        clips, codes = self.codec.clips, self.codes[None, :num_frames].to(self.device)
        heard = join_frames(self.codec.decode(codes)[0].float().cpu(), clips, self.first)
        shared = min(len(self.told), len(heard))
        fade = torch.linspace(0, 1, shared)
        heard[:shared] = heard[:shared] * fade + self.told[:shared] * (1 - fade)
        cut = len(heard) if num_kept == 0 else int(sample_starts(self.first, num_frames, clips)[-1 - num_kept])
        self.codes, self.first = self.codes[num_frames - num_kept :], self.first + num_frames - num_kept
        self.told = heard[cut:]
        return heard[:cut]
