// Tokens that a latent promotes, suppresses and fires on.
import type {Context} from '../context.ts';
import {integer, number, signed} from '../format.ts';
import {card, h} from '../ui/dom.ts';
import {tokenChip} from '../ui/pieces.ts';
import type {Shown} from './latent.ts';

/** A bar whose length is a share of the largest one. */
export function bar(share: number, kind = ''): HTMLElement {
  const inner = h('i', {class: kind});
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return h('span', {class: 'bar-box', 'aria-hidden': 'true'}, inner);
}

/** A small table; its headings, and a quiet caption, are only read aloud. */
export function listTable(
  caption: string,
  heads: [string, string][],
  rows: HTMLElement[],
  {kind = '', quiet = true} = {},
): HTMLElement {
  return h(
    'table',
    {class: `list ${kind}`},
    h('caption', {class: quiet ? 'visually-hidden' : ''}, caption),
    h(
      'thead',
      {class: 'visually-hidden'},
      h(
        'tr',
        null,
        heads.map(([name, help]) => h('th', {scope: 'col', title: help}, name)),
      ),
    ),
    h('tbody', null, rows),
  );
}

export function effectsCard({suite}: Context, {data}: Shown): HTMLElement {
  const all = [...data.promoted, ...data.suppressed];
  const largest = Math.max(...all.map((row) => Math.abs(row.effect)), 1e-30);
  const table = (caption: string, rows: typeof all, kind: string) =>
    listTable(
      caption,
      [
        ['Token', ''],
        ['Bar', ''],
        ['Effect', 'On the logit, for an activation of 1'],
      ],
      rows.map(({token, effect}) =>
        h(
          'tr',
          null,
          h('td', null, tokenChip(suite.piece(token))),
          h('td', {class: 'bar-cell'}, bar(Math.abs(effect) / largest, kind)),
          h('td', {class: 'num'}, signed(effect)),
        ),
      ),
      {quiet: false},
    );
  return card(
    'Effect on logits',
    'For an activation of 1: the decoder row through the unembedding, with the gain of the final norm and without its scale.',
    null,
    all.length
      ? h(
          'div',
          {class: 'pair'},
          table('Promoted', data.promoted, 'up'),
          table('Suppressed', data.suppressed, 'down'),
        )
      : h('p', {class: 'note'}, 'No effects are known for this latent.'),
  );
}

export function topTokensCard({suite}: Context, {data}: Shown): HTMLElement {
  const rows = data.topTokens;
  const largest = Math.max(...rows.map((row) => row.mean), 1e-30);
  return card(
    'Top tokens',
    'The tokens on which it fires, by mean activation there.',
    null,
    rows.length
      ? listTable(
          'Top tokens',
          [
            ['Token', ''],
            ['Bar', ''],
            ['Mean', ''],
            ['Times', ''],
          ],
          rows.map(({token, mean, count}) =>
            h(
              'tr',
              null,
              h('td', null, tokenChip(suite.piece(token))),
              h('td', {class: 'bar-cell'}, bar(mean / largest)),
              h('td', {class: 'num'}, number(mean)),
              h(
                'td',
                {
                  class: 'num dim',
                  title: 'Tokens of this text on which it fires',
                },
                `${integer(count)}×`,
              ),
            ),
          ),
        )
      : h('p', {class: 'note'}, 'It never fired on this text.'),
  );
}
