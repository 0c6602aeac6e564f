// The overlay with the keys.
import {button, h} from './dom.ts';

const KEYS: [string[], string][] = [
  [['/'], 'Search tokens and labels'],
  [['←', '→'], 'Previous and next latent; in an example, the tokens'],
  [['k', 'j'], 'Previous and next latent'],
  [['u'], 'From a latent to its member'],
  [['l'], 'Label this latent'],
  [['r'], 'A random latent of this member'],
  [['g', 'o'], 'Overview'],
  [['g', 'x'], 'Texts'],
  [['g', 'l'], 'Try a text, if the page is served with a model'],
  [['t'], 'Light or dark'],
  [['?'], 'This help'],
  [['Esc'], 'Leave a field, or close this'],
];

let dialog: HTMLDialogElement | null = null;

export function toggleHelp(): void {
  if (dialog?.open) {
    dialog.close();
    return;
  }
  if (!dialog) {
    dialog = h('dialog', {class: 'help', 'aria-labelledby': 'help-title'});
    const close = button('Close', () => dialog?.close(), {class: 'plain'});
    const rows = KEYS.map(([keys, text]) =>
      h(
        'tr',
        null,
        h(
          'td',
          null,
          keys.map((key) => [h('kbd', null, key), ' ']),
        ),
        h('td', null, text),
      ),
    );
    dialog.append(
      h('header', null, h('h2', {id: 'help-title'}, 'Keys'), close),
      h(
        'table',
        null,
        h('caption', {class: 'visually-hidden'}, 'Keys and what they do'),
        h('tbody', null, rows),
      ),
      h(
        'p',
        {class: 'note'},
        'Every view has an address of its own: copy it from the address bar. ' +
          'Labels and notes stay in this browser until you export them.',
      ),
    );
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog?.close();
    });
    document.body.append(dialog);
  }
  dialog.showModal();
}
