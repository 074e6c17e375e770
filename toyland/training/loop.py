"""The one training loop of the family: seeded, averaged, logged, resumable.

A part brings a module and a loss; everything random in the loss comes from the generator that it
is given, and that depends on (seed, step, worker) alone. So a run that was cut off and resumed ends with
the weights of a run that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from toyland.training.precision import autocast

if TYPE_CHECKING:
    from pathlib import Path

    from toyland.training.config import Plan

__all__ = ["Loss", "load_trained", "progress_of", "save_atomically", "train"]

Module = TypeVar("Module", bound=nn.Module)
Loss = Callable[[torch.Generator, float], Tensor]
"""(generator of this step, share of the training that is over, 0..1) -> scalar."""

_SAVE_SECONDS = 60.0
_LOG_STEPS = 50
_GRADIENT_NORM = 1.0


def save_atomically(state: object, path: Path) -> None:
    """torch.save that leaves either the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".partial")
    torch.save(state, half)
    half.replace(path)


def progress_of(plan: Plan, step: int, elapsed: float) -> float:
    """Share of the plan that is over, 0..1; elapsed in seconds."""
    share = elapsed / (60 * plan.minutes) if plan.minutes else step / plan.steps
    return min(share, 1.0)


def _rate(plan: Plan, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine down to nothing at the end."""
    warm = min(1.0, (step + 1) / max(plan.warmup, 1))
    return plan.rate * warm * 0.5 * (1 + math.cos(math.pi * progress))


def _update_average(average: dict[str, Tensor], module: nn.Module, decay: float, step: int) -> None:
    """The decay warms up, so that early averages forget the random start."""
    keep = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - keep)
            else:
                average[name].copy_(value)


def _optimizer(module: nn.Module, plan: Plan) -> torch.optim.AdamW:
    weights = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in weights if p.ndim > 1]
    vectors = [p for p in weights if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay},
              {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99), fused=True)


def load_trained(module: nn.Module, checkpoint: Path) -> float:
    """Load the averaged weights of a (perhaps unfinished) run; the share of it that is done."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module.load_state_dict(state["average"] or state["module"])
    return state["progress"]


def train(
    module: Module, loss: Loss, plan: Plan, checkpoint: Path, *, seed: int, stop_at: int = 0,
) -> Module:
    """Train until the plan is over (or step `stop_at`); return the module with its final weights.

    An existing checkpoint is resumed; one of a complete run is only loaded. The module's weights
    are the averaged ones if the plan asks for an average. Time that passes between two runs does
    not count. Within a torch.distributed group the gradients are averaged over its workers.
    """
    device = next(module.parameters()).device
    optimizer = _optimizer(module, plan)
    average = {k: v.detach().clone() for k, v in module.state_dict().items()} if plan.ema else {}
    step, elapsed = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, elapsed = state["average"], state["step"], state["elapsed"]

    def save() -> None:
        if _rank() == 0:
            save_atomically({"module": module.state_dict(), "average": average,
                             "optimizer": optimizer.state_dict(), "step": step,
                             "elapsed": elapsed, "progress": progress_of(plan, step, elapsed)},
                            checkpoint)

    module.train()
    last = saved = time.monotonic()
    recent: list[float] = []
    while (progress := _agreed(progress_of(plan, step, elapsed))) < 1 and step != (stop_at or -1):
        recent.append(_one_step(module, loss, optimizer, plan, seed, step, progress))
        step += 1
        if plan.ema:
            _update_average(average, module, plan.ema, step)
        now = time.monotonic()
        elapsed, last = elapsed + now - last, now
        if step % _LOG_STEPS == 0 and _rank() == 0:
            print(f"{checkpoint.parent.name} step {step} {100 * progress:.1f} % "
                  f"loss {sum(recent) / len(recent):.5f} {step / elapsed:.2f} steps/s", flush=True)
            recent.clear()
        if now - saved > _SAVE_SECONDS:
            save()
            saved = now
    if saved != last:
        save()
    if average:
        module.load_state_dict(average)
    return module.eval()


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _agreed(progress: float) -> float:
    """The first worker's clock, for all workers."""
    if not dist.is_initialized():
        return progress
    shared = torch.tensor([progress], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return shared.item()


def _average_gradients(module: nn.Module) -> None:
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _one_step(
    module: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, plan: Plan, seed: int,
    step: int, progress: float,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = _rate(plan, step, progress)
    generator = torch.Generator().manual_seed((seed * 64 + _rank()) * 1_000_003 + step)
    device = next(module.parameters()).device
    with autocast(device):
        value = loss(generator, progress)
    value.backward()
    _average_gradients(module)
    nn.utils.clip_grad_norm_(module.parameters(), _GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return value.item()
