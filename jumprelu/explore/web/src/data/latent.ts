// One latent's rows of a shard.
import type {Container} from './container.ts';
import type {Numbers} from './types.ts';

export const STRONGEST = -1;
export const SILENT = -2;

export interface Example {
  kind: number;
  value: number;
  document: number;
  offset: number;
  index: number;
  tokens: Numbers;
  values: Numbers;
}

export interface TokenRow {
  token: number;
  mean: number;
  count: number;
}

export interface Effect {
  token: number;
  effect: number;
}

export interface Neighbour {
  member: number;
  latent: number;
  cosine: number;
}

export interface Coactive {
  latent: number;
  jaccard: number;
  both: number;
}

/** A score: value, ends of its interval, answers, unparsable answers. */
export type Score = [
  value: number | null,
  low: number | null,
  high: number | null,
  count: number,
  unparsable: number,
];

export interface Explanation {
  set: number;
  text: string | null;
  scores: Score[];
}

const dense = new WeakMap<Container, Float32Array>();

// The activations at all tokens of a shard's windows. The shard has a bit for
// each token, and the activations at set bits.
function windowValues(box: Container): Float32Array {
  let values = dense.get(box);
  if (values === undefined) {
    const window = box.array('examples.window');
    const bits = box.array('values.fires');
    const active = box.array('values');
    values = new Float32Array(window[window.length - 1]);
    for (let i = 0, n = 0; i < values.length; i++) {
      if (bits[i >> 3] & (128 >> (i & 7))) values[i] = active[n++];
    }
    dense.set(box, values);
  }
  return values;
}

export class LatentData {
  constructor(
    private readonly box: Container,
    private readonly row: number,
  ) {}

  private slice(key: string): Numbers {
    const size = this.box.shape(key)[1];
    return this.box
      .array(key)
      .subarray(this.row * size, this.row * size + size);
  }

  private rows<T>(group: string, keys: string[]): T[] {
    const start = this.box.array(`${group}.start`);
    const arrays = keys.map((key) => this.box.array(`${group}.${key}`));
    const rows: T[] = [];
    for (let i = start[this.row]; i < start[this.row + 1]; i++) {
      rows.push(
        Object.fromEntries(keys.map((key, j) => [key, arrays[j][i]])) as T,
      );
    }
    return rows;
  }

  get histogram(): Numbers {
    return this.slice('histogram');
  }

  get positionProfile(): Numbers {
    return this.slice('position_profile');
  }

  get bandEdges(): number[] {
    return [...this.slice('band_edges')].filter((x) => !Number.isNaN(x));
  }

  get topTokens(): TokenRow[] {
    return this.rows('top_tokens', ['token', 'mean', 'count']);
  }

  get promoted(): Effect[] {
    return this.rows('promoted', ['token', 'effect']);
  }

  get suppressed(): Effect[] {
    return this.rows('suppressed', ['token', 'effect']);
  }

  get neighbours(): {latent: number; cosine: number}[] {
    return this.rows('neighbours', ['latent', 'cosine']);
  }

  get elsewhere(): Neighbour[] {
    return this.rows('elsewhere', ['member', 'latent', 'cosine']);
  }

  get coactive(): Coactive[] {
    return this.rows('coactive', ['latent', 'jaccard', 'both']);
  }

  /** None in pages without explanations. */
  get explanations(): Explanation[] {
    if (!this.box.has('explanations')) return [];
    type Entry = [number, string | null, Score[]];
    const all = this.box.json<Entry[][]>('explanations');
    return all[this.row].map(([set, text, scores]) => ({set, text, scores}));
  }

  get examples(): Example[] {
    const keys = ['kind', 'value', 'document', 'offset', 'index'];
    const rows = this.rows<Example>('examples', keys);
    const first = this.box.array('examples.start')[this.row];
    const window = this.box.array('examples.window');
    const start = this.box.array('examples.tokens');
    const tokens = this.box.array('tokens');
    const values = windowValues(this.box);
    rows.forEach((row, i) => {
      const [from, to] = [window[first + i], window[first + i + 1]];
      const at = start[first + i];
      row.tokens = tokens.subarray(at, at + to - from);
      row.values = values.subarray(from, to);
    });
    return rows;
  }
}
