// Light or dark, by the system until the reader chooses.
import {readStored, writeStored} from './storage.ts';

const KEY = 'jumprelu:theme';
const dark = window.matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();

export function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : dark.matches;
}

function announce(): void {
  for (const listener of listeners) listener();
}

export function startTheme(): void {
  const stored = readStored(KEY);
  if (stored === 'dark' || stored === 'light') {
    document.documentElement.dataset.theme = stored;
  }
  dark.addEventListener('change', announce);
}

export function toggleTheme(): void {
  const next = isDark() ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  writeStored(KEY, next);
  announce();
}

/** Calls the listener after each change; returns how to stop that. */
export function onTheme(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The value of a custom property of the current theme. */
export function color(name: string): string {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue(`--${name}`).trim();
}
