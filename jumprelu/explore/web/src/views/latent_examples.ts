// Examples: the strongest, a few of each band, and text without activation.
import type {Context} from '../context.ts';
import {type Example, SILENT, STRONGEST} from '../data/latent.ts';
import {integer, number} from '../format.ts';
import {settings, writeSettings} from '../settings.ts';
import {card, fill, h} from '../ui/dom.ts';
import {exampleLine} from '../ui/example.ts';
import type {Shown} from './latent.ts';
import {segmented} from './groups.ts';

const NARROW = 7;

interface Tab {
  name: string;
  note: string;
  examples: Example[];
}

function tabs({data}: Shown): Tab[] {
  const all = data.examples;
  const edges = data.bandEdges;
  const kinds = [...new Set(all.map((each) => each.kind))];
  const bands = kinds.filter((kind) => kind >= 0).sort((a, b) => b - a);
  const of = (kind: number) => all.filter((each) => each.kind === kind);
  const last = edges.length - 2;
  const range = (band: number) => {
    if (band > last || last < 0) return '';
    if (band === last) return `above ${number(edges[band])}`;
    if (band === 0) return `below ${number(edges[1])}`;
    return `${number(edges[band])} to ${number(edges[band + 1])}`;
  };
  return [
    {
      name: 'Strongest',
      note: 'The strongest activations, at most one from each document.',
      examples: of(STRONGEST),
    },
    ...bands.map((band) => ({
      name: `Band ${band + 1}`,
      note: `Drawn at random from activations ${range(band)}; bands have equally many.`,
      examples: of(band),
    })),
    {
      name: 'Silent',
      note: 'Drawn at random from text in which it does not fire.',
      examples: of(SILENT),
    },
  ].filter((tab, i) => i === 0 || tab.examples.length > 0);
}

function rows(
  context: Context,
  shown: Shown,
  examples: Example[],
): HTMLElement {
  const largest = shown.table.largest[shown.latent];
  const options = {
    breaks: settings.breaks,
    reach: settings.narrow ? NARROW : Infinity,
  };
  if (examples.length === 0) {
    return h(
      'p',
      {class: 'note'},
      'It never fired on this text, so there are none.',
    );
  }
  return h(
    'ol',
    {class: 'examples'},
    examples.map((example) =>
      h(
        'li',
        null,
        h(
          'span',
          {class: 'value'},
          example.value > 0 ? number(example.value) : '0',
        ),
        exampleLine(context.suite, example, largest, options),
        h(
          'span',
          {
            class: 'where',
            title: `The document starts at position ${integer(example.document)} of the cached text; the token is its number ${integer(example.offset)}.`,
          },
          `${example.document}+${example.offset}`,
        ),
      ),
    ),
  );
}

export function examplesCard(context: Context, shown: Shown): HTMLElement {
  const list = tabs(shown);
  const panel = h('div', {role: 'tabpanel', id: 'examples', tabindex: -1});
  const note = h('p', {class: 'note'});
  let current = 0;
  const draw = () => {
    note.textContent = list[current].note;
    panel.setAttribute('aria-label', list[current].name);
    fill(panel, rows(context, shown, list[current].examples));
  };
  const choose = (next: number, focus: boolean) => {
    current = (next + list.length) % list.length;
    buttons.forEach((each, i) => {
      each.setAttribute('aria-selected', String(i === current));
      each.tabIndex = i === current ? 0 : -1;
    });
    if (focus) buttons[current].focus();
    draw();
  };
  const buttons = list.map((tab, i) =>
    h(
      'button',
      {
        type: 'button',
        role: 'tab',
        'aria-controls': 'examples',
        on: {click: () => choose(i, false)},
      },
      tab.name,
      h('small', null, ` ${tab.examples.length}`),
    ),
  );
  const tablist = h(
    'div',
    {role: 'tablist', class: 'tabs', 'aria-label': 'Examples'},
    buttons,
  );
  tablist.addEventListener('keydown', (event) => {
    const step =
      event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    choose(current + step, true);
  });
  choose(0, false);
  return card(
    'Examples',
    null,
    {class: 'examples-card'},
    tablist,
    h(
      'div',
      {class: 'controls'},
      note,
      segmented(
        'Context',
        ['Full', 'Near'],
        settings.narrow ? 1 : 0,
        (choice) => {
          settings.narrow = choice === 1;
          writeSettings();
          draw();
        },
      ),
      segmented(
        'Newlines',
        ['↵', 'Lines'],
        settings.breaks ? 1 : 0,
        (choice) => {
          settings.breaks = choice === 1;
          writeSettings();
          draw();
        },
      ),
    ),
    panel,
    h(
      'p',
      {
        class: 'note ramp-line',
        hidden: !(shown.table.largest[shown.latent] > 0),
      },
      h('span', {class: 'ramp', 'aria-hidden': 'true'}),
      ` 0 to ${number(shown.table.largest[shown.latent])}. The token of the example is underlined; point at a token, or use Tab and arrow keys, for its numbers.`,
    ),
  );
}
