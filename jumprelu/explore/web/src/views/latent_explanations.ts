// Explanations of a latent, with their scores.
import type {Context} from '../context.ts';
import type {Score} from '../data/latent.ts';
import {integer, number, plural} from '../format.ts';
import {card, h} from '../ui/dom.ts';
import {labelText} from '../ui/pieces.ts';
import {listTable} from './latent_tokens.ts';
import type {Shown} from './latent.ts';

// In the order of the data.
const KINDS: [string, string][] = [
  [
    'Detection',
    'Does it fire in a text? Balanced accuracy: 0.5 is chance, 1 is perfect',
  ],
  [
    'Fuzzing',
    'Does it fire on the marked tokens? Balanced accuracy: 0.5 is chance, 1 is perfect',
  ],
  [
    'Intruder',
    'In which of five texts are the marks wrong? Accuracy: 0.2 is chance, 1 is perfect',
  ],
  [
    'Simulation',
    'How strongly does it fire on each token? Correlation: 0 is chance, 1 is perfect',
  ],
];

function scoreRow(kind: number, score: Score): HTMLElement {
  const [value, low, high, count, unparsable] = score;
  const [name, help] = KINDS[kind];
  const known = value !== null && low !== null && high !== null;
  const bad = unparsable ? `, ${integer(unparsable)} unparsable` : '';
  return h(
    'tr',
    {title: help},
    h('td', null, name),
    h('td', {class: 'num'}, known ? number(value) : '–'),
    h(
      'td',
      {class: 'num dim', title: 'Interval of 95%'},
      known ? `${number(low)} to ${number(high)}` : '',
    ),
    h('td', {class: 'num dim'}, `${plural(count, 'answer')}${bad}`),
  );
}

/** Null in pages without explanations. */
export function explanationsCard(
  {suite}: Context,
  {data}: Shown,
): HTMLElement | null {
  const sets = suite.index.explanations ?? [];
  if (!sets.length) return null;
  const rows = data.explanations;
  return card(
    'Explanations',
    'Made from half of the documents, and scored on the others.',
    null,
    rows.length
      ? rows.map(({set, text, scores}) => {
          const {name, judge, model} = sets[set];
          const by = judge === 'llm' && model ? model : judge;
          return h(
            'div',
            {class: 'explanation'},
            h('p', null, text === null ? 'No explanation.' : labelText(text)),
            h('p', {class: 'note'}, labelText(`${name}, judged by ${by}`)),
            listTable(
              'Scores',
              [
                ['Score', ''],
                ['Value', ''],
                ['Interval', 'Of 95%'],
                ['Answers', ''],
              ],
              scores.flatMap((score, kind) =>
                score[3] + score[4] ? [scoreRow(kind, score)] : [],
              ),
            ),
          );
        })
      : h('p', {class: 'note'}, 'This latent was not explained.'),
  );
}
