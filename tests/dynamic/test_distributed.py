"""Data-parallel training: processes that see other data and agree on masks and weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mge_gpu.dynamic import METHODS, SparseTrainer

PROCESSES, STEPS = 2, 16


def _train(rank: int, folder: str) -> None:
    """A process' part in a run of each method; leaves what it ends with in a file."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES
    )
    ends = {}
    for method in METHODS:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
        )
        model = nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        options = {"static": {}, "dsr": {"interval": 2, "threshold": 0.1}}.get(method, {"interval": 2})
        trainer = SparseTrainer(model, optimizer, method, 0.7, total_steps=STEPS, seed=5, **options)
        first = trainer.masks
        batches = torch.Generator().manual_seed(rank)
        for _ in range(STEPS):
            optimizer.zero_grad()
            images, labels = torch.randn(4, 2, 6, 6, generator=batches), torch.arange(4)
            nn.functional.cross_entropy(model(images), labels).backward()
            trainer.step()
        moved = any(bool((mask != first[name]).any()) for name, mask in trainer.masks.items())
        ends[method] = moved, trainer.masks, [p.detach() for p in network.parameters()]
    torch.save(ends, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("gloo")
def test_all_processes_have_the_same_masks_and_weights(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train, (str(tmp_path),), PROCESSES)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES))
    for method in METHODS:
        moved, masks, weights = one[method]
        assert moved == (method != "static"), method
        assert all(torch.equal(mask, other[method][1][name]) for name, mask in masks.items()), method
        assert all(map(torch.equal, weights, other[method][2])), method
