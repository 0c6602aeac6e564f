// One floating line for tokens and charts, at the pointer or the focus.
import {type Child, fill, h} from './dom.ts';

let box: HTMLElement | null = null;

function element(): HTMLElement {
  if (!box) {
    box = h('div', {
      class: 'tooltip',
      role: 'tooltip',
      id: 'tooltip',
      hidden: true,
    });
    document.body.append(box);
  }
  return box;
}

/** Shows the content above (or below) a rectangle of the window. */
export function showTip(
  at: {left: number; top: number; right: number; bottom: number},
  ...content: Child[]
): void {
  const tip = element();
  fill(tip, content);
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  const middle = (at.left + at.right) / 2 - width / 2;
  const left = Math.max(6, Math.min(middle, innerWidth - width - 6));
  const above = at.top - height - 8;
  const top = above > 4 ? above : at.bottom + 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}

export function hideTip(): void {
  if (box) box.hidden = true;
}

export function tipRows(rows: [string, Child][]): HTMLElement {
  return h(
    'dl',
    {class: 'tip-rows'},
    rows.flatMap(([name, value]) => [
      h('dt', null, name),
      h('dd', null, value),
    ]),
  );
}
