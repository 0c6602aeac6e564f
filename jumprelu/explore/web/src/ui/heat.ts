// Text as tokens with heat; hover or arrow keys show each token's numbers.
import {fillPiece, visible} from './pieces.ts';
import {h} from './dom.ts';
import {hideTip, showTip, tipRows} from './tooltip.ts';

export interface HeatToken {
  piece: string;
  /** From 0 (no heat) to 1. */
  heat: number;
  /** Lines of the tooltip, made when it is shown. */
  tip: () => [string, Node | string][];
  /** The token that the example is about. */
  marked?: boolean;
  onClick?: () => void;
}

const infos = new WeakMap<Element, HeatToken>();

/** Heat of an activation; the weakest one is still visible. */
export function heatOf(value: number, largest: number): number {
  if (!(value > 0) || !(largest > 0)) return 0;
  return 0.1 + 0.9 * Math.min(1, value / largest);
}

function tokenElement(token: HeatToken, breaks: boolean): HTMLElement {
  const element = h('span', {class: token.marked ? 'tok marked' : 'tok'});
  if (token.heat > 0) {
    element.classList.add('hot');
    element.style.setProperty(
      '--heat-share',
      `${(token.heat * 100).toFixed(1)}%`,
    );
  }
  fillPiece(element, token.piece, {breaks});
  infos.set(element, token);
  return element;
}

function show(element: Element): void {
  const token = infos.get(element);
  if (!token) return;
  const shown = visible(token.piece);
  const text = shown.length > 80 ? `${shown.slice(0, 80)}…` : shown;
  const name = h('code', {class: 'tip-token'}, text === '' ? '∅' : text);
  const box = element.getClientRects()[0];
  if (box) showTip(box, name, tipRows(token.tip()));
}

export interface HeatOptions {
  breaks?: boolean;
  label: string;
  class?: string;
  /** Called with the token that has the focus of the arrow keys. */
  onFocus?: (index: number) => void;
}

/** A line of tokens: one stop of the Tab key, in which arrow keys move. */
export function heatText(
  tokens: HeatToken[],
  options: HeatOptions,
): HTMLElement {
  const elements = tokens.map((token) =>
    tokenElement(token, options.breaks ?? false),
  );
  const line = h(
    'div',
    {
      class: `heat-text ${options.class ?? ''}`,
      tabindex: 0,
      role: 'group',
      'aria-label': options.label,
      dir: 'ltr',
    },
    elements,
  );
  let current = Math.max(
    0,
    tokens.findIndex((token) => token.marked),
  );
  const focus = (next: number) => {
    elements[current]?.classList.remove('current');
    current = Math.max(0, Math.min(elements.length - 1, next));
    elements[current]?.classList.add('current');
    if (elements[current]) show(elements[current]);
    options.onFocus?.(current);
  };
  line.addEventListener('mouseover', (event) => {
    const token = (event.target as Element).closest('.tok');
    if (token) show(token);
    else hideTip();
  });
  line.addEventListener('mouseleave', hideTip);
  line.addEventListener('click', (event) => {
    const token = (event.target as Element).closest('.tok');
    const index = elements.indexOf(token as HTMLElement);
    if (index >= 0) {
      focus(index);
      tokens[index].onClick?.();
    }
  });
  line.addEventListener('focus', () => {
    if (line.matches(':focus-visible')) focus(current);
  });
  line.addEventListener('blur', () => {
    elements[current]?.classList.remove('current');
    hideTip();
  });
  line.addEventListener('keydown', (event) => {
    const steps: Record<string, number> = {ArrowRight: 1, ArrowLeft: -1};
    const step = steps[event.key];
    if (step === undefined) {
      if (event.key === 'Enter') tokens[current]?.onClick?.();
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    focus(current + step);
  });
  return line;
}
