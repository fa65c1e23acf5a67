"""Generators begin at a seed and go on as before: the host's, and those of the GPUs that are named."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mge_gpu._seeds import seeded
from mge_gpu.pruning._copy import scoring


def draws() -> tuple:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def states() -> tuple:
    return random.getstate(), tuple(np.random.get_state()[1]), tuple(torch.get_rng_state().tolist())


@pytest.mark.parametrize("number", [0, 7, 2**40 + 3])
def test_draws_follow_the_seed_and_nobody_elses_change(number):
    before = states()
    with seeded(number):
        first = draws()
        draws()
    with seeded(number):
        assert draws() == first
    with seeded(number + 1):
        assert not set(draws()) & set(first)
    assert states() == before


def test_states_are_restored_when_the_block_raises():
    before = states()
    with pytest.raises(KeyError), seeded(3):
        draws()
        raise KeyError
    assert states() == before


class Gpus:
    """Four GPUs of which the first is the current one: their generators are torch's of the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generators = tuple(torch.Generator().manual_seed(100 + k) for k in range(4))
        self.asked: set[int] = set()
        monkeypatch.setattr(torch.cuda, "default_generators", self.generators)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: self.at(device).get_state())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, device: self.at(device).set_state(s))

    def at(self, device: int) -> torch.Generator:
        self.asked.add(device)
        return self.generators[device]

    def draws(self) -> list[float]:
        return [float(torch.rand((), generator=g)) for g in self.generators]

    def states(self) -> list[list[int]]:
        return [g.get_state().tolist() for g in self.generators]


def test_gpus_that_are_named_are_seeded_and_no_other_is_touched(monkeypatch):
    """The one in use need not be the current one."""
    gpus = Gpus(monkeypatch)
    before = gpus.states()
    with seeded(5, [torch.device("cuda:2"), torch.device("cpu"), 3]):
        within = gpus.states()
        drawn = gpus.draws()[2:]
    assert within[:2] == before[:2]
    assert drawn == [float(torch.rand((), generator=torch.Generator().manual_seed(5)))] * 2
    assert gpus.states()[2:] == before[2:]
    assert gpus.asked == {2, 3}


def test_a_device_without_a_number_is_the_current_one(monkeypatch):
    gpus = Gpus(monkeypatch)
    with seeded(5, [torch.device("cuda")]):
        pass
    assert gpus.asked == {0}


def test_scoring_seeds_the_gpus_of_the_model(monkeypatch):
    gpus = Gpus(monkeypatch)
    parameters = [SimpleNamespace(device=torch.device(d)) for d in ("cuda:1", "cuda:3", "cpu", "cuda:1")]
    before = gpus.states()
    with scoring(SimpleNamespace(parameters=lambda: parameters), 9):
        seen = gpus.states()
    assert seen[0] == before[0] and seen[2] == before[2]
    assert seen[1] == seen[3] == torch.Generator().manual_seed(9).get_state().tolist()
    assert gpus.states() == before
