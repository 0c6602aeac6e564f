// Numbers with their names, units and explanations.
import {type Child, h} from '../ui/dom.ts';

export function fact(
  name: string,
  value: Child,
  unit: Child,
  help: string,
): HTMLElement {
  return h(
    'div',
    {class: 'fact', title: help},
    h('dt', null, name),
    h('dd', null, value, unit ? h('small', null, ' ', unit) : null),
  );
}
