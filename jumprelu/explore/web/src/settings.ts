// How a reader likes the page; kept in this browser for all pages.
import {readStored, writeStored} from './storage.ts';

export interface Settings {
  /** Whether examples show few tokens on each side. */
  narrow: boolean;
  /** Whether newlines of examples break the line. */
  breaks: boolean;
}

const KEY = 'jumprelu:settings';

export const settings: Settings = {narrow: false, breaks: false};

export function readSettings(): void {
  try {
    const stored = JSON.parse(readStored(KEY) ?? '{}') as Partial<Settings>;
    settings.narrow = stored.narrow === true;
    settings.breaks = stored.breaks === true;
  } catch {
    // The defaults stay.
  }
}

export function writeSettings(): void {
  writeStored(KEY, JSON.stringify(settings));
}
