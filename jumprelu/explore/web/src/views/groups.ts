// Members that belong to one curve: equal site, layer, width and variant.
import type {Member} from '../data/suite.ts';
import {h} from '../ui/dom.ts';

export interface Group {
  name: string;
  members: Member[];
}

export function groups(members: Member[]): Group[] {
  const byName = new Map<string, Member[]>();
  for (const member of members) {
    const {site, layer, width, variant} = member.info;
    const key = JSON.stringify([site, layer, width, variant]);
    byName.set(key, [...(byName.get(key) ?? []), member]);
  }
  const infos = members.map((member) => member.info);
  const differs = (key: 'layer' | 'width' | 'variant') =>
    new Set(infos.map((info) => info[key])).size > 1;
  return [...byName.values()].map((list) => {
    const {site, layer, width, variant} = list[0].info;
    const parts = [site];
    if (differs('layer')) parts.push(`layer ${layer}`);
    if (differs('width')) parts.push(`${width.toLocaleString('en-US')} wide`);
    if (differs('variant')) parts.push(variant);
    list.sort((a, b) => l0(a) - l0(b));
    return {name: parts.join(', '), members: list};
  });
}

export function l0(member: Member): number {
  const value = member.info.results.l0;
  return typeof value === 'number' ? value : Number.NaN;
}

/** A select field over the names of groups. */
export function chooser(
  label: string,
  names: string[],
  chosen: number,
  onChange: (number: number) => void,
): HTMLElement {
  const select = h(
    'select',
    {on: {change: () => onChange(select.selectedIndex)}},
    names.map((name, i) =>
      h('option', {value: i, selected: i === chosen}, name),
    ),
  );
  return h('label', {class: 'choose'}, h('span', null, label), select);
}

/** A row of buttons for a few choices. */
export function segmented(
  label: string,
  names: string[],
  chosen: number,
  onChange: (number: number) => void,
): HTMLElement {
  const buttons = names.map((name, i) =>
    h(
      'button',
      {
        type: 'button',
        'aria-pressed': String(i === chosen),
        on: {
          click: () => {
            buttons.forEach((b, j) =>
              b.setAttribute('aria-pressed', String(i === j)),
            );
            onChange(i);
          },
        },
      },
      name,
    ),
  );
  return h(
    'div',
    {class: 'segmented', role: 'group', 'aria-label': label},
    buttons,
  );
}

/** Names with the colours of their lines. */
export function legend(names: string[]): HTMLElement {
  return h(
    'ul',
    {class: 'legend'},
    names.map((name, i) =>
      h('li', null, h('i', {class: `swatch series-${i % 8}`}), name),
    ),
  );
}
