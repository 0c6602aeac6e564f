// Binary containers: base64 of gzip of a JSON header and aligned arrays.
import type {Numbers} from './types.ts';

type Entry = [dtype: string, shape: number[], offset: number];

const DTYPES = {
  i1: Int8Array,
  u1: Uint8Array,
  u2: Uint16Array,
  i4: Int32Array,
  f4: Float32Array,
} as const;

/** An opened container; its arrays are views of one buffer. */
export class Container {
  readonly bytes: number;

  constructor(
    readonly name: string,
    private readonly header: Record<string, Entry>,
    private readonly buffer: ArrayBuffer,
    private readonly base: number,
  ) {
    this.bytes = buffer.byteLength;
  }

  private entry(key: string): Entry {
    const entry = this.header[key];
    if (!entry) throw new Error(`The data "${this.name}" lacks "${key}".`);
    return entry;
  }

  has(key: string): boolean {
    return key in this.header;
  }

  shape(key: string): number[] {
    return this.entry(key)[1];
  }

  array(key: string): Numbers {
    const [dtype, shape, offset] = this.entry(key);
    const kind = DTYPES[dtype as keyof typeof DTYPES];
    if (!kind) throw new Error(`The data "${this.name}" has type ${dtype}.`);
    const size = shape.reduce((a, b) => a * b, 1);
    return new kind(this.buffer, this.base + offset, size);
  }

  json<T>(key: string): T {
    const [, [size], offset] = this.entry(key);
    const raw = new Uint8Array(this.buffer, this.base + offset, size);
    return JSON.parse(new TextDecoder().decode(raw)) as T;
  }
}

function bytesOfBase64(text: string): Uint8Array<ArrayBuffer> {
  const fast = Uint8Array as {
    fromBase64?: (text: string) => Uint8Array<ArrayBuffer>;
  };
  if (fast.fromBase64) return fast.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

export async function openContainer(
  name: string,
  base64: string,
): Promise<Container> {
  if (typeof DecompressionStream === 'undefined') {
    throw new Error(
      'This browser cannot unpack the page’s data. Use Chrome 80, Firefox 113, ' +
        'Safari 16.4 or later.',
    );
  }
  try {
    const stream = new Blob([bytesOfBase64(base64)])
      .stream()
      .pipeThrough(new DecompressionStream('gzip'));
    const buffer = await new Response(stream).arrayBuffer();
    const size = new DataView(buffer).getUint32(0, true);
    const text = new TextDecoder().decode(new Uint8Array(buffer, 4, size));
    return new Container(name, JSON.parse(text), buffer, 4 + size);
  } catch {
    throw new Error(
      `The data "${name}" of this page is damaged. Write the page again.`,
    );
  }
}
