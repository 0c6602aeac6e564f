"""Plans as text for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jumprelu.files import wording


def table(plan: Mapping[str, Any]) -> str:
  """Returns the plan as text for the terminal."""
  memory, jobs = plan['memory'], plan['jobs']
  parts = ', '.join(f'{k} {v:.2f}' for k, v in memory['formula_gib'].items())
  shape = ' x '.join(f'{v} {k}' for k, v in plan['mesh'].items())
  rows = [
      (
          'suite',
          f'{wording.count(plan["members"], "SAE")} per job,'
          f' {wording.count(len(jobs), "job")}',
      ),
      ('SAE parameters', f'{plan["sae_parameters"]:,} per job'),
      ('topology', f'{plan["topology"]}, {plan["chips"]} chips, {shape}'),
      (
          'memory per chip',
          f'{memory["peak_gib"]:.2f} of {memory["usable_gib"]:.2f} GiB'
          f' ({memory["source"]})',
      ),
      ('  by formula', f'{parts} GiB'),
  ]
  for name, report in memory['compiler'].items():
    seconds = report['optimal_seconds']
    words = f'{seconds:.3f} s' if seconds > 0 else 'unusable (not positive)'
    rows.append(
        (
            f'  {name}',
            f'{report["peak_gib"]:.2f} GiB; estimate of time {words}',
        )
    )
  rows += [
      ('fits', 'yes' if plan['fits'] else 'NO'),
      ('tokens, steps', f'{plan["tokens"]:,}, {plan["steps"]:,} per job'),
  ]
  text = '\n'.join(f'{name:<16} {value}' for name, value in rows)
  for change in plan['changes'][:4]:
    text += f'\n  would fit with {change}'
  if not plan['fits'] and not plan['changes']:
    text += (
        '\n  no single change is enough; combine a larger slice, a larger'
        ' --mesh.tensor and fewer SAEs'
    )
  text += '\n\n' + '\n'.join(_job_lines(jobs))
  cost = '' if plan['cost'] is None else f', cost {plan["cost"]:,.0f}'
  grouping = _best_grouping(plan['groupings'])
  return text + (
      f'\n\n{plan["sae_count"]} SAEs: {plan["chip_hours"]:,.0f} chip-hours'
      f'{cost}; {plan["days_one_after_the_other"]:,.2f} days on one slice, one'
      f' job after another.{grouping}\nTimes are computed, not measured. They'
      f' assume {plan["utilisation"]:.1%} of the peak rate.'
  )


def _span(layers: Sequence[int]) -> str:
  """Returns `12`, or `0..25` for several layers."""
  first, last = min(layers), max(layers)
  return str(first) if first == last else f'{first}..{last}'


def _best_grouping(groupings: Sequence[Mapping[str, Any]]) -> str:
  """Returns the line about the cheapest grouping of layers that fits."""
  fitting = [grouping for grouping in groupings if grouping['fits']]
  if not fitting:
    return ''
  best = min(fitting, key=lambda grouping: grouping['chip_hours'])
  if best['layers_per_job'] == 1:
    return '\nOne layer a job costs least.'
  alone = groupings[0]['chip_hours']
  return (
      f'\n--layers_per_job={best["layers_per_job"]} costs least:'
      f' {best["chip_hours"]:,.0f} chip-hours,'
      f' {1 - best["chip_hours"] / alone:.0%} less than one layer a job'
      f' ({alone:,.0f}); {best["peak_gib"]:.2f} GiB per chip by formula.'
  )


def _job_lines(jobs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  """Yields the lines of the table of jobs, with an explanation below it."""
  yield (
      'layers LM GF/tok  SAE GF/tok  break-even  ms/step   LM  SAE links'
      '      days  chip-h'
  )
  for job in jobs:
    yield (
        f'{_span(job["layers"]):>5}  {job["lm_flops_per_token"] / 1e9:9.2f}'
        f'  {job["sae_flops_per_token"] / 1e9:10.2f}'
        f'  {job["break_even_members"]:10.1f}'
        f'  {1e3 * job["seconds_per_step"]:7.2f}'
        f' {job["lm_share"]:4.0%} {job["sae_share"]:4.0%}'
        f' {job["link_share"]:5.0%}  {job["days"]:8.2f}'
        f'  {job["chip_hours"]:6.0f}'
    )
  yield (
      'GF/tok: GFLOP per token. break-even: the number of SAEs that cost as'
      ' much as the LM.\nLM, SAE, links: shares of the step time (links:'
      ' traffic between chips).'
  )
