// Starts the page: reads the index, builds the frame, follows the routes.
import 'uplot/dist/uPlot.min.css';
import '../css/theme.css';
import '../css/frame.css';
import '../css/table.css';
import '../css/latent.css';
import '../css/views.css';
import type {Context} from './context.ts';
import {Suite} from './data/suite.ts';
import type {Index} from './data/types.ts';
import {buildFrame} from './frame.ts';
import {startKeys} from './keys.ts';
import {Labels} from './labels.ts';
import {parseRoute, type Route, takeFresh, watchLinks} from './router.ts';
import {readSettings} from './settings.ts';
import {startTheme} from './theme.ts';
import {fill, h} from './ui/dom.ts';
import {visible} from './ui/pieces.ts';
import {hideTip} from './ui/tooltip.ts';
import {latentView} from './views/latent.ts';
import {liveView} from './views/live.ts';
import {memberView} from './views/member.ts';
import {overview} from './views/overview.ts';
import {searchView} from './views/search.ts';
import {textsView} from './views/texts.ts';

type View = (context: Context, route: never) => void | Promise<void>;

const VIEWS: Record<Exclude<Route['view'], 'unknown'>, View> = {
  overview,
  member: memberView,
  latent: latentView,
  search: searchView,
  texts: textsView,
  live: liveView,
};

function readIndex(): Index {
  const text = document.getElementById('jumprelu-index')?.textContent;
  if (!text)
    throw new Error('This page lacks its index. Write the page again.');
  const index = JSON.parse(text) as Index;
  // A folder's name may have marks that change the direction of the text.
  index.title = visible(index.title);
  if (index.format !== 1) {
    throw new Error(`This script does not read format ${index.format}.`);
  }
  return index;
}

function message(title: string, text: string): HTMLElement {
  return h(
    'div',
    {class: 'message', role: 'alert'},
    h('h1', {tabindex: -1}, title),
    h('p', null, text),
    h('p', null, h('a', {href: '#'}, 'Back to the overview')),
  );
}

function start(): void {
  const app = document.getElementById('app');
  if (!app) return;
  startTheme();
  readSettings();
  let index: Index;
  try {
    index = readIndex();
  } catch (error) {
    fill(
      app,
      h('div', {class: 'message', role: 'alert'}, (error as Error).message),
    );
    return;
  }
  const suite = new Suite(index);
  const labels = new Labels(index.storage_key, index.title);
  const frame = buildFrame(app, suite);
  const scrolls = new Map<string, number>();
  let stops: (() => void)[] = [];
  let shown = 0;
  let hash = location.hash;

  const follow = async () => {
    const fresh = takeFresh();
    scrolls.set(hash, scrollY);
    hash = location.hash;
    for (const stop of stops.splice(0)) stop();
    hideTip();
    const number = ++shown;
    const route = parseRoute(suite, location.hash);
    const root = h('div', {class: `view view-${route.view}`});
    const mine: (() => void)[] = [];
    stops = mine;
    const context: Context = {
      suite,
      labels,
      root,
      alive: () => number === shown,
      cleanup: (stop) => (number === shown ? mine.push(stop) : stop()),
      title: (text) =>
        (document.title = text ? `${text} - ${index.title}` : index.title),
    };
    frame.show(root, route);
    try {
      if (route.view === 'unknown') {
        context.title('Unknown address');
        fill(root, message('No such view', route.message));
      } else {
        await VIEWS[route.view](context, route as never);
      }
    } catch (error) {
      if (context.alive())
        fill(root, message('This cannot be shown', (error as Error).message));
    }
    if (!context.alive()) return;
    scrollTo({top: fresh ? 0 : (scrolls.get(hash) ?? 0), behavior: 'instant'});
    if (fresh && document.activeElement === document.body) {
      root.querySelector<HTMLElement>('h1')?.focus({preventScroll: true});
    }
  };

  watchLinks();
  startKeys(suite);
  window.addEventListener('hashchange', follow);
  void follow();
}

start();
