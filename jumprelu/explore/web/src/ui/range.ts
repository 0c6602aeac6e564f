// Ranges that a reader types: 0.1..0.5, > 0.1, < 5, = 0, 10%.
import {number} from '../format.ts';

export interface Range {
  min: number;
  max: number;
  /** Whether the limits themselves are left out. */
  openMin: boolean;
  openMax: boolean;
}

function value(text: string): number | null {
  const match = text
    .trim()
    .replace(/[−]/g, '-')
    .replace(/,(?=\d{3})/g, '')
    .match(/^([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(%?)$/i);
  if (!match) return null;
  return Number(match[1]) / (match[2] ? 100 : 1);
}

/** The range, or null if the text is none. */
export function parseRange(text: string): Range | null {
  const trimmed = text.trim();
  const whole = {min: -Infinity, max: Infinity, openMin: false, openMax: false};
  const between = trimmed.match(/^(.*?)(?:\.\.+|…|–)(.*)$/);
  if (between) {
    const [low, high] = [between[1].trim(), between[2].trim()];
    const min = low ? value(low) : -Infinity;
    const max = high ? value(high) : Infinity;
    if (min === null || max === null || (!low && !high)) return null;
    return {...whole, min, max};
  }
  const compare = trimmed.match(/^(>=|<=|≥|≤|>|<|=)?(.*)$/);
  const limit = compare ? value(compare[2]) : null;
  if (!compare || limit === null) return null;
  switch (compare[1]) {
    case '<':
      return {...whole, max: limit, openMax: true};
    case '<=':
    case '≤':
      return {...whole, max: limit};
    case '=':
      return {...whole, min: limit, max: limit};
    case '>':
      return {...whole, min: limit, openMin: true};
    default:
      return {...whole, min: limit};
  }
}

export function inRange(x: number | undefined, range: Range): boolean {
  if (x === undefined) return false;
  const low = range.openMin ? x > range.min : x >= range.min;
  return low && (range.openMax ? x < range.max : x <= range.max);
}

export function describeRange({min, max, openMin, openMax}: Range): string {
  if (min === max) return `= ${number(min)}`;
  if (max === Infinity) return `${openMin ? '>' : '≥'} ${number(min)}`;
  if (min === -Infinity) return `${openMax ? '<' : '≤'} ${number(max)}`;
  return `${number(min)} to ${number(max)}`;
}
