// Labels and notes of latents, kept in this browser, exported and imported.
import {readStored, writeStored} from './storage.ts';

export interface Entry {
  label: string;
  note: string;
  /** ISO 8601, UTC. */
  time: string;
}

interface Exported extends Entry {
  member: string;
  latent: number;
}

export interface Merged {
  added: number;
  newer: number;
  kept: number;
  same: number;
  otherRelease: boolean;
}

const KIND = 'jumprelu-labels';
const LONGEST = 20_000;

/** Why a value is not an entry; empty if it is one. */
function fault(value: unknown): string {
  if (typeof value !== 'object' || value === null) return 'it is not an object';
  const {member, latent, label, note, time} = value as Exported;
  if (typeof member !== 'string') return '"member" must be a text';
  if (!Number.isInteger(latent) || latent < 0) {
    return '"latent" must be a number from 0';
  }
  for (const [name, text] of [
    ['label', label],
    ['note', note],
  ]) {
    if (typeof text !== 'string') return `"${name}" must be a text`;
    if (text.length > LONGEST) {
      return `"${name}" is longer than ${LONGEST.toLocaleString('en-US')} characters`;
    }
  }
  if (typeof time !== 'string' || Number.isNaN(Date.parse(time))) {
    return '"time" must be a date';
  }
  return '';
}

function isEntry(value: unknown): value is Exported {
  return fault(value) === '';
}

export class Labels {
  private entries = new Map<string, Entry>();
  private readonly key: string;

  constructor(
    private readonly release: string,
    private readonly title: string,
  ) {
    this.key = `jumprelu:labels:${release}`;
    this.read();
    // Another tab of the same page has written.
    window.addEventListener('storage', (event) => {
      if (event.key === this.key) this.read();
    });
  }

  private read(): void {
    const text = readStored(this.key);
    if (!text) return;
    try {
      const stored = JSON.parse(text) as Exported[];
      this.entries = new Map(
        stored.filter(isEntry).map((e) => [`${e.member}/${e.latent}`, e]),
      );
    } catch {
      // An unreadable entry is replaced when the next label is written.
    }
  }

  get size(): number {
    return this.entries.size;
  }

  get(member: string, latent: number): Entry | undefined {
    return this.entries.get(`${member}/${latent}`);
  }

  set(member: string, latent: number, label: string, note: string): void {
    // Labels that another tab has written since then stay.
    this.read();
    const key = `${member}/${latent}`;
    const old = this.entries.get(key);
    if ((old?.label ?? '') === label && (old?.note ?? '') === note) return;
    this.entries.set(key, {label, note, time: new Date().toISOString()});
    this.write();
  }

  /** All entries that are not empty. */
  all(): Exported[] {
    return this.list().filter((entry) => entry.label || entry.note);
  }

  private list(): Exported[] {
    return [...this.entries].map(([key, {label, note, time}]) => {
      const slash = key.lastIndexOf('/');
      const member = key.slice(0, slash);
      const latent = Number(key.slice(slash + 1));
      return {member, latent, label, note, time};
    });
  }

  private write(): void {
    // Emptied entries are kept, so that an import of older ones does not undo
    // the deletion.
    writeStored(this.key, JSON.stringify(this.list()));
  }

  exported(): string {
    const labels = this.list().sort(
      (a, b) => a.member.localeCompare(b.member) || a.latent - b.latent,
    );
    const {release, title} = this;
    return `${JSON.stringify({kind: KIND, format: 1, release, title, labels}, null, 1)}\n`;
  }

  /** Adds the entries of an exported file; of two, the newer one is kept. */
  merge(text: string): Merged {
    let file: {kind?: unknown; release?: unknown; labels?: unknown};
    try {
      file = JSON.parse(text);
    } catch {
      throw new Error('is not JSON: choose a file that "Export" has written');
    }
    if (typeof file !== 'object' || file === null || file.kind !== KIND) {
      throw new Error('has no labels: choose a file that "Export" has written');
    }
    if (!Array.isArray(file.labels)) throw new Error('has no list "labels"');
    file.labels.forEach((entry, i) => {
      const why = fault(entry);
      if (why) throw new Error(`was not read: in entry ${i + 1}, ${why}`);
    });
    const otherRelease = file.release !== this.release;
    const merged = {added: 0, newer: 0, kept: 0, same: 0, otherRelease};
    this.read();
    for (const {member, latent, label, note, time} of file.labels) {
      const key = `${member}/${latent}`;
      const old = this.entries.get(key);
      if (old && old.label === label && old.note === note) {
        merged.same++;
      } else if (old && Date.parse(old.time) >= Date.parse(time)) {
        merged.kept++;
      } else {
        this.entries.set(key, {label, note, time});
        merged[old ? 'newer' : 'added']++;
      }
    }
    this.write();
    return merged;
  }
}
