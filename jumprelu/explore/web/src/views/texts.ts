// Held-out text: one member, or two side by side.
import type {Context} from '../context.ts';
import {Texts} from '../data/texts.ts';
import type {Member} from '../data/suite.ts';
import {replaceHash} from '../router.ts';
import {button, fill, h} from '../ui/dom.ts';
import {visible} from '../ui/pieces.ts';
import {chooser} from './groups.ts';
import {Pane} from './pane.ts';

interface State {
  passage: number;
  members: (Member | null)[];
  heats: (number | null)[];
}

function whole(text: string | null, below: number): number | null {
  const value = Number(text);
  if (!text || !Number.isInteger(value) || value < 0 || value >= below)
    return null;
  return value;
}

function parse({suite}: Context, query: URLSearchParams, texts: Texts): State {
  const a = suite.member(query.get('a') ?? '') ?? suite.members[0];
  const b = suite.member(query.get('b') ?? '') ?? null;
  const heat = (name: string, member: Member | null) =>
    member && whole(query.get(name), member.width);
  const first = heat('ha', a);
  let passage = whole(query.get('p'), texts.count);
  if (passage === null && first !== null) passage = texts.strongest(a, first);
  return {
    passage: passage ?? 0,
    members: [a, b],
    heats: [first, heat('hb', b)],
  };
}

function address({passage, members, heats}: State): string {
  const query = new URLSearchParams({p: String(passage)});
  members.forEach((member, i) => {
    const name = 'ab'[i];
    if (member) query.set(name, member.link);
    const heat = heats[i];
    if (member && heat !== null) query.set(`h${name}`, String(heat));
  });
  return `#texts?${query}`;
}

export async function textsView(
  context: Context,
  route: {query: URLSearchParams},
): Promise<void> {
  const {suite} = context;
  context.title('Texts');
  if (!suite.index.texts) {
    fill(
      context.root,
      h('p', {class: 'message'}, 'This page was written without texts.'),
    );
    return;
  }
  fill(context.root, h('p', {class: 'note'}, 'Reading the texts…'));
  const [box] = await Promise.all([
    suite.blobs.get(suite.index.texts, true),
    suite.vocabulary(),
  ]);
  if (!context.alive()) return;
  const texts = new Texts(box);
  const state = parse(context, route.query, texts);
  const panes = h('div', {class: 'panes'});
  const draw = () => {
    replaceHash(address(state));
    const pieces = texts
      .tokens(state.passage)
      .map((token) => suite.piece(token));
    const shown: Pane[] = [];
    const select = (token: number) => {
      for (const each of shown) each.select(token);
    };
    state.members.forEach((member, i) => {
      if (!member) return;
      shown.push(
        new Pane(context, {
          member,
          pieces,
          latents: texts.latents(state.passage, member),
          heat: state.heats[i],
          onHeat: (latent) => {
            state.heats[i] = latent;
            replaceHash(address(state));
          },
          onSelect: select,
        }),
      );
    });
    // Both show the same token, that of the first chosen latent.
    const lead = shown.find((_, i) => state.heats[i] !== null) ?? shown[0];
    select(lead.selected);
    panes.classList.toggle('two', shown.length > 1);
    fill(
      panes,
      shown.map((each) => each.element),
    );
  };
  fill(
    context.root,
    h(
      'div',
      {class: 'title-row'},
      h('h1', {tabindex: -1}, 'Texts'),
      h(
        'p',
        {class: 'lead'},
        `Passages of ${suite.index.text.source}, held out from training. Choose a token to see its latents.`,
      ),
    ),
    controls(context, texts, state, draw),
    panes,
  );
  draw();
}

function controls(
  context: Context,
  texts: Texts,
  state: State,
  draw: () => void,
): HTMLElement {
  const {suite} = context;
  const names = suite.members.map((member) => member.link);
  const starts = Array.from({length: texts.count}, (_, i) => {
    const text = texts
      .tokens(i)
      .slice(0, 24)
      .map((token) => suite.piece(token))
      .join('');
    return `${i + 1}. ${visible(text.replace(/\s+/g, ' ').trim()).slice(0, 40)}…`;
  });
  const passage = h('div');
  const step = (by: number) => {
    state.passage = (state.passage + by + texts.count) % texts.count;
    list();
    draw();
  };
  const list = () => {
    fill(
      passage,
      chooser('Passage', starts, state.passage, (choice) => {
        state.passage = choice;
        draw();
      }),
    );
  };
  list();
  const pick = (label: string, i: number, options: string[], offset: number) =>
    chooser(
      label,
      options,
      (state.members[i]?.number ?? -offset) + offset,
      (choice) => {
        state.members[i] =
          choice < offset ? null : suite.members[choice - offset];
        state.heats[i] = null;
        draw();
      },
    );
  return h(
    'div',
    {class: 'controls'},
    passage,
    button('←', () => step(-1), {
      title: 'Previous passage',
      'aria-label': 'Previous passage',
    }),
    button('→', () => step(1), {
      title: 'Next passage',
      'aria-label': 'Next passage',
    }),
    pick('Member', 0, names, 0),
    pick('Compare with', 1, ['nothing', ...names], 1),
  );
}
