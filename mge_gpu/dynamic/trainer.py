"""SparseTrainer: an optimizer's steps under masks, and a method that changes the masks on its schedule."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mge_gpu.dynamic._masking import (
    first_not_finite,
    mask_gradients,
    mask_values,
    optimized,
    plain_weights,
    renamed,
)
from mge_gpu.dynamic._methods import known_method, make_rule
from mge_gpu.dynamic._state import FORMAT, Update, checked
from mge_gpu.dynamic.rule import Layer, SparseTrainingWarning
from mge_gpu.errors import PruningError
from mge_gpu.masks import check_masks, check_weight
from mge_gpu.pruning import LayerCollapseWarning, prune


class SparseTrainer:
    """Trains a model under masks that a method changes on its schedule.

    After every `step` the weights outside the masks are exactly zero, and so are their gradients and the
    optimizer's state for them (momentum, exp_avg: every state tensor of the weight's shape). Biases and
    normalisation layers are dense. Gradient accumulation and clipping go before `step` as ever.

    Args:
        model: its convolutions and linear layers have plain parameters as weights. Their dropped weights are
            set to zero here.
        optimizer: any torch optimizer over the model's parameters whose step() needs no closure. A weight
            that it does not hold, or that takes no gradient, is masked but its mask never changes.
        method: a name in :data:`mge_gpu.dynamic.METHODS`: "static", "set", "dsr", "snfs", "rigl",
            "itop-set", "itop-rigl".
        sparsity: the share of weights to be without, in [0, 1); or pass ``masks``.
        total_steps: calls of `step` in the whole run, which the schedules follow ("static" needs none).
            Later steps are taken under the masks as they then are.
        seed: of the initial masks, which are those of ``mge_gpu.prune(model, ..., seed=seed)``, and of random
            growth. Global random generators are neither read nor changed. In data-parallel training the same
            seed in every process gives all the same masks.
        masks: the initial masks, as :func:`mge_gpu.prune` gives them; without them the method's own
            (:attr:`Method.initial`). A layer that is left out is dense and stays so.
        steps_per_epoch: for the methods that are published with an update each epoch.
        callbacks: called as ``callback(trainer)`` after each change of the topology.
        options: the method's own, see its class: ``interval``, ``drop_fraction``, ...

    Raises:
        PruningError: unknown method or option, a value out of range, a weight that is no plain parameter (it
            is under torch.nn.utils.prune, say), a model without such layers, an optimizer that holds none of
            the weights or needs a closure (LBFGS).
        MaskError: masks that do not fit the model, NaN or Inf weights. The model is then unchanged.

    Warns:
        SparseTrainingWarning: the schedule has no update in it, the first update moved nothing, or the masks
            of frozen weights never change.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> trainer = SparseTrainer(model, optimizer, "rigl", sparsity=0.5, total_steps=40, interval=10)
    >>> for _ in range(40):
    ...     optimizer.zero_grad()
    ...     nn.functional.cross_entropy(model(torch.randn(4, 8)), torch.tensor([0, 1, 0, 1])).backward()
    ...     _ = trainer.step()
    >>> trainer.updates, {name: int(mask.sum()) for name, mask in trainer.masks.items()}
    (2, {'0.weight': 48, '2.weight': 32})
    >>> bool(model[0].weight[~trainer.masks["0.weight"]].any())
    False
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        method: str = "rigl",
        sparsity: float | None = None,
        total_steps: int | None = None,
        seed: int = 0,
        masks: Mapping[str, Tensor] | None = None,
        steps_per_epoch: int | None = None,
        callbacks: Iterable[Callable[["SparseTrainer"], object]] = (),
        **options: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise PruningError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise PruningError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise PruningError(f"seed must be an integer of 0 or more, got {seed!r}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise PruningError(
                "LBFGS needs a closure and keeps its state for all weights at once, which no mask reaches; "
                "use another optimizer"
            )
        entry, options = known_method(method, options)
        self.method = entry.name
        self.model, self.optimizer = model, optimizer
        self.callbacks = list(callbacks)
        self.steps = 0
        """Steps taken, updates of the topology included."""
        self.history: list[Update] = []
        """What each update of the topology did."""
        self.rule = make_rule(entry, total_steps, steps_per_epoch, options)
        """The method's schedule and state; of dsr, say, ``rule.threshold``."""
        self._weights = plain_weights(model)
        initial = self._initial_masks(entry.initial, sparsity, seed, masks)
        held = optimized(optimizer)
        if not any(id(self._weights[name]) in held for name in initial):
            raise PruningError(
                f"the optimizer holds none of the model's {len(initial)} masked weights "
                f"(the first is {next(iter(initial))!r}); build it from this model's parameters()"
            )
        self.rule.prepare(initial)
        self._generator = torch.Generator().manual_seed(seed)
        # Initial masks come from the same seed: growth draws from another stream.
        self._generator.manual_seed(int(torch.randint(2**62, (1,), generator=self._generator)))
        self._without_gradient: set[str] = set()
        self._masks = {name: mask.to(self._weights[name].device) for name, mask in initial.items()}
        self._explored = dict(self._masks)
        self._warn_of_what_never_changes()
        # Kept until the first step, so that a state loaded into this trainer finds the weights it belongs to.
        self._before = {name: self._weights[name].detach().clone() for name in self._masks}
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].masked_fill_(~mask, 0)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force, bool on the weights' devices; an update makes new tensors and leaves these."""
        return dict(self._masks)

    @property
    def updates(self) -> int:
        """Updates of the topology made."""
        return len(self.history)

    @property
    def sparsity(self) -> float:
        """The share of the masked layers' weights that is dropped at present."""
        return 1 - _share(self._masks)

    @property
    def exploration_rate(self) -> float:
        """ITOP's R_s = |∪_t m_t| / N: the share of weights ever active, the initial masks included."""
        return _share(self._explored)

    def step(self, scaler: Any = None) -> bool:
        """The optimizer's step under the masks; changes the topology where the schedule says so.

        ``scaler`` is a ``torch.amp.GradScaler``: its ``unscale_`` and ``step`` are called here, ``update``
        stays with the caller. A step that it skips because of Inf or NaN gradients does not count.

        Returns whether the topology was changed. Raises PruningError when no weight has a gradient, or, with
        the layer's name, when a gradient is NaN or Inf (nothing is changed then) or a weight is at an update
        (the optimizer's step has been taken then, the topology is as it was).
        """
        scaling = scaler is not None and scaler.is_enabled()
        if scaling:
            _unscale(scaler, self.optimizer)
        gradients = self._checked_gradients(skip=scaling)
        if gradients is None:
            return False
        self._follow_devices()
        step, rule = self.steps + 1, self.rule
        due = rule.due(step)
        if due and rule.replaces_step:
            self._check_weights(step)
        rule.observe(gradients)
        if due and rule.uses_gradients and not rule.replaces_step:
            # The optimizer gets masked gradients; growth needs those of dropped weights.
            gradients = {name: g if g is None else g.clone() for name, g in gradients.items()}
        if not (due and rule.replaces_step):
            mask_gradients(self._weights, self._masks)
            scaler.step(self.optimizer) if scaling else self.optimizer.step()
            mask_values(self._weights, self._masks, self.optimizer)
        self.steps, self._before = step, {}
        if due:
            self._check_weights(step)
            self._update(gradients)
            for callback in self.callbacks:
                callback(self)
        return due

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the model's and the optimizer's; loads with weights_only."""
        return {
            "format": FORMAT,
            "method": self.method,
            "settings": self.rule.settings(),
            "steps": self.steps,
            "masks": {name: mask.cpu().clone() for name, mask in self._masks.items()},
            "explored": {name: mask.cpu().clone() for name, mask in self._explored.items()},
            "generator": self._generator.get_state(),
            "rule": self.rule.state_dict(),
            "history": [tuple(update) for update in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; model and optimizer are loaded before or after, as you like.

        Raises PruningError where the state is none, damaged, or of another method, schedule or model;
        MaskError where a mask does not fit. Nothing is changed then.
        """
        shapes = {name: self._weights[name].shape for name in self._masks}
        loaded = checked(state, self.method, self.rule.settings(), shapes)
        self.rule.load_state_dict(loaded.rule, shapes)
        self._restore_dropped()
        devices = {name: self._weights[name].device for name in shapes}
        self._masks = {name: loaded.masks[name].clone().to(devices[name]) for name in shapes}
        self._explored = {name: loaded.explored[name].clone().to(devices[name]) for name in shapes}
        self.steps, self.history = loaded.steps, loaded.history
        self._generator.set_state(loaded.generator)
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].masked_fill_(~mask, 0)

    def _initial_masks(
        self, initial: str, sparsity: float | None, seed: int, masks: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        if not self._weights:
            raise PruningError("the model has no convolution or linear layer to train under a mask")
        if (masks is None) == (sparsity is None):
            raise PruningError(
                "pass either sparsity=, the share of weights to be without (0.9, say), or masks=; got "
                f"{'neither' if masks is None else 'both'}"
            )
        if masks is None:
            return prune(self.model, initial, sparsity, seed=seed)  # type: ignore[arg-type]
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        given = check_masks(renamed(masks, shapes), shapes)
        if not given:
            raise PruningError("masks= holds no mask; leave it out and pass sparsity= for the method's own")
        for name in given:
            check_weight(name, self._weights[name].detach())
        return {name: given[name].clone() for name in shapes if name in given}

    def _warn_of_what_never_changes(self) -> None:
        if self.method == "static":
            return
        rule, held = self.rule, optimized(self.optimizer)
        if not any(map(rule.due, range(rule.interval, rule.total_steps + 1, rule.interval))):
            warnings.warn(
                f"{self.method} will never change the topology: its interval is {rule.interval} steps, "
                f"total_steps is {rule.total_steps}; pass a shorter interval=",
                SparseTrainingWarning,
                stacklevel=3,
            )
        weights = {name: self._weights[name] for name in self._masks}
        fixed = [name for name, w in weights.items() if id(w) not in held or not w.requires_grad]
        if fixed:
            warnings.warn(
                f"{len(fixed)} of {len(weights)} masks never change, since the optimizer does not hold the "
                f"weight or it takes no gradient: {', '.join(fixed)}",
                SparseTrainingWarning,
                stacklevel=3,
            )

    def _checked_gradients(self, skip: bool) -> dict[str, Tensor | None] | None:
        """The masked layers' gradients; None where one is not finite and the step is to be skipped."""
        held = optimized(self.optimizer)
        with_gradient = [p for p in held.values() if p.grad is not None]
        if not with_gradient:
            raise PruningError("no weight has a gradient; call loss.backward() before trainer.step()")
        if found := first_not_finite([p.grad for p in with_gradient]):  # type: ignore[misc]
            if skip:
                return None
            parameter, bad = with_gradient[found[0]], found[1]
            raise PruningError(
                f"{self._name_of(parameter)}: {bad} of {parameter.numel()} gradient values are NaN or Inf "
                f"at step {self.steps + 1}; nothing was changed; lower the learning rate, clip the gradients "
                "or pass scaler= if they were scaled"
            )
        return {
            name: self._weights[name].grad
            for name in self._masks
            if id(self._weights[name]) in held and self._weights[name].requires_grad
        }

    def _name_of(self, parameter: nn.Parameter) -> str:
        named = [*self._weights.items(), *self.model.named_parameters()]
        found = next((name for name, own in named if own is parameter), None)
        return found or f"a parameter of shape {tuple(parameter.shape)} beside the model"

    def _check_weights(self, step: int) -> None:
        names = list(self._masks)
        if found := first_not_finite([self._weights[name].detach() for name in names]):
            name, bad = names[found[0]], found[1]
            raise PruningError(
                f"{name}: {bad} of {self._weights[name].numel()} weights are NaN or Inf at step {step}, so "
                "nothing ranks them; the topology was not changed; lower the learning rate"
            )

    def _update(self, gradients: Mapping[str, Tensor | None]) -> None:
        layers = {}
        for name, gradient in gradients.items():
            if self.rule.uses_gradients and gradient is None:
                self._warn_without_gradient(name)
                continue
            used = gradient if self.rule.uses_gradients else None
            layers[name] = Layer(self._weights[name].detach(), self._masks[name], used)
        changes = self.rule.update(layers, self.steps, self._generator)
        emptied = [n for n, change in changes.items() if self._masks[n].any() and not change.mask.any()]
        moved = sum(int((change.mask & ~self._masks[name]).sum()) for name, change in changes.items())
        self._masks |= {name: change.mask for name, change in changes.items()}
        self._explored |= {name: self._explored[name] | change.mask for name, change in changes.items()}
        mask_values(self._weights, {n: change.kept for n, change in changes.items()}, self.optimizer)
        mask_gradients(self._weights, self._masks)
        self.history.append(Update(self.steps, moved, self.exploration_rate))
        if not moved and self.updates == 1:
            option = "threshold" if self.method == "dsr" else "drop_fraction"
            warnings.warn(
                f"{self.method}: the first update, at step {self.steps}, moved no weight: the layers are "
                f"dense, or {option}= is too small for them",
                SparseTrainingWarning,
                stacklevel=3,
            )
        if emptied:
            warnings.warn(
                f"{self.method} left no weight of {len(emptied)} layers at step {self.steps}: "
                f"{', '.join(emptied)}",
                LayerCollapseWarning,
                stacklevel=3,
            )

    def _warn_without_gradient(self, name: str) -> None:
        if name not in self._without_gradient:
            self._without_gradient.add(name)
            warnings.warn(
                f"{name}: has no gradient at step {self.steps} (the forward pass did not reach it?) and "
                f"keeps its mask; {self.method} grows by gradient",
                SparseTrainingWarning,
                stacklevel=4,
            )

    def _follow_devices(self) -> None:
        """Masks go where the weights are, should the model have been moved."""
        for name, mask in self._masks.items():
            device = self._weights[name].device
            if mask.device != device:
                self._masks[name] = mask.to(device)
                self._explored[name] = self._explored[name].to(device)

    def _restore_dropped(self) -> None:
        """Undo the initial masking of weights that nobody has changed since."""
        with torch.no_grad():
            for name, values in self._before.items():
                weight, mask = self._weights[name], self._masks[name]
                values, mask = values.to(weight.device), mask.to(weight.device)
                if torch.equal(weight, values.masked_fill(~mask, 0)):
                    weight.copy_(values)
        self._before = {}


def _share(masks: Mapping[str, Tensor]) -> float:
    size = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / size if size else 0.0


def _unscale(scaler: Any, optimizer: Optimizer) -> None:
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        # The caller has unscaled them already, to clip them, say; the scaler has no other way to tell.
        if "already been called" not in str(error):
            raise
