// The controls above the table of latents: presets and a text.
import type {MemberTable} from '../data/suite.ts';
import {button, h} from '../ui/dom.ts';

const DENSE = 0.1;
const FEW = 10;

type Keep = (table: MemberTable, row: number) => boolean;

export const LABELLED = 'Labelled';

const PRESETS: Record<string, [help: string, keep: Keep]> = {
  All: ['All latents', () => true],
  Dead: ['Latents that never fired on this text', (t, i) => t.count[i] === 0],
  Dense: [
    'Latents that fire on over 10% of tokens',
    (t, i) => t.frequency[i] > DENSE,
  ],
  '< 10 examples': [
    'Latents with fewer than 10 examples',
    (t, i) => t.examples[i] < FEW,
  ],
  [LABELLED]: ['Latents with a label or note of yours', () => true],
};

/** Whether a preset keeps a latent; labels are left to the caller. */
export function inPreset(
  preset: string,
  table: MemberTable,
  row: number,
): boolean {
  return PRESETS[preset]?.[1](table, row) ?? true;
}

export interface Filters {
  element: HTMLElement;
  preset: () => string;
  text: () => string;
  set: (preset: string, text: string) => void;
}

/** `onPreset` and `onWords` get undefined for no filter. */
export function latentFilters(
  onPreset: (preset: string | undefined) => void,
  onWords: (words: string[] | undefined) => void,
): Filters {
  let preset = 'All';
  const choose = (name: string) => {
    preset = name;
    for (const each of buttons) {
      each.setAttribute('aria-pressed', String(each.dataset.preset === name));
    }
    onPreset(name === 'All' ? undefined : name);
  };
  const buttons = Object.entries(PRESETS).map(([name, [title]]) =>
    button(name, () => choose(name), {title, 'data-preset': name}),
  );
  const text = h('input', {
    type: 'search',
    class: 'filter-text',
    placeholder: 'Filter by token or label',
    'aria-label': 'Filter by token or label',
    spellcheck: 'false',
  });
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    onWords(words.length ? words : undefined);
  };
  text.addEventListener('input', filter);
  return {
    element: h(
      'div',
      {class: 'filters'},
      h(
        'div',
        {class: 'segmented', role: 'group', 'aria-label': 'Latents shown'},
        buttons,
      ),
      text,
    ),
    preset: () => preset,
    text: () => text.value,
    set(name, value) {
      text.value = value;
      filter();
      choose(name);
    },
  };
}
