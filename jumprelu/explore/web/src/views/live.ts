// A text of the reader's own, with the model of the server.
import type {Context} from '../context.ts';
import {attributionTab} from '../live/attribution.ts';
import {generateTab} from '../live/generate.ts';
import {logitsTab} from '../live/logits.ts';
import {rankTab} from '../live/rank.ts';
import {steerTab} from '../live/steer.ts';
import {tokensTab} from '../live/tokens.ts';
import {fill, h} from '../ui/dom.ts';

const TABS: Record<string, [string, (context: Context) => HTMLElement]> = {
  tokens: ['Latents by token', tokensTab],
  rank: ['Rank latents', rankTab],
  logits: ['Next token', logitsTab],
  attribution: ['Attribution', attributionTab],
  generate: ['Generate', generateTab],
  steer: ['Steer', steerTab],
};

export async function liveView(
  context: Context,
  {tab}: {tab: string},
): Promise<void> {
  const {suite} = context;
  const known = tab in TABS ? tab : 'tokens';
  context.title('Try a text');
  await suite.vocabulary();
  if (!context.alive()) return;
  const links = Object.entries(TABS).map(([name, [title]]) =>
    h(
      'a',
      {href: `#live/${name}`, 'aria-current': name === known ? 'page' : null},
      title,
    ),
  );
  fill(
    context.root,
    h(
      'div',
      {class: 'title-row'},
      h('h1', {tabindex: -1}, 'Try a text'),
      h(
        'p',
        {class: 'lead'},
        `${suite.index.model.name} runs on this computer; at most ${suite.index.live?.max_tokens} tokens.`,
      ),
    ),
    h('nav', {class: 'subtabs', 'aria-label': 'Ways to try a text'}, links),
    TABS[known][1](context),
  );
}
