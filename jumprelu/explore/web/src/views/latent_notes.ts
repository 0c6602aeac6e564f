// Label and note of a latent.
import type {Context} from '../context.ts';
import {storageBlocked} from '../storage.ts';
import {card, h} from '../ui/dom.ts';
import {visible} from '../ui/pieces.ts';
import {labelTools} from '../ui/label_tools.ts';
import type {Shown} from './latent.ts';

export function notesCard(
  context: Context,
  {member, latent}: Shown,
): HTMLElement {
  const {labels} = context;
  const {id} = member.info;
  const label = h('input', {
    id: 'label',
    type: 'text',
    maxlength: 200,
    placeholder: 'What it seems to mean',
    autocomplete: 'off',
  });
  const note = h('textarea', {id: 'note', rows: 3, maxlength: 20_000});
  const status = h('p', {class: 'note', role: 'status'});
  const heading = () => {
    const place = document.getElementById('shown-label');
    if (place) place.textContent = visible(label.value.trim());
  };
  label.addEventListener('input', heading);
  const read = () => {
    const entry = labels.get(id, latent);
    label.value = entry?.label ?? '';
    note.value = entry?.note ?? '';
    const time =
      entry && (entry.label || entry.note) ? new Date(entry.time) : null;
    status.textContent = time ? `Written ${time.toLocaleString()}.` : '';
    heading();
  };
  let timer = 0;
  const save = () => {
    clearTimeout(timer);
    timer = 0;
    labels.set(id, latent, label.value.trim(), note.value.trim());
    status.textContent = storageBlocked()
      ? 'Kept until this page is closed: this browser stores nothing for it.'
      : 'Kept in this browser.';
  };
  const soon = () => {
    clearTimeout(timer);
    timer = window.setTimeout(save, 250);
  };
  for (const field of [label, note]) {
    field.addEventListener('input', soon);
    field.addEventListener('change', save);
  }
  context.cleanup(() => timer && save());
  read();
  return card(
    'Your label and note',
    null,
    {class: 'notes'},
    h('label', null, h('span', null, 'Label'), label),
    h('label', null, h('span', null, 'Note'), note),
    status,
    labelTools(labels, read),
  );
}
