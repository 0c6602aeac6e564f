// Routes in location.hash, so that back, forward and links work from a file.
import type {Member, Suite} from './data/suite.ts';

export type Route =
  | {view: 'overview'}
  | {view: 'member'; member: Member}
  | {view: 'latent'; member: Member; latent: number}
  | {view: 'search'; query: URLSearchParams}
  | {view: 'texts'; query: URLSearchParams}
  | {view: 'live'; tab: string}
  | {view: 'unknown'; message: string};

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function parseRoute(suite: Suite, hash: string): Route {
  const text = decode(hash.replace(/^#\/?/, '').split('?')[0]);
  const query = new URLSearchParams(hash.split('?')[1] ?? '');
  const path = text.replace(/\/+$/, '');
  if (path === '') return {view: 'overview'};
  if (path === 'search' || path === 'texts') return {view: path, query};
  if (path === 'live' || path.startsWith('live/')) {
    if (!suite.index.live) {
      const message =
        'Trying a text needs a live model: start the page with ' +
        '"jumprelu explore --release=DIR --serve".';
      return {view: 'unknown', message};
    }
    return {view: 'live', tab: path.slice(5) || 'tokens'};
  }
  return memberRoute(suite, path);
}

function memberRoute(suite: Suite, path: string): Route {
  const member = suite.member(path);
  if (member) return {view: 'member', member};
  const slash = path.lastIndexOf('/');
  const parent = suite.member(path.slice(0, slash));
  const last = path.slice(slash + 1);
  if (slash > 0 && parent && /^\d+$/.test(last)) {
    const latent = Number(last);
    if (latent < parent.width) return {view: 'latent', member: parent, latent};
    const message =
      `${parent.link} has the latents 0 to ${parent.width - 1}, ` +
      `so there is no latent ${last}.`;
    return {view: 'unknown', message};
  }
  return {
    view: 'unknown',
    message: `This page has no member or view "${path.slice(0, 120)}".`,
  };
}

// Set by links and by `navigate`; a hash that changes without it is a step back
// or forward, after which the old scroll position is right.
let fresh = true;

export function navigate(hash: string): void {
  fresh = true;
  location.hash = hash;
}

/** Changes the address without a new step in the history. */
export function replaceHash(hash: string): void {
  try {
    history.replaceState(null, '', hash);
  } catch {
    // Some browsers forbid it for files; the address is then less exact.
  }
}

export function takeFresh(): boolean {
  const was = fresh;
  fresh = false;
  return was;
}

export function watchLinks(): void {
  document.addEventListener('click', (event) => {
    const target = event.target as Element | null;
    if (target?.closest?.('a[href^="#"]')) fresh = true;
  });
}
