// Latents that resemble this one, or fire together with it.
import type {Context} from '../context.ts';
import type {Member} from '../data/suite.ts';
import {integer, number, percent} from '../format.ts';
import {card, fill, h} from '../ui/dom.ts';
import {labelText, tokenChip} from '../ui/pieces.ts';
import {bar, listTable} from './latent_tokens.ts';
import type {Shown} from './latent.ts';

interface Row {
  member: Member | null;
  latent: number;
  share: number;
  value: string;
  title: string;
}

/** What another latent is about: its label, or else its top token. */
export function hint(
  {suite, labels, alive}: Context,
  member: Member,
  latent: number,
) {
  const place = h('span', {class: 'hint'});
  const label = labels.get(member.info.id, latent)?.label;
  if (label) {
    fill(place, labelText(label));
    return place;
  }
  member
    .table()
    .then((table) => {
      const token = table.top_token[latent];
      if (alive() && token >= 0) fill(place, tokenChip(suite.piece(token)));
      else if (alive()) fill(place, h('span', {class: 'dim'}, 'never fired'));
    })
    .catch((error: Error) => {
      place.title = error.message;
      fill(place, h('span', {class: 'problem'}, 'missing'));
    });
  return place;
}

function table(context: Context, rows: Row[], caption: string, long: boolean) {
  return listTable(
    caption,
    [
      ['Latent', ''],
      ['About', 'Your label, or its top token'],
      ['Bar', ''],
      ['Value', ''],
    ],
    rows.map(({member, latent, share, value, title}) =>
      h(
        'tr',
        null,
        h(
          'td',
          {class: 'latent-cell'},
          member
            ? h(
                'a',
                {href: member.href(latent)},
                long ? `${member.link}/${latent}` : latent,
              )
            : h(
                'span',
                {class: 'dim', title: 'Its member is not in this page'},
                `${latent} elsewhere`,
              ),
        ),
        h('td', null, member ? hint(context, member, latent) : null),
        h('td', {class: 'bar-cell'}, bar(share)),
        h('td', {class: 'num', title}, value),
      ),
    ),
    {kind: long ? 'long' : ''},
  );
}

function none(text: string): HTMLElement {
  return h('p', {class: 'note'}, text);
}

export function neighboursCard(context: Context, {member, data}: Shown) {
  const rows = data.neighbours.map(({latent, cosine}) => ({
    member,
    latent,
    share: cosine,
    value: number(cosine),
    title: 'Cosine of the decoder rows',
  }));
  return card(
    'Neighbours in this member',
    'The nearest decoder rows, by cosine.',
    null,
    rows.length
      ? table(context, rows, 'Neighbours in this member', false)
      : none('There are none.'),
  );
}

export function elsewhereCard(context: Context, {data}: Shown) {
  const rows = data.elsewhere.map(({member, latent, cosine}) => ({
    member: context.suite.members[member] ?? null,
    latent,
    share: cosine,
    value: number(cosine),
    title: 'Cosine of the decoder rows',
  }));
  return card(
    'In other members',
    'The nearest decoder rows of members with the same target, of any width.',
    null,
    rows.length
      ? table(context, rows, 'Neighbours in other members', true)
      : none('No other member reads the same activations.'),
  );
}

export function coactiveCard(context: Context, {member, data}: Shown) {
  const rows = data.coactive.map(({latent, jaccard, both}) => ({
    member,
    latent,
    share: jaccard,
    value: percent(jaccard),
    title: `Both fire on ${integer(both)} tokens`,
  }));
  return card(
    'Fires together with',
    'Tokens on which both fire, as a share of those on which either does (Jaccard).',
    null,
    rows.length
      ? table(context, rows, 'Latents that fire together with it', false)
      : none('There are none.'),
  );
}
