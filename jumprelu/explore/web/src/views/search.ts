// Search over tokens and labels, in one member or in all.
import type {Context} from '../context.ts';
import {
  type Hit,
  type Place,
  PLACE_NAMES,
  PLACES,
  Searcher,
  words,
} from '../data/search.ts';
import type {MemberTable, Suite} from '../data/suite.ts';
import {integer, number, percent, plural} from '../format.ts';
import {searchHash} from '../frame.ts';
import {replaceHash} from '../router.ts';
import {card, fill, h} from '../ui/dom.ts';
import {labelText, tokenChip, visible} from '../ui/pieces.ts';
import {DataTable, type TableColumn} from '../ui/table.ts';
import {chooser} from './groups.ts';

// Of more hits the best are shown.
const SHOWN = 5000;

const searchers = new WeakMap<Suite, Searcher>();

function searcher(suite: Suite): Searcher {
  const old = searchers.get(suite);
  if (old) return old;
  const made = new Searcher(suite);
  searchers.set(suite, made);
  return made;
}

interface Query {
  q: string;
  in: string;
  places: Set<Place>;
}

function parse(query: URLSearchParams): Query {
  const where = query.get('where');
  const places = new Set(
    PLACES.filter((place) => !where || where.split(',').includes(place)),
  );
  return {q: query.get('q') ?? '', in: query.get('in') ?? '', places};
}

export async function searchView(
  context: Context,
  route: {query: URLSearchParams},
): Promise<void> {
  const {suite, labels} = context;
  const query = parse(route.query);
  context.title(query.q ? `Search: ${query.q}` : 'Search');
  const result = h('div', {class: 'search-result'});
  const member = suite.member(query.in);
  const members = member ? [member] : suite.members;
  let running = 0;
  const search = async () => {
    const number = ++running;
    const chosen = suite.member(query.in);
    const among = chosen ? [chosen] : suite.members;
    const began = performance.now();
    const hits = await searcher(suite).find(
      query.q,
      among,
      query.places,
      labels,
    );
    const tables = new Map<number, MemberTable>();
    for (const each of new Set(hits.slice(0, SHOWN).map((hit) => hit.member))) {
      tables.set(each.number, await each.table());
    }
    if (!context.alive() || number !== running) return;
    show(context, result, query, hits, tables);
    result.dataset.milliseconds = (performance.now() - began).toFixed(1);
  };
  const change = () => {
    const all = query.places.size === PLACES.length;
    const where = all ? '' : [...query.places].join(',');
    replaceHash(searchHash({q: query.q, in: query.in, where}));
    void search();
  };
  fill(
    context.root,
    h(
      'div',
      {class: 'title-row'},
      h(
        'h1',
        {tabindex: -1},
        query.q ? ['Search: ', h('bdi', null, visible(query.q))] : 'Search',
      ),
      h(
        'p',
        {class: 'lead'},
        'Each word must be contained in some token of a list of the latent.',
      ),
    ),
    h(
      'div',
      {class: 'controls'},
      chooser(
        'In',
        ['All members', ...suite.members.map((each) => each.link)],
        member ? member.number + 1 : 0,
        (choice) => {
          query.in = choice ? suite.members[choice - 1].link : '';
          change();
        },
      ),
      placeBoxes(query, change),
    ),
    result,
  );
  if (words(query.q).length === 0) {
    fill(result, emptyMessage());
    document.getElementById('search')?.focus();
    // Unpacked while the reader types.
    await Promise.all([
      suite.vocabulary(),
      ...members.map((each) => each.search()),
    ]);
    return;
  }
  await search();
}

function emptyMessage(): HTMLElement {
  return h(
    'p',
    {class: 'message note'},
    'Type a word above: it is looked for in the top tokens, the promoted tokens and the ' +
      'example texts of each latent, and in your labels and notes.',
  );
}

function placeBoxes(query: Query, change: () => void): HTMLElement {
  const boxes = PLACES.map((place) => {
    const box = h('input', {
      type: 'checkbox',
      checked: query.places.has(place),
      on: {
        change: () => {
          if (box.checked) query.places.add(place);
          else query.places.delete(place);
          change();
        },
      },
    });
    const name = PLACE_NAMES[place];
    return h(
      'label',
      {class: 'check'},
      box,
      name[0].toUpperCase() + name.slice(1),
    );
  });
  return h(
    'div',
    {class: 'checks', role: 'group', 'aria-label': 'Where'},
    boxes,
  );
}

function show(
  context: Context,
  result: HTMLElement,
  query: Query,
  hits: Hit[],
  tables: Map<number, MemberTable>,
): void {
  if (hits.length === 0) {
    const text = `No latent has ${words(query.q).length > 1 ? 'all these words' : 'this word'} there.`;
    fill(result, h('p', {class: 'message note', role: 'status'}, text));
    return;
  }
  const shown = hits.slice(0, SHOWN);
  const grid = new DataTable({
    caption: `Latents that match ${query.q}`,
    columns: columns(context, shown, tables),
    rows: shown.map((_, i) => i),
    sort: {id: 'match', desc: true},
    virtual: true,
    href: (row) => shown[row].member.href(shown[row].latent),
  });
  context.cleanup(() => grid.destroy());
  const count =
    hits.length > SHOWN
      ? `The best ${integer(SHOWN)} of ${plural(hits.length, 'latent')}`
      : plural(hits.length, 'latent');
  const title = h('span', {role: 'status'}, count);
  fill(
    result,
    card(title, 'A row opens the latent.', {class: 'wide'}, grid.element),
  );
}

function columns(
  {suite, labels}: Context,
  hits: Hit[],
  tables: Map<number, MemberTable>,
): TableColumn[] {
  const at = (row: number, column: keyof MemberTable): number => {
    const {member, latent} = hits[row];
    return tables.get(member.number)?.[column][latent] ?? Number.NaN;
  };
  const label = (row: number) =>
    labels.get(hits[row].member.info.id, hits[row].latent)?.label;
  const token = (
    id: 'top_token' | 'promoted_token',
    title: string,
    help: string,
  ): TableColumn => ({
    id,
    title,
    help,
    width: 120,
    upwards: true,
    value: (row) => suite.piece(at(row, id)).toLowerCase(),
    cell: (row) =>
      at(row, id) < 0 ? '–' : tokenChip(suite.piece(at(row, id))),
  });
  const numeric = (
    id: 'frequency' | 'largest',
    title: string,
    help: string,
    text: (value: number) => string,
  ): TableColumn => ({
    id,
    title,
    help,
    numeric: true,
    width: 96,
    value: (row) => at(row, id),
    cell: (row) => text(at(row, id)),
  });
  return [
    {
      id: 'latent',
      title: 'Latent',
      help: 'Member and number',
      width: 176,
      upwards: true,
      value: (row) => hits[row].member.number * 2 ** 24 + hits[row].latent,
      cell: (row) => `${hits[row].member.link}/${hits[row].latent}`,
    },
    {
      id: 'token',
      title: 'Token',
      help: 'A token that contains the first word',
      width: 120,
      upwards: true,
      value: (row) => suite.piece(hits[row].token).toLowerCase(),
      cell: (row) =>
        hits[row].token < 0 ? '–' : tokenChip(suite.piece(hits[row].token)),
    },
    {
      id: 'match',
      title: 'Matches in',
      help: 'The lists with all words; labels first, then top tokens, promoted tokens and contexts',
      width: 210,
      value: (row) => hits[row].score,
      cell: (row) =>
        hits[row].places.map((place) => PLACE_NAMES[place]).join(', '),
    },
    {
      id: 'label',
      title: 'Label',
      help: 'Your label',
      width: 150,
      upwards: true,
      value: (row) => label(row) || undefined,
      cell: (row) => labelText(label(row) ?? ''),
    },
    token(
      'top_token',
      'Top token',
      'The token with the largest mean activation',
    ),
    token('promoted_token', 'Promoted', 'The token whose logit it raises most'),
    numeric(
      'frequency',
      'Frequency',
      'Share of tokens on which it fires',
      percent,
    ),
    numeric('largest', 'Largest', 'Largest activation', number),
  ];
}
