"""Orbax checkpoints in a run directory that describes itself; resume, and restore anywhere.

`<run_dir>/{config.json, provenance.json, metrics.jsonl, checkpoints/<step>/}`. Steps count through all stages. A
checkpoint at the border of two stages belongs to the earlier one; the next stage's start follows from it by a pure
function of the seed.
"""

import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import UInt8

from prunejax import population
from prunejax.config import FREE, Config, UserError, differences, load_config, to_json
from prunejax.data import Dataset
from prunejax.population import Members
from prunejax.types import TrainState, Tree


@dataclasses.dataclass(frozen=True)
class Population:
    """A restored run: NumPy arrays with a leading `models` axis, whatever devices wrote them."""

    config: Config
    seeds: np.ndarray
    """Of each model, `[models]`."""
    sparsities: np.ndarray
    """Each model's target, `[models]`, 0 for dense ones."""
    state: TrainState
    step: int
    """Steps trained so far, through all stages."""
    total_steps: int
    class_names: tuple[str, ...]
    data_checksum: str

    @property
    def diverged(self) -> np.ndarray:
        """Which models hold a weight or statistic that is not finite, bool `[models]`.

        Their outputs do not tell: on CPU XLA's maximum drops NaN, and so does ReLU.
        """
        leaves = jax.tree.leaves((self.state.params, self.state.batch_stats))
        return np.any([~np.isfinite(leaf).reshape(len(self.seeds), -1).all(1) for leaf in leaves], axis=0)

    def predict(self, images: UInt8[np.ndarray, "examples height width channels"]) -> np.ndarray:
        """The class each model predicts, int32 `[models, examples]`."""
        predictions = np.empty((len(self.seeds), len(images)), np.int32)
        if "head" not in self.state.params:
            raise UserError(
                f"{self.config.experiment.name} has no linear head at step {self.step}; train it to the end"
            )
        for models, examples, _, logits, _ in population.apply_in_batches(self.config, self.state, images):
            predictions[models, examples] = np.argmax(np.asarray(logits), axis=-1)
        return predictions

    def representations(self, images: UInt8[np.ndarray, "examples height width channels"]) -> np.ndarray:
        """The encoder's un-normalised output, float32 `[models, examples, dim]`."""
        dim = 64 * self.config.model.widen_factor
        representations = np.empty((len(self.seeds), len(images), dim), np.float32)
        for models, examples, batch, _, _ in population.apply_in_batches(self.config, self.state, images):
            representations[models, examples] = batch
        return representations


def load_population(run_dir: str | Path) -> Population:
    """Restores the newest checkpoint of a run to NumPy, on any machine.

    Raises:
        UserError: if the directory is no run, or holds no checkpoint yet.
    """
    run_dir = Path(run_dir)
    config = load_config(run_dir)
    provenance = load_provenance(run_dir)
    with open_manager(run_dir, config) as manager:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"{run_dir}: no checkpoint yet; train it first")
        tree = restore(manager, step, manager.item_metadata(step).tree)
    who = population.members(config)
    return Population(
        config,
        who.seeds,
        who.sparsities,
        TrainState(**tree),
        step,
        provenance["total_steps"],
        tuple(provenance["class_names"]),
        provenance["data_checksum"],
    )


def open_manager(run_dir: Path, config: Config) -> ocp.CheckpointManager:
    """The run's Orbax manager: asynchronous, keeping the newest `config.checkpoint.keep`."""
    options = ocp.CheckpointManagerOptions(max_to_keep=config.checkpoint.keep, create=False)
    return ocp.CheckpointManager(
        (run_dir / "checkpoints").absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
    )


def save(manager: ocp.CheckpointManager, step: int, state: TrainState) -> None:
    """Starts to write `state`, in the background once it is copied off the device."""
    manager.save(step, args=ocp.args.StandardSave(state))


def restore(manager: ocp.CheckpointManager, step: int, like: Tree) -> Tree:
    """The state at `step` as NumPy arrays, with the structure of `like`, which may be shapes only."""
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return manager.restore(step, args=ocp.args.StandardRestore(template))


def stage_of(stage_steps: dict[str, int], step: int) -> str:
    """The stage that a checkpoint at `step` belongs to; at the border of two it is the earlier one."""
    ends = itertools.accumulate(stage_steps.values())
    return next(name for name, end in zip(stage_steps, ends, strict=True) if step <= end)


def load_parent(config: Config, workdir: Path, who: Members, data_checksum: str) -> TrainState:
    """The dense parent's final state for each member of `who`, by seed.

    Raises:
        UserError: if the parent is missing, unfinished, made with other settings or data, or lacks a seed.
    """
    parent = config.experiment.parent
    run_dir = workdir / str(parent)
    command = f"train it first: --experiment={parent}"
    if not (run_dir / "config.json").exists():
        raise UserError(f"{config.experiment.name} prunes the dense run {run_dir}, which is missing; {command}")
    dense = load_population(run_dir)
    if dense.step < dense.total_steps:
        raise UserError(f"{run_dir} stands at step {dense.step} of {dense.total_steps}; {command}")
    different = differences(config, dense.config, (*FREE, "preset", "models", "seed", "finetune", "prune"))
    if dense.data_checksum != data_checksum:
        different.append(f"data checksum: {data_checksum}, not {dense.data_checksum}")
    if different:
        raise UserError(f"{run_dir} was made with other settings ({'; '.join(different)}); use another --workdir")
    rows = {int(seed): row for row, seed in enumerate(dense.seeds)}
    missing = sorted(set(who.seeds.tolist()) - rows.keys())
    if missing:
        raise UserError(f"{run_dir} has no models of the seeds {missing}; lower --models or train more dense ones")
    index = np.array([rows[seed] for seed in who.seeds.tolist()])
    return jax.tree.map(lambda leaf: leaf[index], dense.state)


def check_run(run_dir: Path, config: Config, dataset: Dataset) -> int:
    """How many steps the newest checkpoint of this run has behind it, 0 for a new run. Changes nothing.

    Raises:
        UserError: if the directory holds a run of another configuration or other data.
    """
    if not (run_dir / "config.json").exists():
        return 0
    different = differences(config, load_config(run_dir), ("measure",))
    if (before := load_provenance(run_dir)["data_checksum"]) != dataset.checksum:
        different.append(f"data checksum: {dataset.checksum}, not {before}")
    if different:
        raise UserError(f"{run_dir} holds another run ({'; '.join(different)}); use another --workdir")
    with open_manager(run_dir, config) as manager:
        return manager.latest_step() or 0


def open_run(run_dir: Path, config: Config, dataset: Dataset, total_steps: int, state: Tree) -> None:
    """Creates the run directory if need be, and notes this session in its `provenance.json`.

    Raises:
        UserError: if it cannot be written, or has no room for checkpoints of `state`, which may be shapes only.
    """
    existing = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    needed, free = size * (config.checkpoint.keep + 1), shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(f"{existing}: checkpoints need {needed / 2**20:.1f} MiB and {free / 2**20:.1f} MiB are free")
    provenance = {
        "data_checksum": dataset.checksum,
        "class_names": dataset.class_names,
        "total_steps": total_steps,
        "sessions": load_provenance(run_dir)["sessions"] if (run_dir / "config.json").exists() else [],
    }
    provenance["sessions"].append(_session())
    try:
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_whole(run_dir / "provenance.json", json.dumps(provenance, indent=2) + "\n")
        write_whole(run_dir / "config.json", to_json(config))
    except OSError as error:
        raise UserError(f"{run_dir}: cannot write there: {error.strerror}") from None


def load_provenance(run_dir: Path) -> dict[str, Any]:
    """What `open_run` wrote."""
    path = run_dir / "provenance.json"
    try:
        provenance = json.loads(path.read_text())
        return {name: provenance[name] for name in ("data_checksum", "class_names", "total_steps", "sessions")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no readable provenance ({type(error).__name__}: {error})") from None


def write_whole(path: Path, text: str) -> None:
    """Writes a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _session() -> dict[str, Any]:
    packages = ("prunejax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    device = jax.devices()[0]
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in packages}},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }


def _commit() -> str:
    """The commit of this source tree, with `-dirty` for local changes; `unknown` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
