// Which latents fire on each token, in every member.
import type {Context} from '../context.ts';
import {integer, number, percent} from '../format.ts';
import {card, type Child, fill, h} from '../ui/dom.ts';
import {heatText, type HeatToken} from '../ui/heat.ts';
import {tokenChip} from '../ui/pieces.ts';
import {chooser} from '../views/groups.ts';
import {hint} from '../views/latent_neighbours.ts';
import type {NextToken, Token} from './client.ts';
import {nextTable} from './parts.ts';
import {tabForm} from './tab.ts';

interface MemberRun {
  id: string;
  l0: number[];
  error: (number | null)[];
  latents: number[][];
  values: (number | null)[][];
}

interface Run {
  tokens: Token[];
  members: MemberRun[];
  loss: (number | null)[];
  next: NextToken[];
}

interface Measure {
  name: string;
  values: (number | null)[];
}

function measures(context: Context, run: Run): Measure[] {
  const name = (id: string) => context.suite.member(id)?.link ?? id;
  return [
    {name: 'loss', values: run.loss},
    ...run.members.map((m) => ({name: `L0 of ${name(m.id)}`, values: m.l0})),
    ...run.members.map((m) => ({
      name: `error of ${name(m.id)}`,
      values: m.error,
    })),
  ];
}

/** Heat from 0 to 0.85 over the range of values; BOS is left out. */
function heats(values: (number | null)[]): number[] {
  const counted = values.slice(1).filter((value) => value !== null);
  const low = Math.min(...counted);
  const room = Math.max(...counted) - low || 1;
  return values.map((value, i) =>
    value === null || i === 0 ? 0 : (0.85 * (value - low)) / room,
  );
}

function show(context: Context, run: Run): Child {
  const list = measures(context, run);
  let measure = list[0];
  let selected = run.tokens.length - 1;
  const text = h('div');
  const table = h('div', {class: 'scroll-x'});
  const draw = () => {
    const heat = heats(measure.values);
    const tokens = run.tokens.map(({id, piece}, i): HeatToken => ({
      piece,
      heat: heat[i],
      tip: () => [
        [measure.name, number(measure.values[i])],
        ['position', integer(i)],
        ['token id', integer(id)],
      ],
    }));
    const line = heatText(tokens, {
      label: `Text, coloured by ${measure.name}`,
      breaks: true,
      class: 'passage',
      onFocus: (i) => {
        line.children[selected]?.classList.remove('chosen');
        selected = i;
        line.children[selected]?.classList.add('chosen');
        drawTable();
      },
    });
    line.children[selected]?.classList.add('chosen');
    fill(text, line);
  };
  const drawTable = () => fill(table, tokenTable(context, run, selected));
  draw();
  drawTable();
  const names = list.map(({name}) => name);
  return h(
    'div',
    {class: 'live-grid'},
    card(
      'Text',
      'Choose a token.',
      null,
      h(
        'div',
        {class: 'controls'},
        chooser('Heat', names, 0, (choice) => {
          measure = list[choice];
          draw();
        }),
      ),
      text,
    ),
    card(
      'Next token',
      'Without an SAE.',
      null,
      nextTable('The most probable next tokens', run.next),
    ),
    card(null, null, {class: 'wide'}, table),
  );
}

function tokenTable(context: Context, run: Run, at: number): HTMLElement {
  const rows = run.members.map((each) => {
    const member = context.suite.member(each.id);
    const chips = each.latents[at].map((latent, i) =>
      member
        ? h(
            'a',
            {class: 'latent-chip', href: member.href(latent)},
            h('b', null, latent),
            ` ${number(each.values[at][i])} `,
            hint(context, member, latent),
          )
        : h('span', {class: 'latent-chip'}, latent),
    );
    return h(
      'tr',
      null,
      h(
        'th',
        {scope: 'row'},
        member ? h('a', {href: member.href()}, member.link) : each.id,
      ),
      h('td', {class: 'num'}, integer(each.l0[at])),
      h('td', {class: 'num'}, percent(each.error[at])),
      h('td', {class: 'chips'}, chips),
    );
  });
  const loss = run.loss[at];
  return h(
    'table',
    {class: 'token-table'},
    h(
      'caption',
      null,
      'Token ',
      tokenChip(run.tokens[at].piece),
      ` at ${integer(at)}`,
      loss === null ? '' : `, loss ${number(loss)} nats`,
      at === 0 ? ' (BOS is never counted)' : '',
    ),
    h(
      'thead',
      null,
      h(
        'tr',
        null,
        h('th', {scope: 'col'}, 'Member'),
        h('th', {scope: 'col', class: 'num'}, 'L0'),
        h(
          'th',
          {
            scope: 'col',
            class: 'num',
            title: 'Norm of the error, as a share of the activation’s norm',
          },
          'Error',
        ),
        h('th', {scope: 'col'}, 'Strongest latents'),
      ),
    ),
    h('tbody', null, rows),
  );
}

export function tokensTab(context: Context): HTMLElement {
  return tabForm(context, 'tokens', {
    help: 'Which latents of every member fire on each token of your text.',
    fields: null,
    calls: () => [{name: 'run', body: {k: 8}}],
    show: ([run]: Run[]) => show(context, run),
  });
}
