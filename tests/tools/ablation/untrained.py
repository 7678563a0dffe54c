"""Small candidates whose readouts say something, for tests."""

from dataclasses import replace

import torch
from torch import nn

from tests.worldmodel.tiny import MODEL, tiny_quantizer
from tools.ablation.candidate import Candidate
from tools.ablation.candidates import build
from tools.ablation.copying import MotionCopy
from tools.ablation.seen_orders import SurestFirst

NUM_FRAMES = MODEL.window_frames + 4


def lively(name: str) -> Candidate:
    """A candidate whose readouts are random, and what it learns its order by; untrained ones copy the last frame."""
    torch.manual_seed(0)
    candidate = build(name, replace(MODEL, decoded_frames=0), tiny_quantizer(), seed=0)
    for readout in candidate.model.decoder.readouts:
        linears = [readout.change, readout.correct, readout.gate]
        for linear in [*linears, *([readout.gates] if isinstance(readout, MotionCopy) else [])]:
            nn.init.normal_(linear.weight, std=2 * linear.in_features**-0.5)
    if isinstance(candidate.model.decoder, SurestFirst):
        nn.init.normal_(candidate.model.decoder.surprise.weight, std=0.1)
    return candidate.eval()
