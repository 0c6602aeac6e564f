// Continues a text, with or without a member's reconstruction.
import type {Context} from '../context.ts';
import {integer} from '../format.ts';
import {card, h} from '../ui/dom.ts';
import {heatText} from '../ui/heat.ts';
import {chooser} from '../views/groups.ts';
import type {Token} from './client.ts';
import {tabForm} from './tab.ts';

/** New tokens after their prompt. */
export function continued(
  title: string,
  text: string,
  tokens: Token[],
  label: string,
): HTMLElement {
  const line = heatText(
    tokens.map(({id, piece}, i) => ({
      piece,
      heat: 0,
      tip: (): [string, string][] => [
        ['new token', integer(i + 1)],
        ['token id', integer(id)],
      ],
    })),
    {label, breaks: true, class: 'generated'},
  );
  return card(
    title,
    `${tokens.length} new tokens.`,
    null,
    h('pre', {class: 'prompt'}, text),
    line,
  );
}

/** A field for a number from 0. */
export function numberField(
  name: string,
  value: number,
  max: number,
  step: string,
) {
  const input = h('input', {
    type: 'number',
    value,
    min: 0,
    max,
    step,
    class: 'short',
  });
  return {
    element: h('label', {class: 'choose'}, h('span', null, name), input),
    read: () => Number(input.value),
  };
}

export function generateTab(context: Context): HTMLElement {
  const {suite} = context;
  const limit = suite.index.live?.max_new_tokens ?? 64;
  const tokens = numberField('Tokens', Math.min(20, limit), limit, '1');
  const temperature = numberField('Temperature', 0, 10, 'any');
  const seed = numberField('Seed', 0, 2 ** 31 - 1, '1');
  let member: string | null = null;
  return tabForm(context, 'generate', {
    help: 'Continues your text; with a member its reconstruction replaces the activations. Temperature 0 takes the most probable token.',
    fields: [
      chooser(
        'Member',
        ['none', ...suite.members.map((each) => each.link)],
        0,
        (choice) => {
          member = choice ? suite.members[choice - 1].info.id : null;
        },
      ),
      tokens.element,
      temperature.element,
      seed.element,
    ],
    calls: () => {
      const body = {
        tokens: tokens.read(),
        temperature: temperature.read(),
        seed: seed.read(),
        member,
      };
      return [{name: 'generate', body}];
    },
    show: ([{tokens}]: {tokens: Token[]}[], text) =>
      continued('Continued', text, tokens, 'New tokens'),
  });
}
