"""The table and the plot of the benchmark."""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any

from jumprelu.plots import plot_style

_TITLES = {
    'saelens': 'SAELens',
    'dictionary_learning': 'dictionary_learning',
    'sparsify': 'sparsify (TopK)',
    'ours-oracle': 'autodiff',
}


def table(
    title: str,
    records: Sequence[Mapping[str, Any]],
    trials: Mapping[str, Sequence[Mapping[str, float]]],
) -> str:
  """Returns a case's table: seconds of each implementation, then the ratios."""
  lines = [f'\n{title}']
  median = statistics.median
  for name, results in trials.items():
    lines.append(
        f'  {name:22} {median(t["wall"] for t in results):8.4f} s per trial'
        f' {median(t["cpu"] for t in results):8.3f} CPU-s'
        f' {results[-1]["memory"] / 2**20:7.0f} MiB'
        f' (imports {results[-1]["imports"] / 2**20:.0f})'
        f'   L0 {results[-1]["l0"]:.1f}'
    )
  lines.append(
      '  ours     peer                   faster (range)        CPU   memory'
      ' (above imports)  of 5 matmuls  encoder  gradient error'
  )
  for r in records:
    spread = f'({r["speed_ratio_low"]:.2f}-{r["speed_ratio_high"]:.2f})'
    lines.append(
        f'  {r["ours"]:8} {r["peer"]:20} {r["speed_ratio_median"]:7.2f}x'
        f' {spread:14} {r["cpu_ratio"]:6.2f}x {r["memory_ratio"]:6.2f}x'
        f' {r["memory_ratio_above_imports"]:11.2f}x  '
        f' {r["ceiling_share"]:10.0%} {r["encoder_share"]:10.0%}'
        f' {r["gradient_error"]:12.1e}'
    )
  return '\n'.join(lines)


def plot(records: Sequence[Mapping[str, Any]], path: str) -> None:
  """Writes a plot of the ratios: a panel per peer, error bars for ranges."""
  from matplotlib import pyplot as plt

  peers = list(dict.fromkeys(r['peer'] for r in records))
  backends = list(dict.fromkeys(r['ours'] for r in records))
  with plot_style.context():
    fig, axes = plt.subplots(
        1, len(peers), figsize=(3.4 * len(peers), 3.2), squeeze=False
    )
    for axis, peer in zip(axes[0], peers, strict=True):
      _panel(axis, [r for r in records if r['peer'] == peer], backends)
      axis.set_title(f'against {_TITLES[peer]}', fontsize=9.5)
    axes[0, 0].set_ylabel('times faster')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc='lower center',
        ncols=len(backends),
        frameon=False,
    )
    fig.tight_layout(rect=(0, 0.08, 1, 1))
    fig.savefig(path, dpi=150)
    plt.close(fig)


def _panel(axis: Any, records: Sequence[Mapping[str, Any]], backends) -> None:
  cases = list(dict.fromkeys((r['shape'], r['l0'], r['zipf']) for r in records))
  width = 0.8 / len(backends)
  for i, name in enumerate(backends):
    bars = [r for r in records if r['ours'] == name]
    x = [
        cases.index((r['shape'], r['l0'], r['zipf'])) + (i + 0.5) * width - 0.4
        for r in bars
    ]
    y = [r['speed_ratio_median'] for r in bars]
    low = [r['speed_ratio_median'] - r['speed_ratio_low'] for r in bars]
    high = [r['speed_ratio_high'] - r['speed_ratio_median'] for r in bars]
    axis.bar(x, y, width, color=plot_style.COLOURS[i], label=name)
    axis.errorbar(x, y, (low, high), fmt='none', ecolor=plot_style.INK)
  axis.axhline(1, color=plot_style.FAINT, linewidth=0.8)
  names = [f'{s}\nL0 {n}{" Zipf" * z}' for s, n, z in cases]
  axis.set_xticks(range(len(cases)), names)
