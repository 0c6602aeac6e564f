// Reads containers from the page itself or from the files of its folder.
import {type Container, openContainer} from './container.ts';

// Shards of latents beyond this size are dropped, the oldest first.
const CACHE_BYTES = 192 * 2 ** 20;

declare global {
  interface Window {
    __jumprelu_blob?: (name: string, base64: string) => void;
  }
}

export class Blobs {
  private readonly cache = new Map<string, Promise<Container>>();
  private readonly sizes = new Map<string, number>();
  private readonly arrived = new Map<string, string>();
  private inline: Map<string, Element> | null = null;

  constructor(private readonly kind: 'inline' | 'files') {
    if (kind === 'files') {
      window.__jumprelu_blob = (name, base64) => {
        this.arrived.set(name, base64);
      };
    }
  }

  /** The container, kept for good (`pinned`) or until others need the room. */
  get(name: string, pinned = false): Promise<Container> {
    let promise = this.cache.get(name);
    if (promise) {
      // Now the youngest.
      this.cache.delete(name);
    } else {
      promise = this.open(name, pinned);
      promise.catch(() => this.cache.delete(name));
    }
    this.cache.set(name, promise);
    return promise;
  }

  private async open(name: string, pinned: boolean): Promise<Container> {
    const text =
      this.kind === 'inline' ? this.inlineText(name) : await this.file(name);
    const container = await openContainer(name, text);
    if (!pinned) {
      this.sizes.set(name, container.bytes);
      this.shrink();
    }
    return container;
  }

  private shrink(): void {
    let total = 0;
    for (const size of this.sizes.values()) total += size;
    for (const name of this.cache.keys()) {
      if (total <= CACHE_BYTES || this.sizes.size <= 1) break;
      const size = this.sizes.get(name);
      if (size === undefined) continue;
      total -= size;
      this.sizes.delete(name);
      this.cache.delete(name);
    }
  }

  private inlineText(name: string): string {
    if (!this.inline) {
      this.inline = new Map();
      for (const element of document.querySelectorAll('script[data-blob]')) {
        this.inline.set(element.getAttribute('data-blob') ?? '', element);
      }
    }
    const text = this.inline.get(name)?.textContent;
    if (!text) throw new Error(`This page lacks its data "${name}".`);
    return text;
  }

  private file(name: string): Promise<string> {
    const path = `data/${name}.js`;
    return new Promise((resolve, reject) => {
      const script = document.createElement('script');
      const fail = () =>
        reject(
          new Error(
            `The file ${path} is missing or damaged: keep the folder "data" ` +
              'beside this page, or write the page again.',
          ),
        );
      script.src = path;
      script.onerror = () => {
        script.remove();
        fail();
      };
      script.onload = () => {
        script.remove();
        const text = this.arrived.get(name);
        this.arrived.delete(name);
        if (text === undefined) fail();
        else resolve(text);
      };
      document.head.append(script);
    });
  }
}
