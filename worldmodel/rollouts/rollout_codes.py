"""Codes of a rollout on disk, so that it goes on later without decoding and encoding it again."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worldmodel.errors import CacheError
from worldmodel.layout import Scale
from worldmodel.tensors import write_tensors

FORMAT = "worldmodel rollout 1"


@dataclass(frozen=True)
class RolloutCodes:
    """Rollouts of one prompt, in codes, from the first frame of the context on.

    Attributes:
        codes: picture codes, then sound codes, of the context and all imagined frames.
        num_prompt_frames: frames of the context; what follows was imagined.
        start_seconds: where the context begins in its video.
        has_sound: whether the prompt had a sound track.
        frames_per_second: rate of the frames.
        seed: of the draws.
        generator_state: where the draws stopped.
        device: kind of the device that drew (cpu, cuda): another cannot take over its generator.
        fingerprint: of the codecs.
    """

    codes: Int[Tensor, "batch frame code"]
    num_prompt_frames: int
    start_seconds: float
    has_sound: bool
    frames_per_second: float
    seed: int
    generator_state: UInt8[Tensor, " byte"]
    device: str
    fingerprint: str

    def save(self, path: Path) -> None:
        """Write one safetensors file that appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "frames_per_second": repr(self.frames_per_second),
            "num_prompt_frames": str(self.num_prompt_frames),
            "start_seconds": repr(self.start_seconds),
            "has_sound": str(int(self.has_sound)),
            "seed": str(self.seed),
            "device": self.device,
        }
        tensors = {"codes": self.codes.int().cpu().contiguous(), "generator_state": self.generator_state.cpu()}
        partial = path.with_name(f".{path.name}.partial")
        write_tensors(tensors, partial, metadata)
        partial.replace(path)


def load_codes(path: Path, fingerprint: str, scales: list[Scale]) -> RolloutCodes:
    """Read what `RolloutCodes.save` wrote.

    Args:
        path: the file.
        fingerprint: of the codecs of the run that goes on.
        scales: of that run's codes.

    Raises:
        CacheError: the file is missing, damaged, something else, or was made with other codecs.
    """
    if not path.is_file():
        raise CacheError(f"{path}: no such file; give the .codes.safetensors of an earlier rollout")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CacheError(f"{path} holds no codes of a rollout; give the .codes.safetensors of an earlier one")
            rollout = RolloutCodes(
                codes=file.get_tensor("codes").long(),
                num_prompt_frames=int(metadata["num_prompt_frames"]),
                start_seconds=float(metadata["start_seconds"]),
                has_sound=metadata["has_sound"] == "1",
                frames_per_second=float(metadata["frames_per_second"]),
                seed=int(metadata["seed"]),
                generator_state=file.get_tensor("generator_state"),
                device=metadata["device"],
                fingerprint=metadata["fingerprint"],
            )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CacheError(f"{path} cannot be read ({error}); make the rollout again") from error
    if rollout.fingerprint != fingerprint:
        raise CacheError(
            f"{path} was made with codecs {rollout.fingerprint}, this run has {fingerprint}: "
            "continue with a run of the same codecs"
        )
    _check_codes(path, rollout.codes, scales)
    return rollout


def _check_codes(path: Path, codes: Int[Tensor, "batch frame code"], scales: list[Scale]) -> None:
    limits = torch.cat([torch.full((scale.num_codes,), scale.vocabulary) for scale in scales])
    if codes.shape[2] != len(limits) or bool(((codes < 0) | (codes >= limits)).any()):
        raise CacheError(
            f"{path} holds {codes.shape[2]} codes per frame up to {int(codes.max())}, which this run's {len(limits)} "
            "codes per frame cannot be; make the rollout again"
        )
