"""The passes of an evaluation over text.

`first` sums statistics of activations and latents, `second` the losses of
spliced passes, and `moments` the second moments of training text, for PCA. Each
step of a pass only dispatches device work. The sums of a batch are fetched and
added up on the host, in 64 bits, while the device runs the next batch.

A member is one of the SAEs that are evaluated together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import evals, lm, metrics, sharding
from jumprelu.evals import delta_loss, frequency, fvu, jitted, splice
from jumprelu.evals import partial as partial_lib
from jumprelu.evals import text as text_lib
from jumprelu.saes import base

# All members are on the devices at once, so each device holds only a shard of
# every member.
_RULES = sharding.LAYOUTS['latents_all'].rules

Forward = Callable[[jax.Array], splice.Batch]


class Placed(NamedTuple):
  """A member with its parameters on the devices."""

  sae: base.Sae
  params: dict[str, jax.Array]
  reads: lm.Reads

  @property
  def source(self) -> lm.Tap:
    """Returns the input tap; raises a UserError if there are several."""
    return self.reads.input

  @property
  def target(self) -> lm.Tap:
    """Returns the target tap; raises a UserError if there are several."""
    return self.reads.target


class Sums(NamedTuple):
  """Sums of the first pass: lists by member, and moments by target."""

  reconstruction: list[Any]  # Each an `fvu.Reconstruction`.
  firing: list[Any]  # Each a `frequency.Firing`.
  # Like `firing`, over the first tokens only, for the share of dead latents.
  window: list[Any]
  moments: dict[lm.Tap, Any]  # Each a `metrics.Moments`.


def place(
    sae: base.Sae,
    params: Mapping[str, Any],
    reads: lm.Reads,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Placed:
  """Puts a member on the devices, encoder and decoder sharded over latents."""
  placed = {
      name: text_lib.place(
          leaf, mesh, *_axes(sae, name, np.ndim(leaf)), rules=_RULES
      )
      for name, leaf in params.items()
  }
  return Placed(sae, placed, reads)


def param_sharding(
    sae: base.Sae,
    name: str,
    *,
    shape: tuple[int, ...],
    mesh: jax.sharding.Mesh,
) -> jax.sharding.NamedSharding:
  """Returns the sharding that `place` uses for a parameter."""
  axes = _axes(sae, name, len(shape))
  return sharding.named(mesh, *axes, rules=_RULES, shape=shape)


def _axes(sae, name, rank):
  # Vectors are replicated, because they are small.
  return sae.param_axes()[name] if rank == 2 else (None,) * rank


def _merge(total, part):
  return part if total is None else total.merge(part)


def call_of(
    member: Placed,
    batch: splice.Batch,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[..., Any]:
  """Returns a function that calls programs on a member and a batch.

  A program is a function such as `jitted.reconstruct`. Keyword arguments of a
  call are passed to the program.
  """

  def call(program, **options):
    return program(
        member.params,
        batch.at(member.reads.inputs),
        batch.values[member.target],
        keep=batch.keep,
        sae=member.sae,
        mesh=mesh,
        **options,
    )

  return call


def losses_of(
    model: lm.LanguageModel,
    targets: Iterable[lm.Tap],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[lm.Tap, Callable[..., jax.Array]]:
  """Returns, for each target, the compiled losses of passes spliced there.

  Each is a function of a batch and a spliced value (`jitted.spliced_losses`).
  """
  return {
      target: jitted.spliced_losses(model, target, mesh=mesh)
      for target in targets
  }


def clean_of(
    runs: Mapping[lm.Tap, Callable[..., jax.Array]],
    batch: splice.Batch,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[lm.Tap, jax.Array]:
  """Returns each pass's result with the target's clean values spliced in.

  Clean and spliced results thus come from the same program, so that they differ
  by the splice alone and not by rounding.
  """
  return {
      target: run(batch, jitted.copy(batch.values[target], mesh=mesh))
      for target, run in runs.items()
  }


def merge_over(
    text: text_lib.Text,
    step: Callable[[jax.Array], Sequence[Any]],
    name: str,
    *,
    finish: Callable[[Any], Any] = lambda part: part,
) -> list[Any]:
  """Returns, for each member, the results of `step` merged over all batches.

  Args:
    text: The text.
    step: Returns the results of all members for a batch of tokens.
    name: The label of the progress line.
    finish: Makes a mergeable record of one result, on the host.
  """
  total: list[Any] = []
  for parts in text_lib.over(text, step, name):
    parts = [finish(part) for part in parts]
    total = list(map(_merge, total or [None] * len(parts), parts))
  return total


def _target_sums(batch, shift, mesh):
  """Returns one batch's sums of each target, about the target's shift."""
  return {
      target: jitted.target_sums(
          batch.values[target], batch.keep, center, mesh=mesh
      )
      for target, center in shift.items()
  }


def _no_moments(shift):
  """Returns the moments of each target over no token."""
  return {target: metrics.Moments.empty(len(x)) for target, x in shift.items()}


def _add_moments(moments, by_target, shift):
  """Returns the moments with one batch's sums, on the host."""
  return {
      target: total.merge(
          metrics.Moments.from_sums(by_target[target], shift[target])
      )
      for target, total in moments.items()
  }


def first_means(
    forward: Forward, targets: Sequence[lm.Tap], *, text: text_lib.Text
) -> dict[lm.Tap, np.ndarray]:
  """Returns the targets' means over the first batch.

  The means are the shifts of all later sums. One batch is enough, because any
  shift near the mean over the whole text avoids cancellation.
  """
  batch = forward(next(text_lib.batches(text)))
  zeros = {
      target: np.zeros(batch.values[target].shape[-1], np.float32)
      for target in targets
  }
  sums = jax.device_get(_target_sums(batch, zeros, text.mesh))
  return {
      target: np.asarray(part.first / max(part.count, 1), np.float32)
      for target, part in sums.items()
  }


def first(
    forward: Forward,
    members: Sequence[Placed],
    shift: dict[lm.Tap, np.ndarray],
    *,
    text: text_lib.Text,
    config: evals.Config,
    partial: partial_lib.Partial = partial_lib.NONE,
) -> Sums:
  """Returns the sums of the first pass.

  Args:
    forward: The clean forward pass.
    members: The members.
    shift: A vector near the mean of each target (`first_means`).
    text: The text.
    config: The window of dead latents.
    partial: The partial results.
  """

  def step(tokens):
    batch = forward(tokens)
    by_member = [
        call_of(member, batch, mesh=text.mesh)(jitted.member_sums)
        for member in members
    ]
    return by_member, _target_sums(batch, shift, text.mesh)

  def add(total, result):
    by_member, by_target = result
    fidelity, firing = zip(*by_member, strict=True)
    window = [
        old.merge(new) if old.tokens < config.dead_window_tokens else old
        for old, new in zip(total.window, firing, strict=True)
    ]
    return Sums(
        list(map(_merge, total.reconstruction, fidelity)),
        list(map(_merge, total.firing, firing)),
        window,
        _add_moments(total.moments, by_target, shift),
    )

  firing = [frequency.Firing.empty(member.sae.width) for member in members]
  initial = Sums(
      reconstruction=[fvu.Reconstruction.empty() for _ in members],
      firing=firing,
      window=firing,
      moments=_no_moments(shift),
  )
  return partial.total('latents', text, step, initial=initial, add=add)


def moments(
    forward: Forward,
    shift: dict[lm.Tap, np.ndarray],
    *,
    text: text_lib.Text,
    partial: partial_lib.Partial = partial_lib.NONE,
) -> dict[lm.Tap, metrics.Moments]:
  """Returns the moments of every target on `text`; `shift` as in `first`."""

  def step(tokens):
    return _target_sums(forward(tokens), shift, text.mesh)

  return partial.total(
      'PCA baseline',
      text,
      step,
      initial=_no_moments(shift),
      add=lambda total, by_target: _add_moments(total, by_target, shift),
  )


def _ablations(means, mesh):
  """Returns, for each target, zeros and the mean.

  They are on the mesh, like the clean values: otherwise the program above the
  splice would be compiled twice.
  """
  return {
      target: [
          text_lib.place(vector.astype(np.float32), mesh, None)
          for vector in (np.zeros_like(mean), mean)
      ]
      for target, mean in means.items()
  }


def second(
    model: lm.LanguageModel,
    members: Sequence[Placed],
    means: dict[lm.Tap, np.ndarray],
    *,
    forward: Forward,
    text: text_lib.Text,
    partial: partial_lib.Partial = partial_lib.NONE,
) -> list[delta_loss.Downstream]:
  """Returns each member's clean loss and the increases of the loss.

  The increases are those caused by splicing in the member's reconstruction,
  zeros, and the target's mean.
  """
  mesh = text.mesh
  losses = losses_of(model, means, mesh=mesh)
  ablations = _ablations(means, mesh)

  def step(tokens):
    batch = forward(tokens)
    clean, by_target = clean_of(losses, batch, mesh=mesh), {}
    for target in means:
      values = batch.values[target]
      by_target[target] = [
          jitted.sequence_losses(clean[target], batch, mesh=mesh)
      ]
      for vector in ablations[target]:
        value = jitted.fill(vector, values, mesh=mesh)
        by_target[target].append(above_clean(batch, target, value, clean))
    by_member = []
    for member in members:
      value = call_of(member, batch, mesh=mesh)(jitted.reconstruct)
      by_member.append(above_clean(batch, member.target, value, clean))
    return by_member, by_target

  def above_clean(batch, target, value, clean):
    return jitted.sequence_losses(
        losses[target](batch, value), batch, clean=clean[target], mesh=mesh
    )

  def add(total, result):
    by_member, by_target = result
    averages = {
        target: [part.average() for part in parts]
        for target, parts in by_target.items()
    }
    sums = []
    for old, member, spliced in zip(total, members, by_member, strict=True):
      clean, zero, mean = averages[member.target]
      sums.append(
          old.merge(delta_loss.Downstream(clean, spliced.average(), zero, mean))
      )
    return sums

  initial = [delta_loss.Downstream.empty() for _ in members]
  return partial.total('losses', text, step, initial=initial, add=add)
