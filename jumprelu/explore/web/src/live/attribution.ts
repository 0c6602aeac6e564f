// How the latents of a member, and its error, contribute to a logit.
import type {Context} from '../context.ts';
import type {Member} from '../data/suite.ts';
import {integer, number, signed} from '../format.ts';
import {card, type Child, h} from '../ui/dom.ts';
import {heatText} from '../ui/heat.ts';
import {tokenChip} from '../ui/pieces.ts';
import {fact} from '../views/facts.ts';
import {bar, listTable} from '../views/latent_tokens.ts';
import type {Token} from './client.ts';
import {latentCells} from './parts.ts';
import {askedMember, chosenMember, memberField, tabForm} from './tab.ts';

// Tokens listed with their error.
const ERRORS = 12;

interface Entry {
  position: number;
  latent: number;
  value: number;
  attribution: number;
}

interface Attribution {
  tokens: Token[];
  target: Token;
  logit: number | null;
  entries: Entry[];
  error: (number | null)[];
  bias: number | null;
  total: number | null;
}

function entryTable(
  context: Context,
  member: Member,
  answer: Attribution,
): HTMLElement {
  const most = Math.max(
    ...answer.entries.map((e) => Math.abs(e.attribution)),
    1e-30,
  );
  return listTable(
    'Attributions to latents',
    [
      ['Latent', ''],
      ['About', ''],
      ['At', ''],
      ['Bar', ''],
      ['Attribution', ''],
    ],
    answer.entries.map(({position, latent, value, attribution}) =>
      h(
        'tr',
        null,
        ...latentCells(context, member, latent),
        h(
          'td',
          {title: `Activation ${number(value)}`},
          tokenChip(answer.tokens[position].piece),
          h('span', {class: 'dim'}, ` ${integer(position)}`),
        ),
        h(
          'td',
          {class: 'bar-cell'},
          bar(Math.abs(attribution) / most, attribution < 0 ? 'down' : ''),
        ),
        h('td', {class: 'num'}, signed(attribution)),
      ),
    ),
    {kind: 'pane-list'},
  );
}

/** The tokens whose error contributes most. */
function errorTable({tokens, error}: Attribution): HTMLElement {
  const rows = error
    .map((value, position) => ({position, value: value ?? 0}))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .slice(0, ERRORS);
  const most = Math.max(Math.abs(rows[0]?.value ?? 0), 1e-30);
  return listTable(
    'Attributions to the error of each token',
    [
      ['Token', ''],
      ['Bar', ''],
      ['Attribution', ''],
    ],
    rows.map(({position, value}) =>
      h(
        'tr',
        null,
        h(
          'td',
          null,
          tokenChip(tokens[position].piece),
          h('span', {class: 'dim'}, ` ${integer(position)}`),
        ),
        h(
          'td',
          {class: 'bar-cell'},
          bar(Math.abs(value) / most, value < 0 ? 'down' : ''),
        ),
        h('td', {class: 'num'}, signed(value)),
      ),
    ),
  );
}

function show(context: Context, member: Member, answer: Attribution): Child {
  const {tokens, target, error} = answer;
  const sums = tokens.map(() => 0);
  for (const entry of answer.entries)
    sums[entry.position] += Math.abs(entry.attribution);
  const most = Math.max(...sums, 1e-30);
  const line = heatText(
    tokens.map(({piece}, i) => ({
      piece,
      heat: (0.9 * sums[i]) / most,
      tip: (): [string, string][] => [
        ['latents, |sum|', number(sums[i])],
        ['error', error[i] === null ? '–' : signed(error[i])],
        ['position', integer(i)],
      ],
    })),
    {label: 'Text, coloured by attribution', breaks: true, class: 'passage'},
  );
  const errorSum = error.reduce((sum: number, value) => sum + (value ?? 0), 0);
  return [
    h(
      'dl',
      {class: 'facts-strip'},
      fact(
        'Target',
        tokenChip(target.piece),
        '',
        'The token whose logit is attributed',
      ),
      fact('Logit', number(answer.logit), '', 'Its logit without an SAE'),
      fact(
        'Error',
        signed(errorSum),
        '',
        'The part of the member’s error, over all tokens',
      ),
      fact('Bias', number(answer.bias), '', 'The part of the decoder’s bias'),
      fact(
        'Total',
        number(answer.total),
        '',
        'Latents, error and bias together',
      ),
    ),
    h(
      'div',
      {class: 'panes two'},
      h(
        'div',
        {class: 'column'},
        card(
          'Text',
          'Heat: the listed attributions of each token, without sign.',
          null,
          line,
        ),
        card(
          'Error nodes',
          'The part of each token that the SAE does not reconstruct.',
          null,
          errorTable(answer),
        ),
      ),
      card(
        'Latents',
        'The largest attributions: activation times the gradient of the logit.',
        null,
        entryTable(context, member, answer),
      ),
    ),
  ];
}

export function attributionTab(context: Context): HTMLElement {
  const target = h('input', {
    type: 'text',
    placeholder: 'the most probable next token',
    spellcheck: 'false',
    maxlength: 200,
  });
  return tabForm(context, 'attribution', {
    help: 'Which latents raise or lower the logit of the next token. The error node is the part that the SAE does not reconstruct.',
    fields: [
      memberField(context),
      h('label', {class: 'choose'}, h('span', null, 'Target'), target),
    ],
    calls: () => {
      const body: Record<string, unknown> = {
        member: chosenMember(context).info.id,
      };
      if (target.value) body.target = target.value;
      return [{name: 'attribution', body}];
    },
    show: ([answer]: Attribution[], _, body) =>
      show(context, askedMember(context, body), answer),
  });
}
