// Search over the tokens of latents, and over labels.
import type {Labels} from '../labels.ts';
import type {Member, Suite} from './suite.ts';

export const PLACES = ['top', 'promoted', 'context', 'label'] as const;
export type Place = (typeof PLACES)[number];

export const PLACE_NAMES: Record<Place, string> = {
  top: 'top tokens',
  promoted: 'promoted',
  context: 'contexts',
  label: 'label',
};

export interface Hit {
  member: Member;
  latent: number;
  places: Place[];
  /** A token that contains the first word; -1 for a label. */
  token: number;
  /** Of the best place first; the sum over places decides ties. */
  score: number;
}

// Above all sums of scores.
const BEST = 1000;

// One bit for each word.
const WORDS = 7;
const EXACT = 1 << WORDS;

export function words(query: string): string[] {
  const list = query.toLowerCase().split(/\s+/).filter(Boolean);
  return [...new Set(list)].slice(0, WORDS);
}

export class Searcher {
  private lower: string[] | null = null;

  constructor(private readonly suite: Suite) {}

  /** For each token the words that its piece contains, as bits. */
  private async bits(list: string[]): Promise<Uint8Array> {
    const pieces = await this.suite.vocabulary();
    this.lower ??= pieces.map((piece) => piece.toLowerCase());
    const bits = new Uint8Array(pieces.length);
    for (let token = 0; token < bits.length; token++) {
      const piece = this.lower[token];
      for (let i = 0; i < list.length; i++) {
        if (!piece.includes(list[i])) continue;
        bits[token] |= 1 << i;
        if (piece.trim() === list[i]) bits[token] |= EXACT;
      }
    }
    return bits;
  }

  /** The latents of the members with all words in one of the places. */
  async find(
    query: string,
    members: Member[],
    places: ReadonlySet<Place>,
    labels: Labels,
  ): Promise<Hit[]> {
    const list = words(query);
    if (list.length === 0) return [];
    const bits = await this.bits(list);
    const hits: Hit[] = [];
    const wanted = (1 << list.length) - 1;
    for (const member of members) {
      const byLatent = new Map<number, Hit>();
      const add = (
        latent: number,
        place: Place,
        token: number,
        score: number,
      ) => {
        const hit = byLatent.get(latent);
        if (!hit) {
          const first = BEST * score + score;
          byLatent.set(latent, {
            member,
            latent,
            places: [place],
            token,
            score: first,
          });
          return;
        }
        const best = Math.max(Math.floor(hit.score / BEST), score);
        hit.score = BEST * best + (hit.score % BEST) + score;
        hit.places.push(place);
      };
      if (places.has('label')) searchLabels(labels, member, list, add);
      if (
        places.has('top') ||
        places.has('promoted') ||
        places.has('context')
      ) {
        await searchTokens(member, bits, wanted, places, add);
      }
      for (const hit of byLatent.values()) hits.push(hit);
    }
    return hits.sort((a, b) => b.score - a.score);
  }
}

type Add = (latent: number, place: Place, token: number, score: number) => void;

function searchLabels(
  labels: Labels,
  member: Member,
  list: string[],
  add: Add,
) {
  for (const entry of labels.all()) {
    if (entry.member !== member.info.id || entry.latent >= member.width)
      continue;
    const text = `${entry.label}\n${entry.note}`.toLowerCase();
    if (list.every((word) => text.includes(word)))
      add(entry.latent, 'label', -1, 200);
  }
}

async function searchTokens(
  member: Member,
  bits: Uint8Array,
  wanted: number,
  places: ReadonlySet<Place>,
  add: Add,
): Promise<void> {
  const box = await member.search();
  const matrix = (key: 'top' | 'promoted', base: number) => {
    if (!places.has(key)) return;
    const tokens = box.array(key);
    const listed = box.shape(key)[1];
    for (let latent = 0; latent < member.width; latent++) {
      scan(latent, key, tokens, latent * listed, (latent + 1) * listed, base);
    }
  };
  const scan = (
    latent: number,
    place: Place,
    tokens: ArrayLike<number>,
    from: number,
    to: number,
    base: number,
  ) => {
    let seen = 0;
    let first = -1;
    for (let i = from; i < to; i++) {
      const token = tokens[i];
      if (token < 0) continue;
      const found = bits[token];
      if (found === 0) continue;
      seen |= found;
      if (first < 0 && found & 1) first = i;
    }
    if ((seen & wanted) !== wanted) return;
    // Early in a list of ten counts more; contexts are sorted by token id.
    const rank = place === 'context' ? 0 : first - from;
    const exact = seen & EXACT ? 12 : 0;
    add(latent, place, tokens[first], Math.max(1, base - rank + exact));
  };
  matrix('top', 60);
  matrix('promoted', 40);
  if (places.has('context')) {
    const start = box.array('context.start');
    const tokens = box.array('context');
    for (let latent = 0; latent < member.width; latent++) {
      scan(latent, 'context', tokens, start[latent], start[latent + 1], 10);
    }
  }
}
