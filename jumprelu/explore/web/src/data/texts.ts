// Passages of held-out text with all active latents of each token.
import type {Container} from './container.ts';
import type {Member} from './suite.ts';

export interface Active {
  latent: number;
  value: number;
}

/** The active latents of each token of one text, the largest value first. */
export interface TokenLatents {
  readonly size: number;
  l0(token: number): number;
  active(token: number): Active[];
}

/** Made from the three arrays that the page's data and the server both use. */
export function tokenLatents(
  start: ArrayLike<number>,
  latents: ArrayLike<number>,
  values: ArrayLike<number>,
  from = 0,
  size = start.length - 1,
): TokenLatents {
  return {
    size,
    l0: (token) => start[from + token + 1] - start[from + token],
    active(token) {
      const list: Active[] = [];
      for (let i = start[from + token]; i < start[from + token + 1]; i++) {
        list.push({latent: latents[i], value: values[i]});
      }
      return list.sort((a, b) => b.value - a.value);
    },
  };
}

/** Of each latent its largest value and its token, the largest first. */
export function strongest(
  source: TokenLatents,
): (Active & {token: number; count: number})[] {
  const byLatent = new Map<number, Active & {token: number; count: number}>();
  for (let token = 0; token < source.size; token++) {
    for (const {latent, value} of source.active(token)) {
      const old = byLatent.get(latent);
      if (!old) byLatent.set(latent, {latent, value, token, count: 1});
      else {
        old.count++;
        if (value > old.value) Object.assign(old, {value, token});
      }
    }
  }
  return [...byLatent.values()].sort((a, b) => b.value - a.value);
}

export class Texts {
  readonly count: number;
  private readonly start;

  constructor(private readonly box: Container) {
    this.start = box.array('start');
    this.count = this.start.length - 1;
  }

  tokens(passage: number): number[] {
    const all = this.box.array('tokens');
    return [...all.subarray(this.start[passage], this.start[passage + 1])];
  }

  /** The passage with the largest activation of a latent; null if silent. */
  strongest(member: Member, latent: number): number | null {
    const name = `m${member.number}`;
    const start = this.box.array(`${name}.start`);
    const latents = this.box.array(`${name}.latent`);
    const values = this.box.array(`${name}.value`);
    let best: number | null = null;
    let most = 0;
    for (let passage = 0; passage < this.count; passage++) {
      const end = start[this.start[passage + 1]];
      for (let i = start[this.start[passage]]; i < end; i++) {
        if (latents[i] === latent && values[i] > most) {
          most = values[i];
          best = passage;
        }
      }
    }
    return best;
  }

  latents(passage: number, member: Member): TokenLatents {
    const name = `m${member.number}`;
    const from = this.start[passage];
    return tokenLatents(
      this.box.array(`${name}.start`),
      this.box.array(`${name}.latent`),
      this.box.array(`${name}.value`),
      from,
      this.start[passage + 1] - from,
    );
  }
}
