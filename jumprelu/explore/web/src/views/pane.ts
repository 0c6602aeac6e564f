// A text as one member sees it: heat, and the latents of a token and of all.
import type {Context} from '../context.ts';
import {strongest, type TokenLatents} from '../data/texts.ts';
import type {Member} from '../data/suite.ts';
import {integer, number, plural} from '../format.ts';
import {button, card, fill, h} from '../ui/dom.ts';
import {heatOf, heatText} from '../ui/heat.ts';
import {tokenChip} from '../ui/pieces.ts';
import {bar, listTable} from './latent_tokens.ts';
import {hint} from './latent_neighbours.ts';

const LISTED = 12;

export interface Pane {
  element: HTMLElement;
  /** Shows the latents of a token. */
  select(token: number): void;
}

export interface PaneOptions {
  member: Member;
  pieces: string[];
  latents: TokenLatents;
  /** The latent of the heat; null for L0. */
  heat: number | null;
  onHeat: (latent: number | null) => void;
  onSelect: (token: number) => void;
}

export function pane(context: Context, options: PaneOptions): Pane {
  const {member, pieces, latents} = options;
  let {heat} = options;
  let selected = 0;
  const text = h('div');
  const mode = h('div', {class: 'controls'});
  const ofToken = h('div');
  const ofText = h('div');
  const all = strongest(latents);
  // BOS has no latents in some texts.
  while (selected < latents.size - 1 && latents.l0(selected) === 0) selected++;
  if (heat !== null)
    selected = all.find((each) => each.latent === heat)?.token ?? selected;
  let largestL0 = 1;
  let leastL0 = Infinity;
  let sum = 0;
  for (let i = 0; i < latents.size; i++) {
    largestL0 = Math.max(largestL0, latents.l0(i));
    leastL0 = Math.min(leastL0, latents.l0(i));
    sum += latents.l0(i);
  }

  const choose = (latent: number | null) => {
    heat = latent;
    options.onHeat(latent);
    draw();
  };
  const rows = (
    list: {latent: number; value: number; more: Node | string}[],
  ) => {
    const most = Math.max(...list.map((each) => each.value), 1e-30);
    return list.map(({latent, value, more}) =>
      h(
        'tr',
        {class: latent === heat ? 'chosen-row' : ''},
        h(
          'td',
          {class: 'latent-cell'},
          h('a', {href: member.href(latent)}, latent),
        ),
        h('td', null, hint(context, member, latent)),
        h('td', {class: 'bar-cell'}, bar(value / most)),
        h('td', {class: 'num'}, number(value)),
        h('td', {class: 'num dim'}, more),
        h(
          'td',
          {class: 'num'},
          button('heat', () => choose(latent === heat ? null : latent), {
            class: 'mini',
            'aria-pressed': String(latent === heat),
            title: 'Colour the text by this latent',
          }),
        ),
      ),
    );
  };
  const heads: [string, string][] = [
    ['Latent', ''],
    ['About', 'Your label, or its top token'],
    ['Bar', ''],
    ['Activation', ''],
    ['Tokens', ''],
    ['Heat', ''],
  ];

  const draw = () => {
    let values: number[];
    let most: number;
    if (heat === null) {
      values = pieces.map((_, i) => latents.l0(i));
      most = largestL0;
    } else {
      values = pieces.map(
        (_, i) =>
          latents.active(i).find((each) => each.latent === heat)?.value ?? 0,
      );
      most = Math.max(...values, 1e-30);
    }
    const tokens = pieces.map((piece, i) => ({
      piece,
      heat:
        heat === null
          ? (0.85 * (values[i] - leastL0)) / Math.max(1, most - leastL0)
          : heatOf(values[i], most),
      tip: (): [string, string][] => [
        ['L0', integer(latents.l0(i))],
        ...(heat === null
          ? []
          : [
              [
                `latent ${heat}`,
                values[i] > 0 ? number(values[i]) : 'silent',
              ] as [string, string],
            ]),
        ['position', integer(i)],
      ],
    }));
    const line = heatText(tokens, {
      label: `Text, coloured by ${heat === null ? 'L0' : `latent ${heat}`}`,
      breaks: true,
      class: 'passage',
      onFocus: (i) => options.onSelect(i),
    });
    line.children[selected]?.classList.add('chosen');
    fill(text, line);
    fill(
      mode,
      h(
        'span',
        {class: 'note'},
        'Heat: ',
        heat === null
          ? `L0, from ${integer(leastL0)} to ${integer(largestL0)}`
          : [
              h('a', {href: member.href(heat)}, `latent ${heat}`),
              `, up to ${number(most > 1e-20 ? most : 0)}`,
            ],
      ),
      heat === null
        ? null
        : button('L0 instead', () => choose(null), {class: 'mini'}),
    );
    lists();
  };
  const lists = () => {
    const active = latents.active(selected);
    const first = active.slice(0, LISTED);
    fill(
      ofToken,
      listTable(
        `Latents of the token, ${member.link}`,
        heads,
        rows(first.map((each) => ({...each, more: ''}))),
        {kind: 'pane-list'},
      ),
      active.length > first.length
        ? h(
            'p',
            {class: 'note'},
            `and ${plural(active.length - first.length, 'weaker one')}`,
          )
        : null,
    );
    fill(
      tokenTitle,
      'Token ',
      tokenChip(pieces[selected] ?? ''),
      ` at ${integer(selected)}: L0 ${integer(latents.l0(selected))}`,
    );
    fill(
      ofText,
      listTable(
        `Latents of the text, ${member.link}`,
        heads,
        rows(
          all.slice(0, LISTED).map((each) => ({
            ...each,
            more: h(
              'span',
              {title: 'Tokens on which it fires'},
              `${each.count}×`,
            ),
          })),
        ),
        {kind: 'pane-list'},
      ),
    );
  };
  const tokenTitle = h('h3');
  draw();
  const mean = latents.size ? sum / latents.size : 0;
  const element = card(
    h('a', {href: member.href()}, member.link),
    `Mean L0 here ${number(mean)}.`,
    {class: 'pane'},
    mode,
    text,
    tokenTitle,
    ofToken,
    h('h3', null, 'Strongest in this text'),
    ofText,
  );
  return {
    element,
    select(token) {
      const line = text.firstElementChild;
      line?.children[selected]?.classList.remove('chosen');
      selected = token;
      line?.children[selected]?.classList.add('chosen');
      lists();
    },
  };
}
