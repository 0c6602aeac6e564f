// A latent: all that the features say, arranged around its examples.
import type {Context} from '../context.ts';
import type {LatentData} from '../data/latent.ts';
import type {Member, MemberTable} from '../data/suite.ts';
import {integer, number, percent, plural} from '../format.ts';
import {onKey} from '../keys.ts';
import {navigate} from '../router.ts';
import {button, fill, h} from '../ui/dom.ts';
import {tokenChip} from '../ui/pieces.ts';
import {fact} from './facts.ts';
import {histogramCard, profileCard} from './latent_charts.ts';
import {examplesCard} from './latent_examples.ts';
import {explanationsCard} from './latent_explanations.ts';
import {effectsCard, topTokensCard} from './latent_tokens.ts';
import {
  coactiveCard,
  elsewhereCard,
  neighboursCard,
} from './latent_neighbours.ts';
import {notesCard} from './latent_notes.ts';
import {randomLatent} from './member.ts';

/** What the parts of the view need. */
export interface Shown {
  member: Member;
  latent: number;
  table: MemberTable;
  data: LatentData;
}

export async function latentView(
  context: Context,
  {member, latent}: {member: Member; latent: number},
): Promise<void> {
  context.title(`${member.link}/${latent}`);
  context.cleanup(latentKeys(member, latent));
  const head = latentHead(member, latent);
  fill(context.root, head, h('p', {class: 'note'}, 'Reading the latent…'));
  const [table, data] = await Promise.all([
    member.table(),
    member.latent(latent),
    context.suite.vocabulary(),
  ]);
  if (!context.alive()) return;
  const shown = {member, latent, table, data};
  fill(
    context.root,
    head,
    factsStrip(context, shown),
    h(
      'div',
      {class: 'latent-grid'},
      h(
        'div',
        {class: 'column'},
        examplesCard(context, shown),
        explanationsCard(context, shown),
        notesCard(context, shown),
        profileCard(context, shown),
      ),
      h(
        'div',
        {class: 'latent-side'},
        h(
          'div',
          {class: 'column'},
          histogramCard(context, shown),
          effectsCard(context, shown),
          topTokensCard(context, shown),
        ),
        h(
          'div',
          {class: 'column'},
          elsewhereCard(context, shown),
          neighboursCard(context, shown),
          coactiveCard(context, shown),
        ),
      ),
    ),
  );
}

function latentKeys(member: Member, latent: number): () => void {
  const step = (by: number) => {
    navigate(member.href((latent + by + member.width) % member.width));
  };
  const actions: Record<string, () => void> = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    k: () => step(-1),
    j: () => step(1),
    u: () => navigate(member.href()),
    r: () => navigate(member.href(randomLatent(member))),
    l: () => document.getElementById('label')?.focus(),
  };
  return onKey((key) => {
    actions[key]?.();
    return key in actions;
  });
}

function latentHead(member: Member, latent: number): HTMLElement {
  const {width} = member;
  const copied = h('span', {class: 'visually-hidden', role: 'status'});
  const copy = button('Copy link', async () => {
    const text = location.href;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      done = copyBySelection(text);
    }
    copy.textContent = done ? 'Copied' : 'Copy it from the address bar';
    copied.textContent = copy.textContent;
    setTimeout(() => (copy.textContent = 'Copy link'), 1600);
  });
  return h(
    'div',
    {class: 'latent-head'},
    h(
      'div',
      null,
      h(
        'p',
        {class: 'crumbs'},
        h('a', {href: '#'}, 'Overview'),
        ' › ',
        h('a', {href: member.href()}, member.link),
      ),
      h(
        'div',
        {class: 'latent-title'},
        h('h1', {tabindex: -1}, `Latent ${latent}`),
        h('bdi', {class: 'label-text', id: 'shown-label'}),
      ),
    ),
    h(
      'nav',
      {'aria-label': 'Latents', class: 'steps'},
      h(
        'a',
        {
          class: 'button',
          href: member.href((latent + width - 1) % width),
          title: 'Previous latent (←, k)',
        },
        '← Previous',
      ),
      h(
        'a',
        {
          class: 'button',
          href: member.href((latent + 1) % width),
          title: 'Next latent (→, j)',
        },
        'Next →',
      ),
      member.suite.index.texts
        ? h(
            'a',
            {
              class: 'button',
              href: `#texts?${new URLSearchParams({a: member.link, ha: String(latent)})}`,
              title: 'The passage of the texts on which it is strongest',
            },
            'In texts',
          )
        : null,
      button('Random', () => navigate(member.href(randomLatent(member))), {
        title: 'A random latent of this member (r)',
      }),
      copy,
      copied,
    ),
  );
}

/** For pages from the disk, where some browsers have no clipboard. */
function copyBySelection(text: string): boolean {
  const area = h('textarea', {class: 'visually-hidden'});
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}

function factsStrip({suite}: Context, {table, latent}: Shown): HTMLElement {
  const at = (column: Exclude<keyof MemberTable, 'detection'>) =>
    table[column][latent];
  const top = at('top_token');
  const entropy = at('token_entropy');
  const tokens = integer(suite.index.text.tokens);
  return h(
    'dl',
    {class: 'facts-strip'},
    fact(
      'Frequency',
      percent(at('frequency')),
      `${plural(at('count'), 'token')}`,
      `Share of ${tokens} tokens on which it fires`,
    ),
    top >= 0
      ? fact(
          'Top token',
          tokenChip(suite.piece(top)),
          '',
          'The token with the largest mean activation',
        )
      : null,
    fact(
      'Mean',
      number(at('mean')),
      '',
      'Mean activation where it fires, in units of raw activations',
    ),
    fact(
      'Largest',
      number(at('largest')),
      '',
      'Largest activation, in units of raw activations',
    ),
    fact(
      'Threshold',
      number(at('threshold')),
      '',
      'It fires above this, in units of raw activations; a dash for variants without thresholds',
    ),
    fact(
      'Token entropy',
      number(entropy),
      'bits',
      `Entropy of the tokens on which it fires: as for ${number(2 ** entropy)} equally frequent tokens`,
    ),
    fact(
      'Encoder cosine',
      number(at('encoder_cosine')),
      '',
      'Cosine of its encoder column and its decoder row; a dash for transcoders',
    ),
    fact(
      'Decoder norm',
      number(at('decoder_norm')),
      '',
      'Norm of its decoder row',
    ),
    fact(
      'Examples',
      integer(at('examples')),
      '',
      'Strongest examples, at most one from each document',
    ),
  );
}
