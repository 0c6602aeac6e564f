"""A plan as text for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def table(plan: Mapping[str, Any]) -> str:
  """The plan as lines for people."""
  memory, jobs = plan['memory'], plan['jobs']
  parts = ', '.join(f'{k} {v:.2f}' for k, v in memory['formula_gib'].items())
  shape = ' x '.join(f'{v} {k}' for k, v in plan['mesh'].items())
  rows = [
      ('suite', f'{plan["members"]} SAEs a layer, {len(jobs)} layer(s)'),
      ('SAE parameters', f'{plan["sae_parameters"]:,} a layer'),
      ('topology', f'{plan["topology"]}, {plan["chips"]} chips, {shape}'),
      (
          'memory a chip',
          f'{memory["peak_gib"]:.2f} of {memory["usable_gib"]:.2f} GiB'
          f' ({memory["source"]})',
      ),
      ('  by formula', f'{parts} GiB'),
  ]
  for name, told in memory['compiler'].items():
    seconds = told['optimal_seconds']
    words = f'{seconds:.3f} s' if seconds > 0 else 'none (negative)'
    rows.append(
        (
            f'  {name}',
            f'{told["peak_gib"]:.2f} GiB; the compiler estimates {words}',
        )
    )
  rows += [
      ('fits', 'yes' if plan['fits'] else 'NO'),
      ('tokens, steps', f'{plan["tokens"]:,}, {plan["steps"]:,} a layer'),
  ]
  text = '\n'.join(f'{name:<16} {value}' for name, value in rows)
  for change in plan['changes'][:4]:
    text += f'\n  it would with   {change}'
  if not plan['fits'] and not plan['changes']:
    text += (
        '\n  no one change    is enough; combine a larger slice, --mesh.tensor'
    )
    text += ' and fewer members'
  text += '\n\n' + '\n'.join(_job_lines(jobs))
  cost = '' if plan['cost'] is None else f', cost {plan["cost"]:,.0f}'
  return text + (
      f'\n\n{plan["sae_count"]} SAEs: {plan["chip_hours"]:,.0f} chip-hours'
      f'{cost}; {plan["days_one_after_the_other"]:,.2f} days on one slice.'
      f'\nTimes are by formula, at {plan["utilisation"]:.1%} of the peak, not'
      ' measured.'
  )


def _job_lines(jobs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  yield (
      'layer  LM GF/tok  SAE GF/tok  LM=SAE at  ms/step   LM  SAE links'
      '      days  chip-h'
  )
  for job in jobs:
    yield (
        f'{job["layer"]:5d}  {job["lm_flops_per_token"] / 1e9:9.2f}'
        f'  {job["sae_flops_per_token"] / 1e9:10.2f}'
        f'  {job["break_even_members"]:9.1f}'
        f'  {1e3 * job["seconds_per_step"]:7.2f}'
        f' {job["lm_share"]:4.0%} {job["sae_share"]:4.0%}'
        f' {job["link_share"]:5.0%}  {job["days"]:8.2f}'
        f'  {job["chip_hours"]:6.0f}'
    )
