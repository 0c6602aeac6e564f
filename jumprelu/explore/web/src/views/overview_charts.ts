// The charts of the overview.
import {type Line, lineChart} from '../charts/lines.ts';
import type {Chart} from '../charts/chart.ts';
import type {Context} from '../context.ts';
import type {Curve} from '../data/types.ts';
import {percentTick, short, tick} from '../format.ts';
import {navigate} from '../router.ts';
import {card, fill, h} from '../ui/dom.ts';
import {chooser, type Group, groups, l0, legend, segmented} from './groups.ts';

const MEASURES = [
  ['fvu', 'FVU', 'Fraction of variance unexplained'],
  ['delta_loss', 'Delta loss', 'Increase of the loss, nats per token'],
] as const;

/** A place for one chart, which is replaced together with its controls. */
function slot(context: Context) {
  const element = h('div', {class: 'slot'});
  let charts: Chart[] = [];
  const stop = () => {
    for (const chart of charts) chart.destroy();
  };
  context.cleanup(() => stop());
  return {
    element,
    show(next: Chart[]) {
      stop();
      charts = next;
      fill(
        element,
        next.map((chart) => chart.element),
      );
    },
  };
}

function measured(group: Group, name: string): Group['members'] {
  return group.members.filter(
    (member) => l0(member) > 0 && typeof member.info.results[name] === 'number',
  );
}

export function frontierCard(context: Context): HTMLElement {
  const all = groups(context.suite.members);
  const place = slot(context);
  const known = MEASURES.filter(([name]) =>
    all.some((group) => measured(group, name).length > 0),
  );
  if (known.length === 0) {
    const text =
      'No results are known for these members: choose one in the table.';
    return card(
      'Frontier',
      null,
      {class: 'frontier'},
      h('p', {class: 'note'}, text),
    );
  }
  const draw = (measure: number) => {
    const [name, title, long] = known[measure];
    const lines: Line[] = all.map((group, i) => {
      const members = measured(group, name);
      return {
        name: group.name,
        color: i,
        dashed: i >= 8,
        x: members.map(l0),
        y: members.map((member) => member.info.results[name] as number),
        names: members.map((member) => member.link),
        onClick: (point) => navigate(members[point].href()),
      };
    });
    place.show([
      lineChart({
        label: `${long} against L0, one curve for each site, width and variant. The table of members has the same numbers.`,
        height: 330,
        lines,
        xLabel: 'L0, mean active latents per token',
        yLabel: title,
        xText: tick,
        yText: tick,
        logX: true,
        points: true,
      }),
    ]);
  };
  draw(0);
  const names = known.map(([, title]) => title);
  return card(
    'Frontier',
    'Lower is better on both axes. A point opens its member.',
    {class: 'frontier'},
    h(
      'div',
      {class: 'controls'},
      names.length > 1 ? segmented('Measure', names, 0, draw) : null,
      legend(all.map((group) => group.name)),
    ),
    place.element,
  );
}

export function densityCard(context: Context): HTMLElement {
  const all = groups(context.suite.members);
  const place = slot(context);
  const key = h('div');
  const draw = (chosen: number) => {
    const {members} = all[chosen];
    fill(key, legend(members.map((member) => member.link)));
    const lines = members.map((member, i) => ({
      name: member.link,
      color: i,
      dashed: i >= 8,
      x: member.info.density.edges,
      y: [...member.info.density.counts, 0],
    }));
    place.show([
      lineChart({
        label:
          'Number of latents by their frequency, one curve for each member',
        height: 240,
        lines: trimmed(lines),
        xLabel: 'Frequency',
        yLabel: 'Latents',
        xText: (x) => percentTick(Number((10 ** x).toPrecision(2))),
        splits: decades,
        yText: tick,
        stepped: true,
        fromZero: true,
      }),
    ]);
  };
  draw(0);
  const names = all.map((group) => group.name);
  return card(
    'Densities',
    'How often latents fire: from rare (left) to dense (right), a log scale.',
    {class: 'densities'},
    h(
      'div',
      {class: 'controls'},
      names.length > 1 ? chooser('Members', names, 0, draw) : null,
      key,
    ),
    place.element,
  );
}

/** 1 and 3 of each decade, in log10. */
function decades(low: number, high: number): number[] {
  const splits: number[] = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const x of [power, power + Math.log10(3)]) {
      if (x >= low && x <= high) splits.push(x);
    }
  }
  return splits;
}

/** Without the bins at both ends that are empty in all lines. */
function trimmed(lines: Line[]): Line[] {
  const used = (i: number) => lines.some((line) => (line.y[i] ?? 0) > 0);
  const last = Math.max(0, ...lines.map((line) => line.y.length - 1));
  let [from, to] = [0, last];
  while (from < last && !used(from + 1)) from++;
  while (to > from && !used(to - 1)) to--;
  return lines.map((line) => ({
    ...line,
    x: line.x.slice(from, to + 1),
    y: line.y.slice(from, to + 1),
  }));
}

const SERIES: [string, string, (value: number) => string][] = [
  ['l0', 'L0', tick],
  ['fvu', 'FVU', tick],
  ['loss', 'Loss', tick],
  ['dead', 'Dead latents', percentTick],
  ['threshold', 'Threshold', tick],
];

function series(curve: Curve, name: string): number[] | null {
  const values = curve.series[name];
  return Array.isArray(values) && values.length > 0 ? values : null;
}

export function curvesCard(context: Context): HTMLElement {
  const curves = new Map(context.suite.index.curves.map((c) => [c.member, c]));
  const all = groups(
    context.suite.members.filter((m) => curves.has(m.info.id)),
  );
  const place = slot(context);
  const key = h('div');
  if (all.length === 0) return h('span', {hidden: true});
  const draw = (chosen: number) => {
    const {members} = all[chosen];
    fill(key, legend(members.map((member) => member.link)));
    const charts = SERIES.map(([name, title, text]) => {
      const lines: Line[] = [];
      members.forEach((member, i) => {
        const curve = curves.get(member.info.id) as Curve;
        const [x, y] = [series(curve, 'positions'), series(curve, name)];
        if (!x || !y) return;
        lines.push({name: member.link, color: i, x, y});
        const target = name === 'l0' ? curve.series.target_l0 : null;
        if (typeof target === 'number') {
          const ends = [x[0], x[x.length - 1]];
          const goal = `${member.link}, target`;
          lines.push({
            name: goal,
            color: i,
            x: ends,
            y: [target, target],
            dashed: true,
          });
        }
      });
      return lines.length ? curveChart(title, text, lines) : null;
    });
    place.show(charts.filter((chart) => chart !== null));
  };
  draw(0);
  const names = all.map((group) => group.name);
  return card(
    'Training',
    'Against the tokens of training; a dashed line is a target.',
    {class: 'wide curves'},
    h(
      'div',
      {class: 'controls'},
      names.length > 1 ? chooser('Members', names, 0, draw) : null,
      key,
    ),
    place.element,
  );
}

function curveChart(
  title: string,
  text: (v: number) => string,
  lines: Line[],
): Chart {
  return lineChart({
    label: `${title} during training, one curve for each member`,
    height: 190,
    lines,
    xLabel: 'Tokens',
    yLabel: title,
    xText: short,
    yText: text,
    fromZero: true,
  });
}
