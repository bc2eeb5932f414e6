"""Train a model by its recipe: `python -m dualfocus_training.train RECIPE.yaml --out DIR`.

A run that was stopped goes on from its last checkpoint when started again, with the losses it would
have had. Several processes share each step's rows: on GPUs `accelerate launch -m dualfocus_training.train …`,
on a CPU's cores `torchrun`, as `make model` has it.
"""

import argparse
import ctypes
import json
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.utils.data import DataLoader

from dualfocus_training.curves import draw_curves
from dualfocus_training.export import export
from dualfocus_training.learning.optimizing import build_optimizers, gather_states, set_rates
from dualfocus_training.recipe import Recipe, Stage, load_recipe
from dualfocus_training.starting import build_course, build_learner, build_processor_of, load_weights

LOSSES_FILE = "losses.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
MODEL_FOLDER = "model"
# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


class Start(NamedTuple):
    """Where a run begins that is to try a recipe's later stages: an exported small model, and the first of them."""

    model: Path
    stage: str


class Run:
    """A run in progress: what is learned, optimizers, and how far through the recipe it is.

    Raises ValueError where there is no stage of the start's name, and where rows can't be shared out evenly.
    """

    def __init__(self, recipe: Recipe, out: Path, start: Start | None = None) -> None:
        self._recipe, self._out = recipe, out
        # The losses of a stage need not reach every weight.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(
            mixed_precision=recipe.precision, cpu=not torch.cuda.is_available(), kwargs_handlers=[unused]
        )
        _check_shares(recipe, self._accelerator.num_processes)
        self._processor = build_processor_of(recipe)
        self._learner = build_learner(recipe, self._processor).to(self._accelerator.device)
        muon = any(stage.rates.muon for stage in recipe.stages)
        self._optimizers = build_optimizers(self._learner, muon)
        self._stage, self._step = 0, 0
        if not self._resume() and start is not None:
            self._stage = [stage.name for stage in recipe.stages].index(start.stage)
            load_weights(self._learner, start.model, self._processor.tokenizer)
        self._wrapped = self._accelerator.prepare(self._learner)

    def train(self) -> None:
        """Train to the recipe's end from where the last checkpoint left it; then export the model."""
        while self._stage < len(self._recipe.stages):
            self._train_stage(self._recipe.stages[self._stage])
            self._stage, self._step = self._stage + 1, 0
            self._save()
        if self._accelerator.is_main_process:
            export(self._recipe, self._learner, self._processor, self._out / MODEL_FOLDER)
            draw_curves(self._out / LOSSES_FILE, self._out / "losses.png")
        self._end()

    def _end(self) -> None:
        """Part from the other processes: first what still counts on them, then the connection."""
        self._accelerator.wait_for_everyone()
        del self._wrapped
        self._accelerator.free_memory()
        self._accelerator.end_training()

    def _train_stage(self, stage: Stage) -> None:
        course = build_course(self._recipe, self._stage, self._processor)
        slices = iter(self._slices(stage, course))
        while self._step < stage.steps:
            losses = self._take_step(stage, slices)
            self._step += 1
            self._log(stage, losses)
            if self._step % self._recipe.keep_every == 0:
                self._save()

    def _slices(self, stage: Stage, course: Any) -> DataLoader[Any]:
        """This process's parts of each step's rows, from the present step on."""
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        workers = self._recipe.workers
        return DataLoader(
            course,
            batch_sampler=list(_row_numbers(stage, self._step, rank, world)),
            num_workers=workers,
            worker_init_fn=_lower_priority,
            collate_fn=course.collate,
            prefetch_factor=2 if workers else None,
        )

    def _take_step(self, stage: Stage, slices: Iterator[Any]) -> dict[str, float]:
        self._wrapped.train()
        self._seed()
        set_rates(self._optimizers, stage, self._step)
        sums: dict[str, Tensor] = {}
        for left in reversed(range(stage.slices)):
            # Gradients of several slices are added up before the processes share them.
            with self._accelerator.no_sync(self._wrapped) if left else nullcontext():
                losses = self._learn(stage, next(slices))
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)) + loss / stage.slices
        learned = [weight for weight in self._learner.parameters() if weight.requires_grad]
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return {name: self._mean(total) for name, total in sums.items()}

    def _seed(self) -> None:
        """Let dropout depend on the step alone, so that a run that goes on draws what it would have."""
        done = sum(stage.steps for stage in self._recipe.stages[: self._stage]) + self._step
        process = self._accelerator.process_index
        torch.manual_seed((self._recipe.seed << 40) + (done << 10) + process)

    def _learn(self, stage: Stage, batch: Any) -> dict[str, Tensor]:
        with self._accelerator.autocast():
            losses: dict[str, Tensor] = self._wrapped(batch.to(self._accelerator.device))
        total = sum(stage.losses[name] * loss for name, loss in losses.items())
        self._accelerator.backward(total / stage.slices)
        return {name: loss.detach() for name, loss in losses.items()}

    def _mean(self, value: Tensor) -> float:
        mean: Tensor = self._accelerator.reduce(value, "mean")
        return float(mean)

    def _log(self, stage: Stage, losses: dict[str, float]) -> None:
        if not self._accelerator.is_main_process:
            return
        record = {"stage": stage.name, "step": self._step, "time": round(time.time(), 1), **losses}
        with (self._out / LOSSES_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")
        if self._step % 10 == 0:
            print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else str(v) for k, v in record.items()), flush=True)

    def _save(self) -> None:
        """Write the checkpoint; it replaces the last one only once it is whole."""
        gather_states(self._optimizers)
        give_back_memory()
        if not self._accelerator.is_main_process:
            return
        state = {
            "learned": _learned(self._learner),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "stage": self._stage,
            "step": self._step,
        }
        partial = self._out / f"{CHECKPOINT_FILE}.partial"
        torch.save(state, partial)
        partial.replace(self._out / CHECKPOINT_FILE)

    def _resume(self) -> bool:
        """Go on from the last checkpoint; returns whether there is one."""
        path = self._out / CHECKPOINT_FILE
        if not path.exists():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._learner.load_state_dict(state["learned"], strict=False)
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self._stage, self._step = state["stage"], state["step"]
        return True


def _check_shares(recipe: Recipe, processes: int) -> None:
    """Raise ValueError where some rows of a stage would weigh more than others, or a slice have none."""
    for stage in recipe.stages:
        if stage.rows % (processes * stage.slices):
            raise ValueError(
                f"stage {stage.name}: {stage.rows} rows can't be shared out among {processes} processes of "
                f"{stage.slices} slices: give a multiple of {processes * stage.slices}"
            )


def _lower_priority(_: int) -> None:
    """Let a worker draw while the trainer waits: one of its threads that has lost its core keeps the others waiting."""
    os.nice(19)


def _learned(learner: torch.nn.Module) -> dict[str, Tensor]:
    """What training changes; the rest comes from the base again."""
    return {name: weight.detach() for name, weight in learner.named_parameters() if weight.requires_grad}


def _row_numbers(stage: Stage, start: int, rank: int, world: int) -> Iterator[list[int]]:
    """Numbers of the rows of each slice of each step, for one process of `world`."""
    for step in range(start, stage.steps):
        rows = list(range(step * stage.rows, (step + 1) * stage.rows))[rank::world]
        for part in range(stage.slices):
            yield rows[part :: stage.slices]


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: to get its pages from the system anew took up to a sixth of a step on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


def give_back_memory() -> bool:
    """Give back what is free, now and then: kept for ever it grows, and the next stage's workers begin as copies of it.

    Returns whether the process's malloc, tcmalloc or glibc's, can do so.
    """
    malloc = ctypes.CDLL(None)
    release = getattr(malloc, "MallocExtension_ReleaseFreeMemory", None)
    if release is not None:
        release()
        return True
    trim = getattr(malloc, "malloc_trim", None)
    if trim is not None:
        trim(0)
    return trim is not None


def main() -> None:
    """Train by a recipe, or go on with a run that was stopped."""
    parser = argparse.ArgumentParser(description="Train a model by its recipe; a stopped run goes on.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoint, losses, model")
    parser.add_argument("--from", dest="model", type=Path, help="with --stage: an exported small model to begin with")
    parser.add_argument("--stage", help="with --from: the stage of the recipe to begin with")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.stage is None):
        parser.error("--from and --stage go together")
    arguments.out.mkdir(parents=True, exist_ok=True)
    _keep_freed_memory()
    start = Start(arguments.model, arguments.stage) if arguments.model else None
    Run(load_recipe(arguments.recipe), arguments.out, start).train()


if __name__ == "__main__":
    main()
