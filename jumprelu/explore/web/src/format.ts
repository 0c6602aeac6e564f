// Numbers as people read them: 3 significant digits, percents, separators.

const DASH = '–';

function minus(text: string): string {
  return text.replace(/^-/, '−');
}

export function integer(value: number): string {
  return minus(Math.round(value).toLocaleString('en-US'));
}

/** 3 significant digits; a dash for a missing number. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size === Infinity) return minus(value > 0 ? '∞' : '-∞');
  if (size >= 999.5) return integer(value);
  if (size < 0.0009995) return minus(value.toExponential(2));
  return minus(value.toPrecision(3));
}

/** The shortest form, for axes, counts and settings. */
export function tick(value: number): string {
  if (Number.isInteger(value)) return integer(value);
  return number(value)
    .replace(/(\.\d*?)0+($|e|%)/, '$1$2')
    .replace(/\.($|e)/, '$1');
}

export function percentTick(share: number): string {
  return `${tick(Number((share * 100).toPrecision(3)))}%`;
}

export function signed(value: number): string {
  return value > 0 ? `+${number(value)}` : number(value);
}

export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || Number.isNaN(share)) return DASH;
  if (share === 0) return '0%';
  if (share === 1) return '100%';
  return `${number(share * 100)}%`;
}

/** 102.4k, 3.10M: for places with little room. */
export function short(value: number): string {
  for (const [unit, letter] of [
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (Math.abs(value) >= unit) {
      return minus(`${Number((value / unit).toPrecision(3))}${letter}`);
    }
  }
  return tick(value);
}

/** A result of the suite's table by its name. */
export function result(name: string, value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value !== 'number') return DASH;
  if (name.endsWith('_share')) return percent(value);
  if (Number.isInteger(value)) return integer(value);
  return number(value);
}

export function plural(count: number, word: string): string {
  return `${integer(count)} ${word}${count === 1 ? '' : 's'}`;
}
