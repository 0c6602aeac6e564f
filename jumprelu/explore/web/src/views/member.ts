// A member: the table of its latents.
import {barChart} from '../charts/bars.ts';
import type {Context} from '../context.ts';
import type {Member, MemberTable} from '../data/suite.ts';
import {
  integer,
  percent,
  percentTick,
  plural,
  result,
  tick,
} from '../format.ts';
import {navigate} from '../router.ts';
import {onKey} from '../keys.ts';
import {button, card, fill, h} from '../ui/dom.ts';
import {labelTools} from '../ui/label_tools.ts';
import {DataTable, type TableState} from '../ui/table.ts';
import {fact} from './facts.ts';
import {inPreset, LABELLED, latentFilters} from './latent_filters.ts';
import {latentColumns, textOf} from './member_columns.ts';

interface Saved {
  table: TableState;
  preset: string;
  text: string;
}

// How each member's table was left, for the way back.
const saved = new Map<Member, Saved>();

export async function memberView(
  context: Context,
  {member}: {member: Member},
): Promise<void> {
  context.title(member.link);
  const wait = h('p', {class: 'note'}, 'Reading the latents…');
  fill(context.root, memberHead(context, member), wait);
  const [table] = await Promise.all([
    member.table(),
    context.suite.vocabulary(),
  ]);
  if (!context.alive()) return;
  wait.replaceWith(latentsCard(context, member, table));
  context.cleanup(
    onKey((key) => {
      if (key === 'r') navigate(member.href(randomLatent(member)));
      else if (key === 'u') navigate('#');
      else return false;
      return true;
    }),
  );
}

export function randomLatent(member: Member): number {
  return Math.floor(Math.random() * member.width);
}

function memberHead(context: Context, member: Member): HTMLElement {
  const {info} = member;
  const columns = context.suite.index.results_columns.filter(
    ({name}) => info.results[name] !== null && info.results[name] !== undefined,
  );
  const facts = columns.map(({name, title, help}) =>
    fact(title, result(name, info.results[name]), '', help),
  );
  const density = densityChart(member);
  context.cleanup(() => density.destroy());
  return h(
    'div',
    {class: 'member-head'},
    h(
      'div',
      null,
      h('p', {class: 'crumbs'}, h('a', {href: '#'}, 'Overview')),
      h('h1', {tabindex: -1}, member.link),
      h(
        'p',
        {class: 'lead'},
        `${member.title}. `,
        h('code', {class: 'path'}, info.id),
      ),
      h('dl', {class: 'facts-strip'}, facts),
    ),
    h(
      'figure',
      null,
      h('figcaption', {class: 'note'}, 'Latents by frequency'),
      density.element,
    ),
  );
}

function densityChart(member: Member) {
  const {edges, counts} = member.info.density;
  let [from, to] = [counts.findIndex((c) => c > 0), counts.length - 1];
  while (to > 0 && counts[to] === 0) to--;
  from = Math.max(0, from);
  const left = edges.slice(from, to + 1);
  const ticks = edges
    .filter((e) => Math.abs(e - Math.round(e)) < 1e-6)
    .map((e) => ({at: e, text: percentTick(10 ** Math.round(e))}));
  return barChart({
    label: 'Number of latents by frequency; the table has the numbers',
    height: 112,
    left,
    step: edges[1] - edges[0],
    values: counts.slice(from, to + 1),
    xLabel: '',
    ticks,
    yText: tick,
    tip: (bin) => [
      [
        'frequency',
        `${percent(10 ** left[bin])} to ${percent(10 ** (left[bin] + edges[1] - edges[0]))}`,
      ],
      ['latents', integer(counts[from + bin])],
    ],
  });
}

function latentsCard(
  context: Context,
  member: Member,
  table: MemberTable,
): HTMLElement {
  const {labels} = context;
  const count = h('span', {class: 'count', role: 'status'});
  const grid = latentsTable(context, member, table, count);
  const filters = latentFilters(
    (preset) => grid.setFilter('preset', preset),
    (words) => grid.setFilter('text', words),
  );
  const old = saved.get(member);
  filters.set(old?.preset ?? 'All', old?.text ?? '');
  if (old) grid.restore(old.table);
  context.cleanup(() => {
    const [preset, text] = [filters.preset(), filters.text()];
    saved.set(member, {table: grid.state(), preset, text});
    grid.destroy();
  });
  const reset = button('Reset', () => {
    grid.clearRanges();
    filters.set('All', '');
  });
  const random = button('Random latent', () =>
    navigate(member.href(randomLatent(member))),
  );
  return card(
    'Latents',
    null,
    {class: 'wide latents'},
    h('div', {class: 'controls'}, filters.element, reset, random, count),
    grid.element,
    labelTools(labels, () => grid.update()),
  );
}

function latentsTable(
  context: Context,
  member: Member,
  table: MemberTable,
  count: HTMLElement,
): DataTable {
  const labelled = (row: number) => {
    const entry = context.labels.get(member.info.id, row);
    return Boolean(entry?.label || entry?.note);
  };
  return new DataTable({
    caption: `Latents of ${member.link}`,
    columns: latentColumns(context, member, table),
    rows: Array.from({length: member.width}, (_, i) => i),
    sort: {id: 'latent', desc: false},
    virtual: true,
    href: (row) => member.href(row),
    filters: {
      preset: (row, preset: string) =>
        preset === LABELLED ? labelled(row) : inPreset(preset, table, row),
      text: (row, words: string[]) => {
        const text = textOf(context, member, table, row);
        return words.every((word) => text.includes(word));
      },
    },
    onCount: (shown, all) => {
      const every = plural(all, 'latent');
      count.textContent =
        shown === all ? every : `${integer(shown)} of ${every}`;
    },
  });
}
