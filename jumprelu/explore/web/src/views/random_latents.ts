// A handful of latents drawn at random; never the best ones.
import type {Context} from '../context.ts';
import {STRONGEST} from '../data/latent.ts';
import type {Member} from '../data/suite.ts';
import {number, percent} from '../format.ts';
import {button, card, fill, h} from '../ui/dom.ts';
import {labelText, tokenChip} from '../ui/pieces.ts';
import {exampleLine} from '../ui/example.ts';

const COUNT = 5;
let extra = 0;

/** Uniform numbers of [0, 1) from a seed (mulberry32). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

function draw(members: Member[]): [Member, number][] {
  const day = Math.floor(Date.now() / 86_400_000);
  const next = uniform(day * 7919 + extra * 104_729);
  const drawn = new Map<string, [Member, number]>();
  for (let tries = 0; drawn.size < COUNT && tries < 100; tries++) {
    const member = members[Math.floor(next() * members.length)];
    const latent = Math.floor(next() * member.width);
    drawn.set(member.href(latent), [member, latent]);
  }
  return [...drawn.values()];
}

async function row(context: Context, member: Member, latent: number) {
  const {suite, labels} = context;
  const [table, data] = await Promise.all([
    member.table(),
    member.latent(latent),
    suite.vocabulary(),
  ]);
  const top = table.top_token[latent];
  const label = labels.get(member.info.id, latent)?.label;
  const example = data.examples.find((each) => each.kind === STRONGEST);
  return h(
    'li',
    null,
    h(
      'div',
      {class: 'random-head'},
      h('a', {href: member.href(latent)}, `${member.link}/${latent}`),
      label ? labelText(label) : null,
      top >= 0 ? tokenChip(suite.piece(top)) : null,
      h('span', {class: 'dim'}, `fires on ${percent(table.frequency[latent])}`),
    ),
    example
      ? exampleLine(suite, example, table.largest[latent])
      : h('p', {class: 'note'}, 'It never fired on this text.'),
    example
      ? null
      : h('span', {class: 'dim'}, `largest ${number(table.largest[latent])}`),
  );
}

export function randomCard(context: Context): HTMLElement {
  const list = h('ol', {class: 'random', 'aria-busy': 'true'});
  const show = async () => {
    const drawn = draw(context.suite.members);
    const rows = await Promise.all(
      drawn.map(([member, latent]) =>
        row(context, member, latent).catch((error: Error) =>
          h('li', {class: 'problem'}, error.message),
        ),
      ),
    );
    if (!context.alive()) return;
    fill(list, rows);
    list.setAttribute('aria-busy', 'false');
  };
  void show();
  const again = button('Reshuffle', () => {
    extra++;
    void show();
  });
  return card(
    'Random latents',
    h(
      'span',
      null,
      'Drawn anew each day, from all latents: not the best. ',
      again,
    ),
    {class: 'random-card'},
    list,
  );
}
