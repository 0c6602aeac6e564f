// Keys of the whole page. Views add theirs with `onKey`.
import {navigate} from './router.ts';
import type {Suite} from './data/suite.ts';
import {toggleTheme} from './theme.ts';
import {toggleHelp} from './ui/help.ts';

type Handler = (key: string) => boolean;

const handlers = new Set<Handler>();

/** The handler returns whether it has used the key; returns how to stop. */
export function onKey(handler: Handler): () => void {
  handlers.add(handler);
  return () => handlers.delete(handler);
}

function typing(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

export function startKeys(suite: Suite): void {
  let prefix = 0;
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape') {
      if (typing(event.target)) (event.target as HTMLElement).blur();
      return;
    }
    if (event.defaultPrevented || typing(event.target)) return;
    if (document.querySelector('dialog[open]') && event.key !== '?') return;
    const second = Date.now() - prefix < 1200;
    prefix = 0;
    if (second && goTo(suite, event.key)) {
      event.preventDefault();
      return;
    }
    if (event.key === 'g') prefix = Date.now();
    else if (event.key === '/') document.getElementById('search')?.focus();
    else if (event.key === 't') toggleTheme();
    else if (event.key === '?') toggleHelp();
    else if (![...handlers].some((handler) => handler(event.key))) return;
    event.preventDefault();
  });
}

function goTo(suite: Suite, key: string): boolean {
  if (key === 'o') navigate('#');
  else if (key === 's') document.getElementById('search')?.focus();
  else if (key === 'x' && suite.index.texts) navigate('#texts');
  else if (key === 'l' && suite.index.live) navigate('#live');
  else return false;
  return true;
}
