// Continues a text while latents are edited, beside the plain continuation.
import type {Context} from '../context.ts';
import type {Member, MemberTable} from '../data/suite.ts';
import {number} from '../format.ts';
import {button, h} from '../ui/dom.ts';
import {chooser} from '../views/groups.ts';
import type {Token} from './client.ts';
import {continued, numberField} from './generate.ts';
import {chosenMember, memberField, tabForm} from './tab.ts';

interface Steered {
  plain: Token[];
  edited: Token[];
}

interface Slider {
  latent: number;
  op: number;
  strength: number;
}

const OPS: [string, string][] = [
  ['add', 'add'],
  ['set', 'set'],
  ['ablate', 'ablate'],
];
// Strengths are in units of the latent's largest activation.
const MIN = -2;
const MAX = 4;

// Kept from visit to visit, as the text is.
const sliders: Slider[] = [{latent: 0, op: 0, strength: 1}];

/** The activation that a strength of 1 means; 1 for a latent that never fired. */
function unit(table: MemberTable | null, latent: number): number {
  return table?.largest[latent] || 1;
}

export function steerTab(context: Context): HTMLElement {
  const {live} = context.suite.index;
  const limit = live?.max_new_tokens ?? 64;
  const tokens = numberField('Tokens', Math.min(20, limit), limit, '1');
  const temperature = numberField('Temperature', 0, 10, 'any');
  const seed = numberField('Seed', 0, 2 ** 31 - 1, '1');
  const list = h('div', {class: 'sliders'});
  let table: MemberTable | null = null;

  const row = (slider: Slider, place: number): HTMLElement => {
    const name = place + 1;
    const value = h('output', {class: 'num'});
    const latent = h('input', {
      type: 'number',
      value: slider.latent,
      min: 0,
      max: chosenMember(context).width - 1,
      step: 1,
      class: 'short',
      'aria-label': `Latent ${name}`,
    });
    const strength = h('input', {
      type: 'range',
      value: slider.strength,
      min: MIN,
      max: MAX,
      step: 0.1,
      'aria-label': `Strength ${name}`,
    });
    const show = () => {
      const raw = slider.strength * unit(table, slider.latent);
      value.textContent = `${number(slider.strength)} (${number(raw)})`;
    };
    latent.addEventListener('input', () => {
      slider.latent = Number(latent.value);
      show();
    });
    strength.addEventListener('input', () => {
      slider.strength = Number(strength.value);
      show();
    });
    show();
    return h(
      'div',
      {class: 'controls'},
      h('label', {class: 'choose'}, h('span', null, 'Latent'), latent),
      chooser(
        `Change ${name}`,
        OPS.map(([, title]) => title),
        slider.op,
        (choice) => (slider.op = choice),
      ),
      h('label', {class: 'choose'}, h('span', null, 'Strength'), strength),
      value,
      sliders.length > 1
        ? button('Remove', () => {
            sliders.splice(place, 1);
            draw();
          })
        : null,
    );
  };
  const more = button('Add a latent', () => {
    sliders.push({latent: 0, op: 0, strength: 1});
    draw();
  });
  const draw = () => {
    list.replaceChildren(...sliders.map(row));
    more.disabled = sliders.length >= (live?.max_edits ?? 4);
  };
  const open = async (member: Member) => {
    const read = await member.table();
    if (!context.alive() || member !== chosenMember(context)) return;
    table = read;
    draw();
  };
  const choose = memberField(context, () => {
    table = null;
    draw();
    void open(chosenMember(context));
  });
  draw();
  void open(chosenMember(context));

  return tabForm(context, 'steer', {
    help: 'Continues your text without and with edits of latents. A strength of 1 is the largest activation of the latent. The error of the SAE is kept.',
    fields: [
      choose,
      tokens.element,
      temperature.element,
      seed.element,
      list,
      more,
    ],
    calls: () => {
      const known = table;
      if (!known) throw new Error('The member is still loading: try again.');
      const edits = sliders.map(({latent, op, strength}) => ({
        latent,
        op: OPS[op][0],
        value: strength * unit(known, latent),
      }));
      const body = {
        member: chosenMember(context).info.id,
        edits,
        tokens: tokens.read(),
        temperature: temperature.read(),
        seed: seed.read(),
      };
      return [{name: 'steer', body}];
    },
    show: ([{plain, edited}]: Steered[], text) =>
      h(
        'div',
        {class: 'panes two'},
        continued('Without edits', text, plain, 'New tokens without edits'),
        continued('With edits', text, edited, 'New tokens with edits'),
      ),
  });
}
