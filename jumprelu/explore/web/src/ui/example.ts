// A window of text around one activation.
import type {Example} from '../data/latent.ts';
import type {Suite} from '../data/suite.ts';
import {integer, number} from '../format.ts';
import {heatOf, heatText, type HeatToken} from './heat.ts';
import {visible} from './pieces.ts';

export interface ExampleOptions {
  /** Tokens on each side of the example's token; all if left out. */
  reach?: number;
  breaks?: boolean;
}

export function exampleLine(
  suite: Suite,
  example: Example,
  largest: number,
  {reach = Infinity, breaks = false}: ExampleOptions = {},
): HTMLElement {
  const {tokens, values, index} = example;
  const from = Math.max(0, index - reach);
  const to = Math.min(tokens.length, index + reach + 1);
  const list: HeatToken[] = [];
  for (let i = from; i < to; i++) {
    const value = values[i];
    list.push({
      piece: suite.piece(tokens[i]),
      heat: heatOf(value, largest),
      marked: i === index,
      tip: () => [
        ['activation', value > 0 ? number(value) : 'silent'],
        ['position', integer(example.offset - index + i)],
        ['token id', integer(tokens[i])],
        ['document', `at ${integer(example.document)}`],
      ],
    });
  }
  const piece = visible(suite.piece(tokens[index])).slice(0, 40);
  const label =
    example.value > 0
      ? `Example: activation ${number(example.value)} at ${piece}`
      : `Example without activation, at ${piece}`;
  return heatText(list, {breaks, label});
}
