// The next token with and without a member's reconstruction.
import type {Context} from '../context.ts';
import {number, signed} from '../format.ts';
import {card, type Child, h} from '../ui/dom.ts';
import {fact} from '../views/facts.ts';
import type {NextToken} from './client.ts';
import {nextTable} from './parts.ts';
import {chosenMember, memberField, tabForm} from './tab.ts';

interface Logits {
  clean: NextToken[];
  spliced: NextToken[];
  loss: {clean: number | null; spliced: number | null};
}

function show({clean, spliced, loss}: Logits): Child {
  const change =
    loss.clean !== null && loss.spliced !== null
      ? loss.spliced - loss.clean
      : null;
  return [
    h(
      'dl',
      {class: 'facts-strip'},
      fact(
        'Loss without the SAE',
        number(loss.clean),
        'nats per token',
        'Mean over your text',
      ),
      fact(
        'Loss with the SAE',
        number(loss.spliced),
        'nats per token',
        'Mean over your text',
      ),
      change === null
        ? null
        : fact(
            'Change',
            signed(change),
            'nats per token',
            'With minus without',
          ),
    ),
    h(
      'div',
      {class: 'panes two'},
      card(
        'Without the SAE',
        'The most probable next tokens.',
        null,
        nextTable('Next tokens without the SAE', clean),
      ),
      card(
        'With the SAE',
        'In brackets the change of the logit.',
        null,
        nextTable('Next tokens with the SAE', spliced, clean),
      ),
    ),
  ];
}

export function logitsTab(context: Context): HTMLElement {
  const keep = h('input', {type: 'checkbox'});
  return tabForm(context, 'logits', {
    help: 'The next token, without an SAE and with a member’s reconstruction in place of the activations.',
    fields: [
      memberField(context),
      h(
        'label',
        {
          class: 'check',
          title:
            'The reconstruction plus its error is the activation itself, so nothing changes',
        },
        keep,
        'Keep the error',
      ),
    ],
    calls: () => [
      {
        name: 'logits',
        body: {member: chosenMember(context).info.id, keep_error: keep.checked},
      },
    ],
    show: ([logits]: Logits[]) => show(logits),
  });
}
