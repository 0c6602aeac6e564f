// Tokens of text as elements that cannot break the page, whatever they contain.
import {type Child, h} from './dom.ts';

const LONGEST = 48;
const NAMED: Record<string, string> = {
  '\n': '↵',
  '\r': '␍',
  '\t': '⇥',
  '\u00a0': '⍽',
  '\u00ad': '[SHY]',
  '\u200b': '[ZWSP]',
  '\u200c': '[ZWNJ]',
  '\u200d': '[ZWJ]',
  '\u200e': '[LRM]',
  '\u200f': '[RLM]',
  '\u061c': '[ALM]',
  '\u2028': '[LS]',
  '\u2029': '[PS]',
  '\u202a': '[LRE]',
  '\u202b': '[RLE]',
  '\u202c': '[PDF]',
  '\u202d': '[LRO]',
  '\u202e': '[RLO]',
  '\u2060': '[WJ]',
  '\u2066': '[LRI]',
  '\u2067': '[RLI]',
  '\u2068': '[FSI]',
  '\u2069': '[PDI]',
  '\ufeff': '[BOM]',
};
// Controls, invisible and bidirectional marks, and halves of surrogate pairs.
const HIDDEN =
  /[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const SIGNS = new RegExp(`${HIDDEN.source}| +`, 'g');

function glyph(character: string): string {
  const named = NAMED[character];
  if (named) return named;
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return '␡';
  return `[U+${code.toString(16).toUpperCase().padStart(4, '0')}]`;
}

/** The piece with visible signs for its invisible characters. */
export function visible(piece: string): string {
  return piece.replace(HIDDEN, glyph);
}

/** A sign for a run of spaces; a long one with their number. */
function spaceSign(count: number): Child {
  if (count < 4) return '·'.repeat(count);
  return ['␣', h('small', null, count)];
}

/** The middle of a long text left out. */
export function elided(text: string, longest = LONGEST): string {
  const characters = text.length > 4 * longest ? null : [...text];
  if (characters && characters.length <= longest) return text;
  const head = [...text.slice(0, 2 * longest)];
  const tail = [...text.slice(-longest)];
  const kept = Math.floor(longest * 0.6);
  return `${head.slice(0, kept).join('')}…${tail.slice(kept - longest + 1).join('')}`;
}

interface Options {
  /** Shows the spaces at both ends as dots, for lists of tokens. */
  spaces?: boolean;
  /** A new line follows a newline sign. */
  breaks?: boolean;
}

/** Puts the parts of a piece into an element: text and dimmed glyphs. */
export function fillPiece(
  element: HTMLElement,
  piece: string,
  options: Options = {},
): void {
  const full = visible(piece);
  let shown = piece;
  if (full.length > LONGEST) {
    shown = elided(piece);
    if (shown !== piece) element.title = full;
  }
  if (shown === '') {
    element.append(h('span', {class: 'glyph'}, '∅'));
    return;
  }
  const sign = (text: Child) =>
    element.append(h('span', {class: 'glyph'}, text));
  let last = 0;
  for (const match of shown.matchAll(SIGNS)) {
    const [text] = match;
    const end = match.index + text.length;
    const edge = match.index === 0 || end === shown.length;
    if (text[0] === ' ') {
      // Spaces that a reader sees as such stay: all of them where lines break.
      if (options.breaks || (text.length < 4 && !(options.spaces && edge)))
        continue;
    }
    if (match.index > last) element.append(shown.slice(last, match.index));
    sign(text[0] === ' ' ? spaceSign(text.length) : glyph(text));
    if (options.breaks && text === '\n') element.append(h('br'));
    last = end;
  }
  if (last < shown.length) element.append(shown.slice(last));
}

/** A label, which may be written by others and in any direction. */
export function labelText(label: string): HTMLElement {
  return h('bdi', {class: 'label-text'}, visible(label));
}

/** A token as a chip for lists and tables. */
export function tokenChip(piece: string): HTMLElement {
  const element = h('code', {class: 'token', dir: 'ltr'});
  // Narrow cells hide the end of a token.
  if (piece.length > 8) element.title = visible(piece);
  fillPiece(element, piece, {spaces: true});
  return element;
}
