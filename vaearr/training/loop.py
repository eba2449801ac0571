"""The only training loop, `fit`, over one object, `checkpoint.Training`; `train_model` makes it and judges the result.

What a training leaves to be looked at is here too: history over epochs, decoded samples as it goes on, TensorBoard.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count, islice, repeat
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr import schema
from vaearr.batching import Batch, PatternBatches, Walk, batches
from vaearr.batching.blocks import in_chunks
from vaearr.config import PerceptualConfig, TrainConfig
from vaearr.errors import TrainingError, UsageError, VaearrError
from vaearr.models import for_training
from vaearr.models.artifacts import TrainedModel, load_folder, read_tensors, save_model, write_tensors
from vaearr.models.foreign import in_words, load_foreign
from vaearr.models.losses import check_targets, takes_logits
from vaearr.models.perceptual import PerceptualLoss
from vaearr.models.preprocess import seen_patterns
from vaearr.models.quality import MIN_SAMPLES, latent_health
from vaearr.recipe import as_json, differing, now, versions
from vaearr.schema import grid
from vaearr.store.folders import replace_file
from vaearr.training.checkpoint import CHECKPOINT, KEPT, REMEDY, History, Training, check_checkpoint, newest_checkpoint
from vaearr.training.processes import ALONE, Processes
from vaearr.training.step import TERMS, seed_step, seeded

log = logging.getLogger("vaearr")

# range of preprocessed values, which image networks take as -1 to 1; of the others, most lie within three deviations
RANGES = {"unit": (0.0, 1.0), "minmax": (0.0, 1.0), "quantile": (0.0, 1.0), "symmetric": (-1.0, 1.0)}
DEVIATIONS = (-3.0, 3.0)
MAY_BE_NAN = ("accuracy", "adversarial", "critic")
CRITIC = TERMS.index("critic")
AGREE_EVERY = 16  # updates after which several processes ask each other whether to stop or to save
WRITING_SHARE = 0.02  # of the time at most goes into checkpoints
TIMED = 4, 20  # updates between which the time is taken
WORTH_TELLING = 20.0  # seconds
OF_A_SCAN = 1408, 8192  # samples of an epoch; neighbours are alike, so fewer passes teach as much
VALIDATED = 2048  # samples by which an epoch is judged at most
SHEETS, N_SAMPLES = "sheets", 8

NATS = "nats per sample"
UNITS = {
    "loss": ("reconstruction_nll (+ amplitude_nll) + beta * kl, with all further terms times weight", NATS),
    "reconstruction_nll": ("negative log likelihood of the pattern", NATS),
    "amplitude_nll": ("negative log likelihood of the own pattern at the decoded size; counts after the warm-up", NATS),
    "kl": ("KL divergence, posterior against prior", NATS),
    "perceptual": ("distance of decoded patterns in the features of a frozen network", "1"),
    "adversarial": ("adversarial loss of decoded patterns, of the updates with a discriminator", "1"),
    "critic": ("loss of the discriminator, of the updates with one", "1"),
    "label_nll": ("cross entropy of the labels, mean over all samples", NATS),
    "label_accuracy": ("share of the labelled samples that the head names right", "1"),
    "beta": ("weight of the KL divergence at the end of the epoch", "1"),
    "capacity": ("nats that the KL divergence is held at, at the end of the epoch", NATS),
    "learning_rate": ("learning rate of the epoch's last update", "1"),
    "seconds": ("time of the epoch, validation included", "s"),
}

OnEpoch = Callable[[int, History], object]
OnStep = Callable[[int, int], None]


def train_model(
    ds: xr.Dataset,
    parts: xr.DataArray,
    settings: TrainConfig,
    folder: Path,
    *,
    device: torch.device,
    team: Processes,
    data: Mapping[str, Any],
    init: Path | None = None,
    perceptual_from: Path | None = None,
    resume: Path | None = None,
    restart: bool = False,
    trust: tuple[str, ...] = (),
    logs: tuple[Path, str],
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Train into `folder` (config.json, weights, history) and judge the latents: the tables of the run (history,
    health, and sheets where they were asked for), and what its manifest says.

    parts: map of the split. data: fingerprints of the patterns and of the maps that choose among them. init: model
    folder, or checkpoint file made elsewhere, whose weights to start from. perceptual_from: model folder whose encoder
    the perceptual term looks with. resume: checkpoint to go on from; None looks for what an interruption left in the
    folder, and `restart` throws that away. trust: networks of the user's own that model folders may name.
    logs: folder and name for loggers.
    """
    objective, n_validation = settings.objective, int((parts == n.VALIDATION).sum())
    about = {key: value for key, value in settings.to_attrs().items() if key not in TrainConfig.passing}
    patterns = seen_patterns(in_chunks(ds[n.PATTERNS], schema.navigation_dims(ds)), settings.preprocess)
    seen = ds.drop_dims(schema.signal_dims(ds)).assign({n.PATTERNS: patterns})
    labels, classes = grid.class_map(ds, objective.label) if objective.label else (None, ())
    balance = grid.class_map(ds, settings.balance)[0] if settings.balance else None

    def part(which: int, team: Processes = team, **maps: Any) -> PatternBatches:
        """A process's batches of one part of the split, with its share of the memory that patterns may take."""
        share = float((parts == which).sum() / (parts != n.OUTSIDE).sum())
        maps |= {"memory": settings.memory * share, "device_memory": settings.device_memory * share, "device": device}
        is_mixed = which == n.TRAIN or n_validation > VALIDATED  # a part of it stands for the whole
        maps |= {"shuffle": is_mixed, "rank": team.rank, "world_size": team.size, "seed": settings.seed}
        return batches(seen, split=parts, part=which, batch_size=settings.batch_size, **maps)

    train = part(n.TRAIN, labels=labels, balance=balance)
    validation = part(n.VALIDATION, labels=labels) if n_validation >= team.size else None
    about = {"settings": about, "data": dict(data), "processes": team.size, "streamed": train.tier == "streamed"}
    begin = team.first_does(lambda: _where_to_begin(folder, about, resume, restart))
    with seeded(settings.seed, device):
        model = TrainedModel(
            model=for_training(
                settings.model,
                likelihood=objective.likelihood,
                normalise=settings.preprocess.normalise,
                target=objective.target,
            ),
            preprocess=settings.preprocess,
            input_shape=schema.input_shape(ds),
            signal_dims=schema.signal_dims(ds),
            input_dtype=str(ds[n.PATTERNS].dtype),
            label=objective.label,
            classes=classes,
            trust=[settings.model.name],
        ).to(device)
    if init is not None and begin is None:
        _start_from(model, init, trust)
    folder.mkdir(parents=True, exist_ok=True)
    if begin is None and settings.preprocess.static_background != "none":
        model.preprocess.fit(train if balance is None else part(n.TRAIN), team.total)
    perceptual = _perceptual(model, objective.perceptual, perceptual_from, trust) if objective.perceptual else None
    at_once = settings.epoch_samples
    if at_once is None:
        at_once = min(max(train.n_samples_total // 2, OF_A_SCAN[0]), OF_A_SCAN[1]) if schema.is_scan(ds) else 0
    state = Training(model, train, validation, settings, folder, team, about, perceptual, at_once)
    n_weights = sum(p.numel() for p in model.network.parameters())
    few, many = (" x ".join(map(str, shape[1:])) for shape in (model.seen_shape, model.input_shape))
    words = schema.samples_word(ds) + (f" of {many} pixels, seen as {few}" if few != many else "")
    log.info(
        f"training {settings.model.name} ({n_weights / 1e6:.2f} M weights) on {train.n_samples_total} {words}, "
        f"{n_validation} for validation, {train.describe()}, on {device} in "
        f"{str(state.terms.precision).removeprefix('torch.')}" + (f", {team.size} processes" if team.size > 1 else "")
    )
    if begin:
        log.info(f"going on from {begin.name}")
    board = _tensorboard(*logs, settings) if settings.log and team.is_first else nullcontext(lambda epoch, row: None)
    try:
        with board as draw:
            fit(state, resume=begin, on_step=on_step, on_epochs=[draw, *([on_epoch] if on_epoch else [])])
    except BaseException:
        if team.is_first and newest_checkpoint(folder) is None:  # nothing to go on from
            shutil.rmtree(folder, ignore_errors=True)
        raise
    judged = (n.VALIDATION, validation) if validation is not None and n_validation >= MIN_SAMPLES else (n.TRAIN, train)
    every = part(judged[0], ALONE) if team.size > 1 or balance is not None else judged[1]  # each sample once
    tables = {n.HISTORY: history_dataset(state.rows), n.HEALTH: latent_health(model, every)}
    manifest = _manifest(state, dict(data["patterns"]), n_validation, n_weights)
    if team.is_first:
        manifest["weights_sha256"] = save_model(model, folder, manifest)["weights_sha256"]
    return tables | read_sheets(folder, schema.signal_dims(ds)), manifest


def _manifest(state: Training, patterns: dict[str, Any], n_validation: int, n_weights: int) -> dict[str, Any]:
    return {
        "state": "trained",
        "config": state.config.to_attrs(),
        "data": patterns,
        "n_train": state.train.n_samples_total,
        "n_validation": n_validation,
        "n_weights": n_weights,
        "best_epoch": state.best_epoch + 1,  # counted from 1, as in the history
        "epochs_run": state.epoch,
        "stopped_early": state.epoch < state.config.epochs,
        "processes": state.team.size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "time": now(),
    }


def _where_to_begin(folder: Path, about: Mapping[str, Any], resume: Path | None, restart: bool) -> Path | None:
    """The checkpoint to go on from, if any. Nothing is removed before it is known to fit."""
    left = newest_checkpoint(folder)
    begin = resume or (None if restart else left)
    ways_out = "throw it away with restart=True (--restart), or give another run name."
    if begin is not None:
        try:
            check_checkpoint(begin, about)
        except VaearrError as error:
            if resume is not None:
                raise
            raise type(error)(f"an interrupted training of this run is in the way: {error} Or {ways_out}") from None
    is_own = begin is not None and begin.is_relative_to(folder)
    if left is not None and not is_own and not restart:
        raise UsageError(f"an interrupted training of this run is at {left}; leave --resume out, {ways_out}")
    if not is_own:
        shutil.rmtree(folder, ignore_errors=True)
    for part in folder.glob(".*"):  # of a write that was killed
        part.unlink()
    return begin


def _start_from(model: TrainedModel, folder: Path, trust: tuple[str, ...]) -> None:
    """Give a fresh model the weights of a trained one; its backgrounds are its own data's."""
    if folder.is_file():
        log.info(in_words(load_foreign(model.network, folder)))
        return
    other = load_folder(folder, trust=trust)
    one, two = (m.model_config.replace(options={**m.model_config.options, "dropout": 0}) for m in (other, model))
    found = differing(one.to_attrs(), two.to_attrs()) + differing(other.seen_shape, model.seen_shape, "samples")
    if found:
        raise UsageError(f"the weights in {folder} do not fit: {', '.join(found)}; use the same model settings.")
    model.network.load_state_dict(other.network.state_dict(), strict=True)
    is_head_known = (other.label, other.classes) == (model.label, model.classes)
    if model.classifier is not None and other.classifier is not None and is_head_known:
        model.classifier.load_state_dict(other.classifier.state_dict())


def _perceptual(
    model: TrainedModel, config: PerceptualConfig, folder: Path | None, trust: tuple[str, ...]
) -> PerceptualLoss:
    """The module that the settings ask for, on the model's device.

    folder: of the trained model whose encoder is meant. Raises UsageError for one of other samples, and what
    `PerceptualLoss` raises.
    """
    network = None
    if folder is not None:
        other = load_folder(folder, trust=trust)
        if other.input_shape[0] != model.input_shape[0] or len(other.input_shape) != len(model.input_shape):
            known = f"the model in {folder} knows samples {other.input_shape}, these are {model.input_shape}"
            raise UsageError(f"objective.perceptual: {known}; name a run on samples of this kind.")
        network = other.network
    value_range = RANGES.get(model.preprocess_config.normalise, DEVIATIONS)
    return PerceptualLoss(config, value_range, network).to(model.device)


def fit(
    state: Training, *, resume: Path | None = None, on_epochs: Sequence[OnEpoch] = (), on_step: OnStep | None = None
) -> None:
    """Train in place; the model ends with the weights of the best epoch (the averaged ones if `config.ema`).

    The best epoch is the one with the lowest validation loss at the final beta, lower by `config.min_delta` than the
    best before it (without validation, the last); with a discriminator, of those that end with its whole weight, and
    patience begins there. `folder` gets history.csv and .json after every epoch, a checkpoint
    every `config.checkpoint_minutes`, at SIGINT and SIGTERM (which then take their course) and at the end, one under
    its own name every `config.checkpoint_every` epochs, and at the end the weights of the last epoch as trained.

    resume: a checkpoint to go on from, exactly: on the same machine the result is bit for bit that of a training that
    was never interrupted. Of several processes (`state.team`) each trains on its own share. Raises TrainingError as
    soon as an epoch's loss is not finite, and when the GPU's memory does not suffice.
    """
    config, team, device = state.config, state.team, state.model.device
    step = team.share(state.terms, device)
    critic = team.share(state.critic, device) if state.critic else None
    if config.compile != "off":
        step.compile(mode=config.compile, dynamic=False)
    if resume and (found := state.load(resume)):
        log.warning(f"it goes on with {found}; the last digits may differ from an undisturbed training's")
    if not team.is_first:
        state.totals.zero_()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    with signals_wait() as asked, seeded(config.seed, device):
        try:
            torch.use_deterministic_algorithms(config.deterministic or was_deterministic)
            if takes_logits(config.objective.likelihood):
                check_targets(state.model.preprocess(next(state.train.epoch(0)).patterns), config.objective.likelihood)
            stream, tell_time = _stream(state), _telling_time()
            while not state.is_over:
                began = time.perf_counter() - state.seconds
                for _ in _updates(state, stream, step, critic, on_step):
                    tell_time(state)
                    _pause(state, asked, time.perf_counter() - began)
                row = _finish_epoch(state, began)
                for on_epoch in on_epochs:
                    on_epoch(state.epoch - 1, row)
                _pause(state, asked, 0.0)
        except torch.OutOfMemoryError as error:
            needs = f"batch_size {config.batch_size} needs more memory than the GPU has ({str(error).split('. ')[0]})"
            raise TrainingError(f"{needs}; halve it and double accumulate, for as many patterns per update.") from None
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
        if team.is_first:
            write_tensors(state.folder / "last.safetensors", state.model.state_dict())
            state.save(state.folder / CHECKPOINT, state.totals)  # what follows may fail and be done again
    state.model.load_state_dict(state.best_weights)


@contextmanager
def signals_wait() -> Iterator[list[int]]:
    """SIGINT and SIGTERM only leave their number in the list, until the block ends; then they take their course with
    whoever handled them before. A second one ends the block at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in (handled if is_main else ())}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if asked:
            signal.raise_signal(asked[-1])


def _stream(state: Training) -> Iterator[Batch]:
    """The batches from where the training is on, pass after pass over the samples, without an end."""
    number, start = divmod(state.step, len(state.train))
    for later in count(number):
        yield from state.train.epoch(later, start=start, walk=_walk(state))
        start = 0


def _updates(
    state: Training, stream: Iterator[Batch], step: nn.Module, critic: nn.Module | None, on_step: OnStep | None
) -> Iterator[None]:
    """The rest of the running epoch; yields after every update."""
    config = state.config
    step.train()  # with the model and the perceptual term, which validation has set to evaluation
    while parts := list(islice(stream, min(config.accumulate, state.epoch_batches - state.batch))):
        weights, (*_, share, rate) = state.weights[state.update], state.schedule[state.update].tolist()
        judge, network = (critic, state.critic.network) if state.critic and share > 0 else (None, None)
        for i, batch in enumerate(parts):
            seed_step(config.seed, state.team.rank, state.step)
            no_sync = getattr(step, "no_sync", None)  # of several processes; gradients meet at the last batch
            with no_sync() if no_sync and i < len(parts) - 1 else nullcontext():
                terms, wanted, recon = step(batch.patterns, batch.target, batch.labels, weights, network)
                (terms[0] / len(parts)).backward()
            terms = terms.detach()
            if judge:
                loss = judge(wanted, recon.detach())
                (loss / len(parts)).backward()
                terms[CRITIC] += loss.detach()
            state.totals += terms * len(batch.patterns)
            state.batch += 1
            if on_step:
                on_step(state.epoch, state.step)
        rates = {"optimizer": rate}
        if judge:
            rates["critic_optimizer"] = state.critic_rate * (rate / config.learning_rate)
        for name, each in rates.items():
            optimizer = state.optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = each
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if state.average:
            state.update_average()
        yield


def _telling_time() -> Callable[[Training], None]:
    """Says, once, how long the training will take at most, from the updates `TIMED` of this process."""
    moments: list[float] = []

    def tell(state: Training) -> None:
        if len(moments) > TIMED[1]:
            return
        moments.append(time.perf_counter())
        if len(moments) > TIMED[1] and state.team.is_first:
            each = (moments[TIMED[1]] - moments[TIMED[0]]) / (TIMED[1] - TIMED[0])
            left = each * (len(state.schedule) - state.update)
            if left > WORTH_TELLING:
                words = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
                log.info(f"about {words} for {state.config.epochs} epochs, less if the validation loss ends its fall")

    return tell


def _walk(state: Training) -> Walk | None:
    objective = state.config.objective
    return Walk(state.model.preprocess, objective.walk) if objective.target == "neighbour" else None


def _pause(state: Training, asked: list[int], seconds: float) -> None:
    """Between updates: save if it is time, end if a signal came. Several processes decide together."""
    wanted = [bool(asked), time.monotonic() > state.due]
    if state.team.size > 1:
        if state.update % AGREE_EVERY and state.batch:
            return
        votes = torch.tensor(wanted, dtype=torch.float32, device=state.totals.device)
        wanted = [value > 0 for value in state.team.total(votes).tolist()]
    if not any(wanted):
        return
    state.seconds = seconds
    totals = state.team.total(state.totals.clone())
    if state.team.is_first:
        began = time.monotonic()
        state.save(state.folder / CHECKPOINT, totals)
        ended = time.monotonic()
        state.due = ended + max(60 * state.config.checkpoint_minutes, (ended - began) / WRITING_SHARE)
    state.seconds = 0.0
    if wanted[0]:
        log.info(f"saved after {state.place}; the same command goes on from there")
        asked[:] = asked or [int(signal.SIGTERM)]  # of another process
        raise SystemExit(128 + asked[-1])


def _finish_epoch(state: Training, began: float) -> History:
    """Close the books of an epoch: history, validation, best weights, checkpoints."""
    config, team, model = state.config, state.team, state.model
    team.agree(model.network)
    seen = state.train.handed_out(state.step) - state.train.handed_out(state.step - state.epoch_batches)
    row = _row(state, state.totals, seen)
    if config.objective.adversarial:  # means over the updates that had a discriminator; NaN where none had
        shares = state.schedule[state.epoch * state.per_epoch :, 2][: state.per_epoch]
        part = float((shares > 0).mean())
        row |= {name: row[name] / part if part else math.nan for name in ("adversarial", "critic")}
    with state.averaged():
        row |= evaluate(state)
        last = state.update - 1
        row["beta" if config.objective.capacity is None else "capacity"] = float(state.weights[last, 0])
        row |= {"learning_rate": float(state.schedule[last, 3]), "seconds": time.perf_counter() - began}
        if not all(math.isfinite(value) for name, value in row.items() if not name.endswith(MAY_BE_NAN)):
            (state.folder / CHECKPOINT).unlink(missing_ok=True)  # going on from there would end here again
            earlier = f"; the last checkpoint before is {path}" if (path := newest_checkpoint(state.folder)) else ""
            found = f"the loss is not finite in epoch {state.epoch + 1} (loss {row['loss']:g}{earlier})"
            raise TrainingError(f"{found}. {REMEDY} or check the patterns for extreme values.")
        score = row.get("val_loss", math.inf)
        if state.is_judged_fully(state.epoch) and not state.is_judged_fully(state.epoch - 1):
            state.best = math.inf  # epochs before it are no candidates
        if state.validation is None or score < state.best - config.min_delta:
            state.best, state.best_epoch = score, state.epoch
            state.best_weights = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
        if team.is_first and config.sheets_every and (state.epoch + 1) % config.sheets_every == 0:
            write_sheet(state)
    state.rows.append(row)
    state.epoch, state.batch, state.seconds = state.epoch + 1, 0, 0.0
    state.totals.zero_()
    if team.is_first:
        table = history_dataset(state.rows).to_dataframe().to_csv(lineterminator="\n")
        replace_file(state.folder / "history.csv", table.encode(), durable=False)
        replace_file(state.folder / "history.json", json.dumps(as_json(state.rows)).encode(), durable=False)
        if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
            state.save(state.folder / KEPT.replace("*", f"{state.epoch:04d}"), state.totals)
    return row


@torch.inference_mode()
def evaluate(state: Training) -> History:
    """Validation terms, posterior mean decoded, at the final beta; weights and random state stay as they are.

    Without the adversarial term, which compares nothing from one epoch to the next. Nothing without validation.
    """
    model, held_out = state.model, state.validation
    if held_out is None:
        return {}
    step = state.terms.eval()  # its forward alone, never compiled: sizes differ
    weights = torch.tensor([state.schedule[-1, 0], 1.0, 0.0], device=model.device, dtype=torch.float32)
    totals = torch.zeros_like(state.totals)
    n_batches = min(len(held_out), -(-VALIDATED // (state.config.batch_size * state.team.size)))
    for batch in islice(held_out.epoch(0, walk=_walk(state)), n_batches):
        # samples from which windows are cut in training may be too large for a batch
        size = len(batch.patterns) if state.config.augment.crop is None else model.fitting(len(batch.patterns))
        columns = (batch.patterns, batch.target, batch.labels)
        each = [column.split(size) if column is not None else repeat(None) for column in columns]
        for patterns, target, labels in zip(*each, strict=False):
            totals += step.forward(patterns, target, labels, weights)[0] * len(patterns)
    row = _row(state, totals, held_out.handed_out(n_batches))
    return {f"val_{key}": value for key, value in row.items() if key not in ("adversarial", "critic")}


def _row(state: Training, totals: torch.Tensor, n_samples: int) -> History:
    """Means over an epoch, from sums over this process's samples and their number: of the terms that there are."""
    whole = state.team.total(torch.tensor([float(n_samples)], device=totals.device)).item()
    means = zip(TERMS, state.team.total(totals).tolist(), strict=True)
    row = {name: value / whole for name, value in means if name in state.terms.terms}
    if state.config.objective.label:
        right, known = row.pop("label_right"), row.pop("label_known")
        row["label_accuracy"] = right / known if known else math.nan
    return row


def history_dataset(rows: list[History]) -> xr.Dataset:
    """Rows of the epochs over `epoch`, counted from 1, with long_name and units."""
    variables = {}
    for name in rows[0]:
        long_name, units = UNITS[name.removeprefix("val_")]
        long_name += " (validation points)" if name.startswith("val_") else ""
        variables[name] = (n.EPOCH, [row[name] for row in rows], {"long_name": long_name, "units": units})
    return xr.Dataset(variables, coords={n.EPOCH: range(1, len(rows) + 1)})


@torch.inference_mode()
def write_sheet(state: Training) -> None:
    """Write what the model makes of its first patterns and of draws from the prior, after an epoch."""
    model, chosen, epoch = state.model.eval(), state.validation or state.train, state.epoch + 1
    n_batches = -(-N_SAMPLES // (chosen.n_samples // len(chosen)))
    stored = torch.cat([batch.patterns for batch in islice(chosen.epoch(0), n_batches)])[:N_SAMPLES]
    draws = torch.randn(len(stored), *model.latent_shape, generator=torch.Generator().manual_seed(state.config.seed))
    at_once = model.fitting(len(stored))
    sheet = {
        "input": model.preprocess(stored),
        "reconstruction": torch.cat([model.decode_batch(model.encode_batch(s)[0]) for s in stored.split(at_once)]),
        "prior": torch.cat([model.decode_batch(some) for some in draws.split(at_once)]),
    }
    (state.folder / SHEETS).mkdir(exist_ok=True)
    write_tensors(state.folder / SHEETS / f"epoch-{epoch:05d}.safetensors", sheet, {"epoch": epoch})


def read_sheets(folder: Path, signal_dims: tuple[str, ...]) -> dict[str, xr.Dataset]:
    """The table of all sheets, if any: `input (sample, …)`, `reconstruction` and `prior (epoch, sample, …)`."""
    read = [read_tensors(file) for file in sorted((folder / SHEETS).glob("epoch-*.safetensors"))]
    if not read:
        return {}
    shape, dims = read[0][0]["input"].shape[-len(signal_dims) :], (n.EPOCH, n.SAMPLE, *signal_dims)
    ds = xr.Dataset(coords={n.EPOCH: [header["epoch"] for _, header in read]})
    for name, long_name in (
        ("input", "pattern as the network sees it"),
        ("reconstruction", "decoded posterior mean"),
        ("prior", "decoded draw from the prior"),
    ):
        values = np.stack([tensors[name].numpy().reshape(-1, *shape) for tensors, _ in read])
        ds[name] = (dims, values, {"long_name": long_name})
    return {n.SHEETS: ds.assign(input=ds["input"].isel({n.EPOCH: 0}, drop=True))}


@contextmanager
def _tensorboard(folder: Path, run: str, settings: TrainConfig) -> Iterator[OnEpoch]:
    """What writes the row of an epoch to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / run)) as writer:
        writer.add_text("settings", f"```{settings.to_attrs()}```")

        def log(epoch: int, row: History) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, epoch + 1)
            writer.flush()

        yield log
