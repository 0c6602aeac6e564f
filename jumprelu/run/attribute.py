r"""Attributes a prediction to latents of SAEs and to their errors, as a table.

The prediction is the logit of --answer minus that of --foil (without it, minus
the mean of all logits) after the last token of the prompt. Each SAE splits the
activations x of its site into latents times decoder rows, a bias, and an error,
the part of x that it does not reconstruct. The table has the latents and
errors with the largest effects on the prediction.

  jumprelu attribute jumprelu_demo/release --members=resid_post/ --l0=28 \
      --prompt='with open(path) as f: return f.' --answer=read --foil=write
  jumprelu attribute --release=DIR --prompts=prompts.txt --answer=' is' \
      --foil=' are' --method=integrated --curve=10,30,100 --out=nodes.jsonl

--method:
  gradient    activation times gradient; one backward pass, all SAEs at once
  integrated  the mean gradient while latents and error of one SAE rise from 0
  patching    the fall of the prediction if a node alone is removed: exact, but
              one forward pass per node
  direct      the node's part of the logits without the layers above it

--curve=SIZES adds the faithfulness and completeness of circuits that consist
of the SIZE nodes with the largest effects: the shares of the prediction that
they have alone, and that the model has without them. It needs at most one SAE
per site and layer.
"""

import json
import sys
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import wording
from jumprelu.run import main, prompts

POSITIONAL = 'release'
EXTRA = 'train'
# As in `api.tracing.METHODS`, whose module imports JAX.
_METHODS = ('gradient', 'integrated', 'patching', 'direct')


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu.run import flags

  prompts.define_flags(fv)

  def text(name, meaning):
    absl_flags.DEFINE_string(name, None, meaning, flag_values=fv)

  text('answer', 'The token that is explained; a space before it counts.')
  text('foil', 'The token that it is compared with.')
  absl_flags.DEFINE_enum(
      'method',
      'gradient',
      _METHODS,
      'How effects are computed.',
      flag_values=fv,
  )
  flags.define_integer(
      fv, 'steps', 16, 'Points on the path of integrated.', lower_bound=1
  )
  flags.define_integer(
      fv, 'k', 20, 'Nodes in the table of each prompt.', lower_bound=1
  )
  absl_flags.DEFINE_list('curve', [], 'Sizes of circuits.', flag_values=fv)
  text('out', 'NODES.jsonl to write: all nodes in the tables.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, and prints a table for each prompt."""
  problems = [
      f'--{name} is needed'
      for name in ('release', 'answer')
      if not fv[name].value
  ]
  if problems:
    raise errors.UserError('; '.join(problems))
  texts = prompts.read(fv)
  sizes = _sizes(fv.curve)
  out = prompts.out(fv, '.jsonl')

  import jumprelu

  saes, model = prompts.load(fv)
  rows: list[dict[str, Any]] = []
  for prompt in texts:
    trace = jumprelu.trace(
        model,
        prompt,
        saes,
        answer=fv.answer,
        foil=fv.foil,
        method=fv.method,
        steps=fv.steps,
    )
    nodes = _nodes(trace, fv.k)
    _print(trace, nodes, sizes)
    rows += [{'prompt': prompt, **node} for node in nodes]
  if out:
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) + '\n' for row in rows)
    out.write_text(''.join(lines), encoding='utf-8')
    print(f'{out}: {wording.count(len(rows), "node")}')


def _nodes(trace: Any, k: int) -> list[dict[str, Any]]:
  """Returns the nodes of largest effect as rows."""
  rows = []
  for node in trace.top(k):
    acts = trace.acts[node.sae]
    row = {'member': trace.saes[node.sae].path, 'latent': node.latent}
    value = None
    if node.latent is not None:
      value = float(acts.latents[node.token, node.latent])
    row |= {'token': node.token, 'piece': acts.pieces[node.token]}
    rows.append(row | {'activation': value, 'effect': node.effect})
  return rows


def _print(trace: Any, nodes: list[dict[str, Any]], sizes: list[int]) -> None:
  from jumprelu.evals import table

  foil = 'the mean of all logits' if trace.foil is None else repr(trace.foil)
  print(f'{trace.answer!r} against {foil}: {trace.metric:.4g} ({trace.method})')
  sums = [
      [sae.path, *(float(x.sum()) for x in site)]
      for sae, site in zip(trace.saes, trace.sites, strict=True)
  ]
  print(table.format_table(['member', 'latents', 'biases', 'errors'], sums))
  lines = [
      [
          row['effect'],
          'error' if row['latent'] is None else str(row['latent']),
          row['activation'],
          f'{row["token"]} {row["piece"]!r}',
          row['member'],
      ]
      for row in nodes
  ]
  header = ['effect', 'latent', 'activation', 'token', 'member']
  print(table.format_table(header, lines))
  if sizes:
    points = [list(point) for point in trace.curve(sizes)]
    header = ['nodes', 'faithfulness', 'completeness']
    print(table.format_table(header, points))


def _sizes(texts: list[str]) -> list[int]:
  try:
    sizes = [int(text) for text in texts]
  except ValueError:
    sizes = [0]
  if any(size < 1 for size in sizes):
    raise errors.UserError(
        f'--curve={",".join(texts)}: write whole numbers above 0, with commas'
    )
  return sizes


if __name__ == '__main__':
  sys.exit(main.launch('attribute'))
