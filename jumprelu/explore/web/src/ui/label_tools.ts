// Export and import of labels and notes.
import type {Labels, Merged} from '../labels.ts';
import {plural} from '../format.ts';
import {storageBlocked} from '../storage.ts';
import {button, h} from './dom.ts';

function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  h('a', {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function report(name: string, merged: Merged): string {
  const {added, newer, kept, same, otherRelease} = merged;
  const total = plural(added + newer + kept + same, 'entry').replace(
    'entrys',
    'entries',
  );
  const parts = [
    `${added} new`,
    `${newer} newer`,
    `${kept} older (not used)`,
    `${same} equal`,
  ];
  const other = otherRelease ? ' The file is of another release.' : '';
  return `${name}: ${total}; ${parts.join(', ')}.${other}`;
}

/** The buttons, and a line with the result. `onChange` follows an import. */
export function labelTools(labels: Labels, onChange: () => void): HTMLElement {
  const status = h('p', {class: 'note', role: 'status'});
  const say = (text: string, wrong = false) => {
    status.textContent = text;
    status.classList.toggle('problem', wrong);
  };
  const file = h('input', {
    type: 'file',
    accept: '.json,application/json',
    class: 'visually-hidden',
    tabindex: -1,
    'aria-label': 'File of labels',
  });
  file.addEventListener('change', async () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    try {
      const merged = labels.merge(await chosen.text());
      say(report(chosen.name, merged));
      onChange();
    } catch (error) {
      say(`${chosen.name} ${(error as Error).message}.`, true);
    }
    file.value = '';
  });
  const write = () => {
    const count = labels.all().length;
    if (count === 0) return say('There are no labels or notes yet.');
    download('jumprelu_labels.json', labels.exported());
    say(`${plural(count, 'latent')} with a label or note.`);
  };
  if (storageBlocked()) {
    say(
      'This browser stores nothing for this page: export before you close it.',
      true,
    );
  }
  return h(
    'div',
    {class: 'label-tools'},
    button('Export labels', write),
    button('Import labels', () => file.click()),
    file,
    status,
  );
}
