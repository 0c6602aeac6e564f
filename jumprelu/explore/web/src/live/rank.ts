// The latents of a member that are strongest on a text.
import type {Context} from '../context.ts';
import type {Member} from '../data/suite.ts';
import {tokenLatents} from '../data/texts.ts';
import {integer, number} from '../format.ts';
import {card, type Child, h} from '../ui/dom.ts';
import {tokenChip} from '../ui/pieces.ts';
import {DataTable} from '../ui/table.ts';
import {hint} from '../views/latent_neighbours.ts';
import {Pane} from '../views/pane.ts';
import {chooser} from '../views/groups.ts';
import type {Token} from './client.ts';
import {askedMember, chosenMember, memberField, tabForm} from './tab.ts';

interface Ranked {
  latent: number;
  largest: number;
  mean: number;
  count: number;
  at: number;
}

interface Rank {
  tokens: Token[];
  latents: Ranked[];
}

interface Activations {
  tokens: Token[];
  start: number[];
  latents: number[];
  values: number[];
}

const BY: [string, string][] = [
  ['largest', 'largest activation'],
  ['mean', 'mean activation where it fires'],
  ['count', 'number of tokens'],
];

function show(
  context: Context,
  member: Member,
  rank: Rank,
  all: Activations,
): Child {
  const {latents, tokens} = rank;
  const numeric = (
    id: 'largest' | 'mean' | 'count',
    title: string,
    help: string,
  ) => ({
    id,
    title,
    help,
    numeric: true,
    width: 84,
    value: (row: number) => latents[row][id],
    cell: (row: number) =>
      (id === 'count' ? integer : number)(latents[row][id]),
  });
  const table = new DataTable({
    caption: `Latents of ${member.link} that fire on the text`,
    columns: [
      {
        id: 'latent',
        title: 'Latent',
        numeric: true,
        width: 74,
        upwards: true,
        value: (row) => latents[row].latent,
        cell: (row) => String(latents[row].latent),
      },
      {
        id: 'about',
        title: 'About',
        help: 'Your label, or its top token on the text of the page',
        width: 150,
        value: (row) => row,
        cell: (row) => hint(context, member, latents[row].latent),
      },
      numeric('largest', 'Largest', 'Largest activation on your text'),
      numeric('mean', 'Mean', 'Mean activation where it fires'),
      numeric('count', 'Tokens', 'Tokens of your text on which it fires'),
      {
        id: 'at',
        title: 'At',
        help: 'The token with the largest activation',
        width: 130,
        upwards: true,
        value: (row) => latents[row].at,
        cell: (row) => [
          tokenChip(tokens[latents[row].at].piece),
          h('span', {class: 'dim'}, ` ${integer(latents[row].at)}`),
        ],
      },
    ],
    rows: latents.map((_, i) => i),
    virtual: true,
    href: (row) => member.href(latents[row].latent),
  });
  context.cleanup(() => table.destroy());
  const text = new Pane(context, {
    member,
    pieces: all.tokens.map(({piece}) => piece),
    latents: tokenLatents(all.start, all.latents, all.values),
    heat: latents[0]?.latent ?? null,
    onHeat: () => {},
    onSelect: (token) => text.select(token),
  });
  return h(
    'div',
    {class: 'panes two'},
    card(
      'Latents',
      'In the order of the server; a heading sorts.',
      null,
      table.element,
    ),
    text.element,
  );
}

export function rankTab(context: Context): HTMLElement {
  let by = 0;
  return tabForm(context, 'rank', {
    help: 'Paste a text: the latents of one member that are strongest on it. BOS is left out.',
    fields: [
      memberField(context),
      chooser(
        'By',
        BY.map(([, text]) => text),
        0,
        (choice) => (by = choice),
      ),
    ],
    calls: () => {
      const member = chosenMember(context).info.id;
      return [
        {name: 'rank', body: {member, k: 200, by: BY[by][0]}},
        {name: 'activations', body: {member}},
      ];
    },
    show: ([rank, all]: [Rank, Activations] | never[], _, body) =>
      show(context, askedMember(context, body), rank, all),
  });
}
