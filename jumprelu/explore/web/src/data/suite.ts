// The suite of the page: members, their tables, and what their shards hold.
import {Blobs} from './blobs.ts';
import type {Container} from './container.ts';
import {LatentData} from './latent.ts';
import type {Index, MemberInfo} from './types.ts';

/** The columns of a member's table, one entry for each latent. */
export interface MemberTable {
  count: Int32Array;
  frequency: Float32Array;
  mean: Float32Array;
  largest: Float32Array;
  threshold: Float32Array;
  token_entropy: Float32Array;
  decoder_norm: Float32Array;
  encoder_cosine: Float32Array;
  top_token: Int32Array;
  promoted_token: Int32Array;
  examples: Int32Array;
  /** The score of the first explanation; only in pages with explanations. */
  detection?: Float32Array;
}

const INTEGERS = ['count', 'top_token', 'promoted_token', 'examples'];
const FLOATS = [
  'frequency',
  'mean',
  'largest',
  'threshold',
  'token_entropy',
  'decoder_norm',
  'encoder_cosine',
];

export class Member {
  private opened: Promise<MemberTable> | null = null;

  constructor(
    readonly suite: Suite,
    readonly number: number,
    readonly info: MemberInfo,
  ) {}

  get link(): string {
    return this.info.link;
  }

  get width(): number {
    return this.info.width;
  }

  /** One line that says which SAE this is. */
  get title(): string {
    const {site, layer, width, variant} = this.info;
    return `${site}, layer ${layer}, ${width.toLocaleString('en-US')} latents, ${variant}`;
  }

  href(latent?: number): string {
    return `#${this.link}${latent === undefined ? '' : `/${latent}`}`;
  }

  table(): Promise<MemberTable> {
    this.opened ??= this.suite.blobs.get(this.info.table, true).then((box) => {
      const optional = ['detection'].filter((k) => box.has(k));
      const keys = [...INTEGERS, ...FLOATS, ...optional];
      const entries = keys.map((k) => [k, box.array(k)]);
      return Object.fromEntries(entries) as MemberTable;
    });
    this.opened.catch(() => (this.opened = null));
    return this.opened;
  }

  /** The container of the search; also called early, so that it is ready. */
  search(): Promise<Container> {
    return this.suite.blobs.get(this.info.search);
  }

  async latent(latent: number): Promise<LatentData> {
    const shard = Math.floor(latent / this.info.shard);
    const box = await this.suite.blobs.get(this.info.shards[shard]);
    return new LatentData(box, latent - shard * this.info.shard);
  }
}

export class Suite {
  readonly blobs: Blobs;
  readonly members: Member[];
  private readonly byName = new Map<string, Member>();
  private pieces: string[] | null = null;
  private reading: Promise<string[]> | null = null;

  constructor(readonly index: Index) {
    this.blobs = new Blobs(index.blobs);
    this.members = index.members.map((info, i) => new Member(this, i, info));
    for (const member of this.members) {
      this.byName.set(member.info.id, member);
      this.byName.set(member.link, member);
    }
  }

  member(name: string): Member | undefined {
    return this.byName.get(name);
  }

  /** Reads the vocabulary; views wait for it before they use `piece`. */
  vocabulary(): Promise<string[]> {
    this.reading ??= this.blobs.get(this.index.vocabulary, true).then((box) => {
      this.pieces = box.json<string[]>('pieces');
      return this.pieces;
    });
    this.reading.catch(() => (this.reading = null));
    return this.reading;
  }

  piece(token: number): string {
    return this.pieces?.[token] ?? `[${token}]`;
  }
}
