from dataclasses import replace

import torch

from tests.worldmodel.training.toy import BATCH_SIZE, SETTINGS, Toy, make_loader
from worldmodel.training.engine import Engine
from worldmodel.training.rehearsal import rehearse


def test_one_update_warms_up_and_the_others_are_measured():
    toy = Toy(noise=0.0)
    before = toy.first_weight.detach().clone()
    engine = Engine(toy, replace(SETTINGS, accumulate=2), BATCH_SIZE)
    loader = make_loader(0, accumulate=2)
    found = rehearse(engine, loader, num_steps=4)
    engine.close()
    assert loader.position == 5 * BATCH_SIZE
    assert len(found.seconds) == 4
    assert min(found.seconds) > 0
    assert found.step_seconds * 4 == sum(found.seconds)
    assert len(toy.losses) == 2 * 5
    assert toy.losses[-2] < toy.losses[0]
    assert not torch.equal(toy.first_weight, before)


def test_activations_are_those_of_one_micro_batch():
    kept = []
    for accumulate in (1, 4):
        engine = Engine(Toy(noise=0.0), replace(SETTINGS, accumulate=accumulate), BATCH_SIZE)
        kept.append(rehearse(engine, make_loader(0, accumulate), num_steps=1).activation_bytes)
        engine.close()
    assert 3.5 < kept[0] / kept[1] < 4.5
