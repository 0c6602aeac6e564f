// Local storage that may be blocked; the page then forgets when it is closed.

const memory = new Map<string, string>();
let blocked = false;

export function readStored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    blocked = true;
    return memory.get(key) ?? null;
  }
}

export function writeStored(key: string, value: string): void {
  memory.set(key, value);
  try {
    localStorage.setItem(key, value);
    blocked = false;
  } catch {
    blocked = true;
  }
}

export function storageBlocked(): boolean {
  return blocked;
}
