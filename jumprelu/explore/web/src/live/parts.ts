// Parts of the answers that several tabs show.
import type {Member} from '../data/suite.ts';
import type {Context} from '../context.ts';
import {number, percent, signed} from '../format.ts';
import {h} from '../ui/dom.ts';
import {tokenChip} from '../ui/pieces.ts';
import {bar, listTable} from '../views/latent_tokens.ts';
import {hint} from '../views/latent_neighbours.ts';
import type {NextToken} from './client.ts';

/** The most probable next tokens; with others, the change of each logit. */
export function nextTable(
  caption: string,
  rows: NextToken[],
  others: NextToken[] = [],
): HTMLElement {
  const most = Math.max(...rows.map((row) => row.probability ?? 0), 1e-30);
  const before = new Map(others.map((row) => [row.id, row.logit]));
  return listTable(
    caption,
    [
      ['Token', ''],
      ['Bar', ''],
      ['Probability', ''],
      ['Logit', ''],
    ],
    rows.map((row) => {
      const old = before.get(row.id);
      const {logit} = row;
      const known = typeof old === 'number' && logit !== null;
      const change = known ? ` (${signed(logit - old)})` : '';
      return h(
        'tr',
        null,
        h('td', null, tokenChip(row.piece)),
        h('td', {class: 'bar-cell'}, bar((row.probability ?? 0) / most)),
        h('td', {class: 'num'}, percent(row.probability)),
        h(
          'td',
          {class: 'num dim', title: 'Logit'},
          `${number(row.logit)}${change}`,
        ),
      );
    }),
  );
}

/** A latent as a link with a hint of what it is about. */
export function latentCells(context: Context, member: Member, latent: number) {
  return [
    h(
      'td',
      {class: 'latent-cell'},
      h('a', {href: member.href(latent)}, latent),
    ),
    h('td', null, hint(context, member, latent)),
  ];
}
