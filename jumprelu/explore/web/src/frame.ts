// Around every view: the bar with navigation and search, and the footer.
import type {Suite} from './data/suite.ts';
import {integer, percent, plural} from './format.ts';
import {navigate, replaceHash, type Route} from './router.ts';
import {isDark, onTheme, toggleTheme} from './theme.ts';
import {button, fill, h} from './ui/dom.ts';
import {toggleHelp} from './ui/help.ts';

export interface Frame {
  show(root: HTMLElement, route: Route): void;
}

export function searchHash(query: Record<string, string>): string {
  const given = Object.entries(query).filter(([, value]) => value);
  return `#search?${new URLSearchParams(given)}`;
}

function themeButton(): HTMLElement {
  const toggle = button('', toggleTheme, {
    class: 'icon',
    title: 'Light or dark (t)',
  });
  const paint = () => {
    toggle.textContent = isDark() ? '☀' : '☾';
    toggle.setAttribute('aria-label', isDark() ? 'Light theme' : 'Dark theme');
  };
  onTheme(paint);
  paint();
  return toggle;
}

function searchField(suite: Suite, current: () => Route): HTMLInputElement {
  const input = h('input', {
    id: 'search',
    type: 'search',
    placeholder: 'Search tokens and labels',
    'aria-label': 'Search tokens and labels',
    autocomplete: 'off',
    spellcheck: 'false',
    maxlength: 200,
  });
  input.addEventListener('focus', () => {
    const route = current();
    const member = 'member' in route ? [route.member] : suite.members;
    // Errors are shown when the search itself fails.
    for (const each of member) each.search().catch(() => {});
  });
  let timer = 0;
  const search = () => {
    clearTimeout(timer);
    const route = current();
    const query =
      route.view === 'search' ? Object.fromEntries(route.query) : {};
    if (route.view === 'member' || route.view === 'latent') {
      query.in = route.member.link;
    }
    const hash = searchHash({...query, q: input.value});
    if (route.view === 'search') {
      replaceHash(hash);
      window.dispatchEvent(new HashChangeEvent('hashchange'));
    } else if (input.value) navigate(hash);
  };
  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = window.setTimeout(search, 120);
  });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') search();
  });
  return input;
}

function footer(suite: Suite): HTMLElement {
  const {model, text, members, generator, index} = {
    ...suite.index,
    index: suite.index,
  };
  const latents = members.reduce((sum, m) => sum + m.width, 0);
  const few = members.reduce((sum, m) => sum + m.few_examples * m.width, 0);
  const never = members.reduce((sum, m) => sum + m.never, 0);
  const held = text.split === 'held_out' ? 'held-out' : text.split;
  return h(
    'footer',
    {class: 'foot'},
    h(
      'p',
      null,
      'Model ',
      h('b', null, model.name),
      ` (${model.dtype}, `,
      h('code', {title: model.digest}, model.digest.slice(0, 8)),
      '). Text ',
      h('b', null, text.source),
      `, ${held} split: ${integer(text.tokens)} tokens of `,
      `${plural(text.documents, 'document')} were read. `,
      `${percent(latents ? few / latents : 0)} of ${plural(latents, 'latent')} have `,
      `fewer than 10 examples; ${integer(never)} never fired on this text.`,
    ),
    h(
      'p',
      null,
      'Examples, tokens and neighbours are chosen automatically, from this text ' +
        'only; latents on the overview are drawn at random. A latent may mean ' +
        'something else on other text, or nothing. ',
      `Made by ${generator}, seed ${integer(Number(index.settings.seed ?? 0))}.`,
    ),
  );
}

export function buildFrame(app: HTMLElement, suite: Suite): Frame {
  let route: Route = {view: 'overview'};
  const search = searchField(suite, () => route);
  const links: [string, string, Route['view'][]][] = [
    ['Overview', '#', ['overview', 'member', 'latent']],
    ['Search', '#search', ['search']],
  ];
  if (suite.index.texts) links.push(['Texts', '#texts', ['texts']]);
  if (suite.index.live) links.push(['Try a text', '#live', ['live']]);
  const tabs = links.map(([text, href]) => h('a', {href}, text));
  const main = h('main', {id: 'main', tabindex: -1});
  const skip = button('To the content', () => main.focus(), {class: 'skip'});
  fill(
    app,
    skip,
    h(
      'header',
      {class: 'bar'},
      h(
        'a',
        {href: '#', class: 'brand', title: suite.index.title},
        h('b', null, 'jumprelu'),
        h('span', null, suite.index.title),
      ),
      h('nav', {'aria-label': 'Views'}, tabs),
      h(
        'label',
        {class: 'searchbox'},
        search,
        h('kbd', {'aria-hidden': 'true'}, '/'),
      ),
      themeButton(),
      button('?', toggleHelp, {
        class: 'icon',
        title: 'Keys (?)',
        'aria-label': 'Keys',
      }),
    ),
    main,
    footer(suite),
  );
  return {
    show(root, next) {
      route = next;
      links.forEach(([, , views], i) => {
        if (views.includes(next.view))
          tabs[i].setAttribute('aria-current', 'page');
        else tabs[i].removeAttribute('aria-current');
      });
      if (document.activeElement !== search) {
        search.value =
          next.view === 'search' ? (next.query.get('q') ?? '') : '';
      }
      fill(main, root);
    },
  };
}
