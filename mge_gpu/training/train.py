"""Train a sparse network on labelled batches, under fixed masks or with ones that move, and test it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mge_gpu._files import read_file, write_whole
from mge_gpu._seeds import seeded
from mge_gpu.data import Data
from mge_gpu.dynamic import SparseTrainer
from mge_gpu.errors import TrainingError
from mge_gpu.pruning._loss import check_labels
from mge_gpu.pruning._run import output_tensors, run
from mge_gpu.training.recipe import Recipe

IN_MEMORY = 1 << 30
"""Data sets of at most so many bytes are decoded and resized once, before the first epoch."""

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Trained:
    """What came of a training run.

    Args:
        accuracy: share of the test samples whose class has the largest output.
        loss: mean cross entropy over the last epoch's training samples.
        masks: weight name -> bool, True where the trained weight is active.
        exploration_rate: share of all weights that were ever active (ITOP's R_s).
        seconds: wall-clock time, over all parts of a run that was resumed.
    """

    accuracy: float
    loss: float
    masks: dict[str, Tensor]
    exploration_rate: float
    seconds: float


def train(
    model: nn.Module,
    data: tuple[Data, Data],
    recipe: Recipe,
    *,
    masks: Mapping[str, Tensor] | None = None,
    method: str = "static",
    sparsity: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: Progress | None = None,
    **options: Any,
) -> Trained:
    """Train ``model`` in place on the first part of ``data`` and test it on the second.

    The same seed gives the same run, bit for bit on a CPU with the same number of threads: it orders the
    samples, and draws augmentations, dropout and dynamic methods' choices. No global generator is touched.
    Of a model with several outputs the first is trained.

    Args:
        masks: fixed masks, or a dynamic method's first ones; None: the method's own.
        method: "static", or one of `mge_gpu.dynamic.METHODS`, which gets ``options``.
        sparsity: where no masks are given.
        checkpoint: a file that a run which was stopped goes on from, at the epoch it had reached. It is
            written after an epoch, when ``checkpoint_seconds`` have passed since the last time, and
            removed at the end.

    Raises:
        TrainingError: the loss is no longer finite, the outputs are no class scores, or the checkpoint is one
            of another run.
        PruningError, MaskError: the method, its options or the masks do not fit.
        DataError: the checkpoint cannot be read or written.
    """
    begin, device = time.perf_counter(), torch.device(device)
    model.to(device)
    parts = tuple(_held_in_memory(part) for part in data)
    steps = -(-parts[0].samples // recipe.batch_size)
    optimizer = recipe.optimizer(model)
    trainer = SparseTrainer(
        model,
        optimizer,
        method=method,
        sparsity=sparsity,
        total_steps=recipe.epochs * steps,
        seed=seed,
        masks=masks,
        steps_per_epoch=steps,
        **options,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp and device.type == "cuda")
    # What a checkpoint must share with the run that goes on from it.
    identity = {"recipe": recipe.to_dict(), "method": method, "seed": seed, "steps": steps}
    start, loss, earlier = 0, float("nan"), 0.0
    if checkpoint is not None and checkpoint.exists():
        state = _state_of(checkpoint, identity)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        trainer.load_state_dict(state["trainer"])
        scaler.load_state_dict(state["scaler"])
        start, loss, earlier = state["epoch"], state["loss"], state["seconds"]
    written = time.perf_counter()
    for epoch in range(start, recipe.epochs):
        if progress is not None:
            progress(f"epoch {epoch + 1} of {recipe.epochs}", epoch / recipe.epochs)
        loss = _epoch(model, parts[0], recipe, trainer, optimizer, scaler, epoch, seed, device)
        if checkpoint is not None and time.perf_counter() - written >= checkpoint_seconds:
            state = {
                "identity": identity,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "trainer": trainer.state_dict(),
                "scaler": scaler.state_dict(),
                "epoch": epoch + 1,
                "loss": loss,
                "seconds": earlier + time.perf_counter() - begin,
            }
            write_whole(checkpoint, partial(torch.save, state))
            written = time.perf_counter()
    found = accuracy(model, parts[1], recipe.batch_size, device)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    active = {name: mask.cpu() for name, mask in trainer.masks.items()}
    seconds = earlier + time.perf_counter() - begin
    return Trained(found, loss, active, trainer.exploration_rate, seconds)


def accuracy(model: nn.Module, data: Data, batch_size: int, device: str | torch.device = "cpu") -> float:
    """The share of samples whose class has the largest output, in evaluation mode.

    Raises TrainingError when the outputs are not finite. Each module's mode is restored.

    >>> from mge_gpu.data import load_data
    >>> data = load_data("random", (1, 2, 2), 2)
    >>> 0 <= accuracy(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), data, 64) <= 1
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    right = 0
    try:
        model.eval()
        with torch.no_grad():
            for chosen in torch.arange(data.samples).split(batch_size):
                inputs, labels = data.fetch(chosen)
                scores = _scores(model, inputs.to(device))
                if not bool(torch.isfinite(scores).all()):
                    raise TrainingError("the trained network's outputs are not finite; lower learning_rate")
                right += int((scores.argmax(1).cpu() == labels).sum())
    finally:
        for module, training in modes:
            module.training = training
    return right / data.samples


def _epoch(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    trainer: SparseTrainer,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    epoch: int,
    seed: int,
    device: torch.device,
) -> float:
    """One pass over the data; the mean loss of its samples."""
    model.train()
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    total = torch.zeros((), device=device)
    passed = 0
    # An epoch's draws depend on nothing that came before it: a resumed run makes the same ones.
    drawn = seed * 1_000_003 + epoch
    generator = torch.Generator().manual_seed(drawn)
    with seeded(drawn, [device]):
        for chosen in torch.randperm(data.samples, generator=generator).split(recipe.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(epoch + passed / data.samples)
            inputs, labels = data.fetch(chosen)
            inputs = recipe.augmented(inputs, generator).to(device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=half, enabled=recipe.amp):
                scores = _scores(model, inputs)
                check_labels(labels, scores.shape[1])
                loss = nn.functional.cross_entropy(scores, labels.to(device))
            scaler.scale(loss).backward()
            trainer.step(scaler if scaler.is_enabled() else None)
            scaler.update()
            total += loss.detach() * len(chosen)
            passed += len(chosen)
    mean = float(total) / data.samples
    if not math.isfinite(mean):
        raise TrainingError(
            f"the loss is no longer finite in epoch {epoch + 1} of {recipe.epochs} "
            f"(learning_rate {recipe.learning_rate:g}); lower learning_rate"
        )
    return mean


def _scores(model: nn.Module, inputs: Tensor) -> Tensor:  # (B, ...) -> (B, classes)
    scores = next(output_tensors(run(model, inputs)), None)
    if scores is None or scores.ndim != 2:
        got = "no tensor" if scores is None else f"a tensor of shape {tuple(scores.shape)}"
        raise TrainingError(f"the model's output must be class scores of shape (batch, classes), got {got}")
    return scores


def _held_in_memory(data: Data) -> Data:
    """The same samples, fetched once where they are small enough."""
    first, _ = data.fetch(torch.zeros(1, dtype=torch.int64))
    if first.numel() * first.element_size() * data.samples > IN_MEMORY:
        return data
    inputs, labels = data.fetch(torch.arange(data.samples))
    return replace(data, fetch=lambda chosen: (inputs[chosen], labels[chosen]))


def _state_of(checkpoint: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    state = read_file(checkpoint)
    if not isinstance(state, dict) or state.get("identity") != identity:
        raise TrainingError(
            f"{checkpoint}: is the checkpoint of another run (another recipe, method, seed or data size); "
            "remove it to start anew"
        )
    return state
