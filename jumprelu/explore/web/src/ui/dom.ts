// Builds elements. Text enters only as text nodes, styles only through CSSOM.

export type Child = Node | string | number | null | undefined | false | Child[];

type Listener = (event: never) => void;

export interface Props {
  class?: string;
  style?: Partial<Record<string, string>>;
  on?: Record<string, Listener>;
  [attribute: string]: unknown;
}

function append(parent: Element, child: Child): void {
  if (child === null || child === undefined || child === false) return;
  if (Array.isArray(child)) for (const each of child) append(parent, each);
  else parent.append(child instanceof Node ? child : String(child));
}

function setProps(
  element: Element & {style: CSSStyleDeclaration},
  props: Props,
) {
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'on') {
      for (const [name, listener] of Object.entries(value as object)) {
        element.addEventListener(name, listener);
      }
    } else if (key === 'style') {
      for (const [name, text] of Object.entries(value as object)) {
        element.style.setProperty(name, text as string);
      }
    } else {
      element.setAttribute(key, value === true ? '' : String(value));
    }
  }
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props | null = null,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (props) setProps(element, props);
  append(element, children);
  return element;
}

export function svg(
  tag: string,
  props: Props | null = null,
  ...children: Child[]
): SVGElement {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  if (props) setProps(element as SVGElement, props);
  append(element, children);
  return element as SVGElement;
}

export function button(
  label: Child,
  onclick: (event: MouseEvent) => void,
  props: Props = {},
): HTMLButtonElement {
  return h('button', {type: 'button', ...props, on: {click: onclick}}, label);
}

export function fill(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/** A box with a heading, as most parts of a view are. */
export function card(
  title: Child,
  note: Child,
  props: Props | null,
  ...children: Child[]
): HTMLElement {
  return h(
    'section',
    {...props, class: `card ${props?.class ?? ''}`},
    h(
      'header',
      {class: 'card-head'},
      h('h2', null, title),
      note ? h('p', {class: 'note'}, note) : null,
    ),
    ...children,
  );
}
