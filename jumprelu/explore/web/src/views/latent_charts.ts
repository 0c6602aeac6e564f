// The histogram of activations with the threshold, and the position profile.
import {barChart} from '../charts/bars.ts';
import type {Context} from '../context.ts';
import {integer, number, percent, percentTick, short, tick} from '../format.ts';
import {card, h} from '../ui/dom.ts';
import type {Shown} from './latent.ts';

function powerText(power: number): string {
  return tick(2 ** power);
}

export function histogramCard(context: Context, {data, table, latent}: Shown) {
  const edges = context.suite.index.histogram_edges;
  const counts = [...data.histogram];
  const title = 'Activations';
  if (!counts.some((count) => count > 0)) {
    return card(
      title,
      null,
      null,
      h('p', {class: 'note'}, 'It never fired on this text.'),
    );
  }
  const step = Math.log2(edges[1]) - Math.log2(edges[0]);
  const start = Math.log2(edges[0]) - step;
  const from = Math.max(0, counts.findIndex((count) => count > 0) - 1);
  let to = counts.length - 1;
  while (counts[to] === 0) to--;
  to = Math.min(counts.length - 1, to + 1);
  const left = counts
    .slice(from, to + 1)
    .map((_, i) => start + (from + i) * step);
  const threshold = table.threshold[latent];
  const mark =
    threshold > 0
      ? {at: Math.log2(threshold), text: `threshold ${number(threshold)}`}
      : null;
  const low = mark ? Math.min(left[0], mark.at) : left[0];
  const high = Math.max(left[left.length - 1] + step, mark?.at ?? -Infinity);
  const ticks = [];
  for (let power = Math.ceil(low - 0.01); power <= high; power++) {
    ticks.push({at: power, text: powerText(power)});
  }
  const bin = (i: number): string => {
    const upper = edges[from + i];
    const lower = edges[from + i - 1];
    if (lower === undefined) return `below ${number(upper)}`;
    if (upper === undefined) return `above ${number(lower)}`;
    return `${number(lower)} to ${number(upper)}`;
  };
  const chart = barChart({
    label: `Histogram of ${integer(table.count[latent])} activations on a log scale${mark ? `, with the threshold at ${number(threshold)}` : ''}`,
    height: 178,
    left,
    step,
    values: counts.slice(from, to + 1),
    xLabel: 'Activation (log scale)',
    ticks,
    yText: short,
    tip: (i) => [
      ['activation', bin(i)],
      ['tokens', integer(counts[from + i])],
    ],
    mark,
    notches: data.bandEdges.filter((edge) => edge > 0).map(Math.log2),
  });
  context.cleanup(() => chart.destroy());
  const note = mark
    ? 'Tokens by activation; small ticks are the edges of the bands.'
    : 'Tokens by activation; this variant has no threshold. Small ticks are the edges of the bands.';
  return card(title, note, null, chart.element);
}

export function profileCard(context: Context, {data}: Shown) {
  const totals = context.suite.index.position_totals;
  let last = totals.length - 1;
  while (last > 0 && !(totals[last] > 0)) last--;
  const profile = data.positionProfile;
  const bins = totals.slice(0, last + 1);
  const rates = bins.map((total, i) => (total > 0 ? profile[i] / total : null));
  if (!rates.some((rate) => rate)) {
    const note = h('p', {class: 'note'}, 'It never fired on this text.');
    return card('Positions', null, null, note);
  }
  const name = (i: number) =>
    i === 0 ? '1' : `${integer(2 ** i)} to ${integer(2 ** (i + 1) - 1)}`;
  const chart = barChart({
    label: 'Share of tokens on which it fires, by position in the document',
    height: 150,
    left: bins.map((_, i) => i),
    step: 1,
    values: rates,
    xLabel: 'Position in the document (log scale)',
    ticks: bins
      .map((_, i) => ({at: i, text: short(2 ** i)}))
      .filter((_, i) => bins.length < 10 || i % 2 === 0),
    yText: percentTick,
    tip: (i) => [
      ['positions', name(i)],
      ['frequency', percent(rates[i])],
      ['tokens', `${integer(profile[i])} of ${integer(bins[i])}`],
    ],
  });
  context.cleanup(() => chart.destroy());
  return card(
    'Positions',
    'Share of the tokens at each position.',
    null,
    chart.element,
  );
}
