// The suite: frontier as the menu, members, densities, curves, random latents.
import {sparkline} from '../charts/sparkline.ts';
import type {Context} from '../context.ts';
import type {Member} from '../data/suite.ts';
import {integer, percent, plural, result, tick} from '../format.ts';
import {card, fill, h} from '../ui/dom.ts';
import {DataTable, type TableColumn} from '../ui/table.ts';
import {curvesCard, densityCard, frontierCard} from './overview_charts.ts';
import {randomCard} from './random_latents.ts';

function heading(context: Context): HTMLElement {
  const {index, members} = context.suite;
  const latents = members.reduce((sum, member) => sum + member.width, 0);
  return h(
    'div',
    {class: 'title-row'},
    h('h1', {tabindex: -1}, index.title),
    h(
      'p',
      {class: 'lead'},
      `${plural(members.length, 'sparse autoencoder')}, ${plural(latents, 'latent')}, on ${index.model.name}.`,
    ),
  );
}

/** The columns of the suite's table; rows are numbers of members. */
function columns(members: Member[], context: Context): TableColumn[] {
  const info = (row: number) => members[row].info;
  const results = context.suite.index.results_columns.map((column) => ({
    id: column.name,
    title: column.title,
    help: column.help,
    numeric: true,
    width: Math.max(64, 24 + 7 * column.title.length),
    value: (row: number) => info(row).results[column.name] ?? undefined,
    cell: (row: number) => result(column.name, info(row).results[column.name]),
  }));
  const variant: TableColumn = {
    id: 'variant',
    title: 'Variant',
    help: 'The kind of sparse autoencoder',
    width: 100,
    upwards: true,
    value: (row) => info(row).variant,
    cell: (row) => info(row).variant,
  };
  const variants = new Set(members.map((member) => member.info.variant)).size;
  const used = (bin: number) =>
    members.some((member) => (member.info.density.counts[bin] ?? 0) > 0);
  let [from, to] = [
    0,
    Math.max(...members.map((m) => m.info.density.counts.length)) - 1,
  ];
  while (from < to && !used(from)) from++;
  while (to > from && !used(to)) to--;
  return [
    {
      id: 'member',
      title: 'Member',
      help: 'A sparse autoencoder of the suite',
      width: 136,
      upwards: true,
      value: (row) => row,
      cell: (row) => members[row].link,
    },
    {
      id: 'width',
      title: 'Width',
      help: 'Number of latents',
      numeric: true,
      width: 66,
      value: (row) => info(row).width,
      cell: (row) => integer(info(row).width),
    },
    ...(variants > 1 ? [variant] : []),
    ...results,
    {
      id: 'few_examples',
      title: '< 10 examples',
      help: 'Share of latents with fewer than 10 examples in the text of this page',
      numeric: true,
      width: 108,
      value: (row) => info(row).few_examples,
      cell: (row) => percent(info(row).few_examples),
    },
    {
      id: 'never',
      title: 'Never fired',
      help: 'Latents that never fired on the text of this page',
      numeric: true,
      width: 92,
      value: (row) => info(row).never,
      cell: (row) => integer(info(row).never),
    },
    {
      id: 'density',
      title: 'Densities',
      help: 'Histogram of log10 frequency, from rare latents to dense ones',
      width: 104,
      value: (row) => medianLog(members[row]),
      cell: (row) =>
        sparkline(
          info(row).density.counts.slice(from, to + 1),
          `Half of the latents fire on over ${percent(10 ** medianLog(members[row]))} of tokens`,
        ),
    },
  ];
}

function medianLog(member: Member): number {
  const {edges, counts} = member.info.density;
  const half = counts.reduce((a, b) => a + b, 0) / 2;
  let sum = 0;
  const bin = counts.findIndex((count) => (sum += count) >= half);
  return (edges[Math.max(0, bin)] + edges[Math.max(0, bin) + 1]) / 2;
}

function membersCard(context: Context): HTMLElement {
  const {members} = context.suite;
  const table = new DataTable({
    caption: 'Members of the suite',
    columns: columns(members, context),
    rows: members.map((_, i) => i),
    sort: {id: 'member', desc: false},
    virtual: members.length > 60,
    href: (row) => members[row].href(),
  });
  context.cleanup(() => table.destroy());
  const note = 'A row opens the member; a heading sorts.';
  return card('Members', note, {class: 'wide'}, table.element);
}

export function overview(context: Context): void {
  context.title('');
  const {index, members} = context.suite;
  if (members.length === 0) {
    fill(
      context.root,
      heading(context),
      h('p', null, 'This page has no members.'),
    );
    return;
  }
  fill(
    context.root,
    heading(context),
    h(
      'div',
      {class: 'overview-grid'},
      frontierCard(context),
      randomCard(context),
      membersCard(context),
      densityCard(context),
      settingsCard(context),
      index.curves.length ? curvesCard(context) : null,
    ),
  );
}

// Names that would be taken for one another: how much text was wanted and read.
const READ: Record<string, string> = {
  tokens: 'tokens read',
  positions: 'positions read',
};
const WANTED: Record<string, string> = {tokens: 'positions requested'};

function settingsCard(context: Context): HTMLElement {
  const {settings, text} = context.suite.index;
  const rows = [
    ...Object.entries(text).map(([key, value]) => [READ[key] ?? key, value]),
    ...Object.entries(settings).map(([key, value]) => [
      WANTED[key] ?? key,
      value,
    ]),
  ].map(([key, value]) => {
    const shown = typeof value === 'number' ? tick(value) : String(value);
    return h(
      'div',
      null,
      h('dt', null, String(key)),
      h('dd', {title: shown.length > 16 ? shown : null}, shown),
    );
  });
  return card(
    'How this was measured',
    'The text and the settings of `jumprelu features`.',
    {class: 'settings'},
    h('dl', {class: 'facts'}, rows),
  );
}
