// The form that all live tabs share: a text, fields, a button, one line.
import type {Context} from '../context.ts';
import type {Member} from '../data/suite.ts';
import {button, type Child, fill, h} from '../ui/dom.ts';
import {chooser} from '../views/groups.ts';
import {getStatus, post} from './client.ts';

/** What a reader has entered; kept from tab to tab. */
export const draft = {
  text: 'with open(path) as f:\n    return f.',
  member: null as Member | null,
};

export interface Call {
  name: string;
  body: Record<string, unknown>;
}

/** What was asked, with its answers. */
interface Kept {
  text: string;
  body: Record<string, unknown>;
  answers: never[];
}

export interface Tab {
  /** Fields besides the text. */
  fields: Child;
  help: string;
  calls: () => Call[];
  /** Shows the answers to the text and to the body of the first call. */
  show: (answers: never[], text: string, body: Call['body']) => Child;
}

// The last answers of each tab, for the way back to it.
const kept = new Map<string, Kept>();

export function memberField(
  context: Context,
  onChange?: () => void,
): HTMLElement {
  const {members} = context.suite;
  draft.member ??= members[0];
  const names = members.map((member) => member.link);
  return chooser('Member', names, draft.member.number, (choice) => {
    draft.member = members[choice];
    onChange?.();
  });
}

export function chosenMember(context: Context): Member {
  return draft.member ?? context.suite.members[0];
}

/** The member of an earlier call. */
export function askedMember(context: Context, body: Call['body']): Member {
  return context.suite.member(String(body.member)) ?? chosenMember(context);
}

/** The tab's form and output. */
export function tabForm(context: Context, name: string, tab: Tab): HTMLElement {
  const text = h('textarea', {
    rows: 4,
    class: 'live-text',
    'aria-label': 'Text',
    spellcheck: 'false',
    maxlength: 100_000,
  });
  text.value = draft.text;
  const line = h('p', {class: 'note live-line', role: 'status'});
  const output = h('div', {class: 'live-output'});
  const say = (message: string, wrong = false) => {
    line.textContent = message;
    line.classList.toggle('problem', wrong);
  };
  let abort: AbortController | null = null;
  const run = async () => {
    if (go.disabled) return;
    draft.text = text.value;
    abort?.abort();
    abort = new AbortController();
    const {signal} = abort;
    say('Running…');
    go.disabled = true;
    try {
      const answers: never[] = [];
      const calls = tab.calls();
      const asked = draft.text;
      for (const call of calls) {
        answers.push(
          await post(call.name, {text: asked, ...call.body}, signal),
        );
      }
      if (!context.alive()) return;
      const {body} = calls[0];
      kept.set(name, {text: asked, body, answers});
      fill(output, tab.show(answers, asked, body));
      say('');
    } catch (error) {
      if (signal.aborted) return;
      say((error as Error).message, true);
    } finally {
      go.disabled = false;
    }
  };
  const go = button('Run', () => void run(), {
    class: 'primary',
    title: 'Ctrl+Enter',
  });
  text.addEventListener('input', () => (draft.text = text.value));
  text.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void run();
  });
  context.cleanup(() => abort?.abort());
  void waitUntilReady(context, go, say);
  const before = kept.get(name);
  if (before) fill(output, tab.show(before.answers, before.text, before.body));
  return h(
    'div',
    {class: 'live'},
    h('p', {class: 'note'}, tab.help),
    text,
    h('div', {class: 'controls'}, tab.fields, go, line),
    output,
  );
}

async function waitUntilReady(
  context: Context,
  go: HTMLButtonElement,
  say: (message: string, wrong?: boolean) => void,
): Promise<void> {
  const stop = new AbortController();
  context.cleanup(() => stop.abort());
  let waited = false;
  while (context.alive()) {
    try {
      const status = await getStatus(stop.signal);
      if (!context.alive()) return;
      if (status.ready) {
        go.disabled = false;
        if (waited) say('');
        return;
      }
      say(`The model is not ready yet: ${status.message}…`);
    } catch (error) {
      if (stop.signal.aborted) return;
      say((error as Error).message, true);
    }
    waited = true;
    go.disabled = true;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
