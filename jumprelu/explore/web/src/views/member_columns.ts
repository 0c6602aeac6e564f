// The columns of the table of latents.
import type {Context} from '../context.ts';
import type {Member, MemberTable} from '../data/suite.ts';
import {integer, number, percent} from '../format.ts';
import {labelText, tokenChip} from '../ui/pieces.ts';
import type {TableColumn} from '../ui/table.ts';

type Floats =
  | 'mean'
  | 'largest'
  | 'threshold'
  | 'token_entropy'
  | 'encoder_cosine'
  | 'decoder_norm';

const NUMBERS: [Floats, string, string][] = [
  ['mean', 'Mean', 'Mean activation where it fires'],
  ['largest', 'Largest', 'Largest activation on this text'],
  [
    'threshold',
    'Threshold',
    'Threshold of the activation; empty for variants without one',
  ],
  [
    'token_entropy',
    'Entropy',
    'Entropy, in bits, of the tokens on which it fires: 0 for a single token',
  ],
  [
    'encoder_cosine',
    'Enc. cosine',
    'Cosine of its encoder column and its decoder row',
  ],
  ['decoder_norm', 'Dec. norm', 'Norm of its decoder row'],
];

function known(value: number): number | undefined {
  return Number.isNaN(value) ? undefined : value;
}

/** The text of a latent that the filter looks through, in small letters. */
export function textOf(
  {suite, labels}: Context,
  member: Member,
  table: MemberTable,
  row: number,
): string {
  const entry = labels.get(member.info.id, row);
  const parts = [table.top_token[row], table.promoted_token[row]]
    .filter((token) => token >= 0)
    .map((token) => suite.piece(token));
  if (entry) parts.push(entry.label, entry.note);
  return parts.join('\n').toLowerCase();
}

export function latentColumns(
  context: Context,
  member: Member,
  table: MemberTable,
): TableColumn[] {
  const {suite, labels} = context;
  const token = (
    id: string,
    title: string,
    help: string,
    of: Int32Array,
  ): TableColumn => ({
    id,
    title,
    help,
    width: 116,
    upwards: true,
    value: (row) =>
      of[row] < 0 ? undefined : suite.piece(of[row]).toLowerCase(),
    cell: (row) => (of[row] < 0 ? '–' : tokenChip(suite.piece(of[row]))),
  });
  const {detection} = table;
  return [
    {
      id: 'latent',
      title: 'Latent',
      help: 'The number of the latent',
      numeric: true,
      width: 72,
      upwards: true,
      value: (row) => row,
      cell: (row) => String(row),
    },
    token(
      'top_token',
      'Top token',
      'The token with the largest mean activation',
      table.top_token,
    ),
    token(
      'promoted_token',
      'Promoted',
      'The token whose logit it raises most',
      table.promoted_token,
    ),
    {
      id: 'label',
      title: 'Label',
      help: 'Your label, kept in this browser',
      width: 140,
      upwards: true,
      value: (row) => labels.get(member.info.id, row)?.label || undefined,
      cell: (row) => labelText(labels.get(member.info.id, row)?.label ?? ''),
    },
    {
      id: 'frequency',
      title: 'Frequency',
      help: 'Share of tokens on which it fires',
      numeric: true,
      range: true,
      width: 92,
      value: (row) => known(table.frequency[row]),
      cell: (row) => percent(table.frequency[row]),
    },
    ...NUMBERS.map(([id, title, help]): TableColumn => ({
      id,
      title,
      help,
      numeric: true,
      range: true,
      width: 89,
      value: (row) => known(table[id][row]),
      cell: (row) => number(table[id][row]),
    })),
    {
      id: 'examples',
      title: 'Examples',
      help: 'Number of strongest examples, at most one from each document',
      numeric: true,
      range: true,
      width: 84,
      value: (row) => table.examples[row],
      cell: (row) => integer(table.examples[row]),
    },
    ...(detection
      ? [
          {
            id: 'detection',
            title: 'Detection',
            help: `How well its explanation predicts in which texts it fires: balanced accuracy (${suite.index.explanations?.[0]?.name})`,
            numeric: true,
            range: true,
            width: 89,
            value: (row: number) => known(detection[row]),
            cell: (row: number) => number(detection[row]),
          },
        ]
      : []),
  ];
}
