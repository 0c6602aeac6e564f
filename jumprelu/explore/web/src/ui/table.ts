// Tables over row numbers: TanStack Table sorts and filters, TanStack Virtual
// scrolls, and this file writes the cells that are seen.
import {
  type ColumnDef,
  columnFilteringFeature,
  constructTable,
  createFilteredRowModel,
  createSortedRowModel,
  type Row,
  rowSortingFeature,
  type SortingState,
  tableFeatures,
} from '@tanstack/table-core';
import {storeReactivityBindings} from '@tanstack/table-core/store-reactivity-bindings';
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  Virtualizer,
} from '@tanstack/virtual-core';
import {type Child, fill, h} from './dom.ts';
import {describeRange, inRange, parseRange, type Range} from './range.ts';

const features = tableFeatures({
  coreReactivityFeature: storeReactivityBindings(),
  columnFilteringFeature,
  rowSortingFeature,
  filteredRowModel: createFilteredRowModel(),
  sortedRowModel: createSortedRowModel(),
});
type Features = typeof features;
// A row of TanStack Table must be an object.
interface Item {
  row: number;
}
type TableRow = Row<Features, Item>;

export interface TableColumn {
  id: string;
  title: Child;
  help?: string;
  /** For sorting and filtering; undefined sorts last. */
  value: (row: number) => number | string | undefined;
  cell: (row: number) => Child;
  width: number;
  numeric?: boolean;
  /** Has a field for a range in the header. */
  range?: boolean;
  /** The first click sorts upwards instead of downwards. */
  upwards?: boolean;
}

export interface TableOptions {
  caption: string;
  columns: TableColumn[];
  rows: number[];
  /** The order of the rows if left out. */
  sort?: {id: string; desc: boolean};
  /** Scrolls by itself, and only visible rows exist. */
  virtual: boolean;
  rowHeight?: number;
  href?: (row: number) => string;
  /** Filters besides the ranges, such as a text or a preset. */
  filters?: Record<string, (row: number, value: never) => boolean>;
  onCount?: (shown: number, all: number) => void;
}

export interface TableState {
  sorting: SortingState;
  ranges: Record<string, string>;
  filters: Record<string, unknown>;
  scroll: number;
}

export class DataTable {
  readonly element: HTMLElement;
  private readonly table;
  private readonly body = h('tbody');
  private readonly heads = new Map<string, HTMLTableCellElement>();
  private readonly inputs = new Map<string, HTMLInputElement>();
  private readonly above = h('tr', {'aria-hidden': 'true'}, h('td'));
  private readonly below = h('tr', {'aria-hidden': 'true'}, h('td'));
  private readonly grid: HTMLTableElement;
  private rows: TableRow[] = [];
  private shown = new Map<number, HTMLTableRowElement>();
  private virtualizer: Virtualizer<HTMLElement, Element> | null = null;
  private stop: (() => void) | null = null;

  constructor(private readonly options: TableOptions) {
    this.table = constructTable<Features, Item>({
      features,
      columns: this.definitions(),
      data: options.rows.map((row) => ({row})),
      initialState: {sorting: options.sort ? [options.sort] : []},
    });
    const {caption, columns} = options;
    this.grid = h(
      'table',
      {class: 'grid', 'aria-rowcount': options.rows.length + 1},
      h('caption', {class: 'visually-hidden'}, caption),
      h(
        'colgroup',
        null,
        columns.map((c) => this.col(c)),
      ),
      h('thead', null, this.headRow()),
      this.body,
    );
    const total = columns.reduce((sum, c) => sum + c.width, 0);
    this.grid.style.minWidth = `${total}px`;
    this.element = h(
      'div',
      {
        class: `grid-box ${options.virtual ? 'grid-virtual' : ''}`,
        tabindex: 0,
        role: 'region',
        'aria-label': caption,
      },
      this.grid,
    );
    this.body.addEventListener('click', (event) => this.click(event));
    if (options.virtual) this.startVirtual();
    this.update();
  }

  private col(column: TableColumn): HTMLElement {
    const col = h('col');
    col.style.width = `${column.width}px`;
    return col;
  }

  private definitions(): ColumnDef<Features, Item>[] {
    const {columns, filters = {}} = this.options;
    const shown = columns.map((column) => ({
      id: column.id,
      accessorFn: ({row}: Item) => column.value(row),
      sortUndefined: 'last' as const,
      sortDescFirst: !column.upwards,
      sortFn: (a: TableRow, b: TableRow, id: string) => {
        const [x, y] = [a.getValue(id), b.getValue(id)] as [never, never];
        return x < y ? -1 : x > y ? 1 : a.original.row - b.original.row;
      },
      filterFn: (row: TableRow, id: string, range: Range) =>
        inRange(row.getValue(id) as number | undefined, range),
    }));
    const hidden = Object.entries(filters).map(([id, keep]) => ({
      id: `filter:${id}`,
      accessorFn: ({row}: Item) => row,
      filterFn: (row: TableRow, _: string, value: never) =>
        keep(row.original.row, value),
    }));
    return [...shown, ...hidden] as ColumnDef<Features, Item>[];
  }

  private headRow(): HTMLElement[] {
    const {columns} = this.options;
    const titles = columns.map((column) => {
      const head = h(
        'th',
        {scope: 'col', class: column.numeric ? 'num' : '', title: column.help},
        h(
          'button',
          {
            type: 'button',
            class: 'sort',
            on: {click: () => this.sortBy(column.id)},
          },
          column.title,
          h('span', {class: 'arrow', 'aria-hidden': 'true'}),
        ),
      );
      this.heads.set(column.id, head);
      return head;
    });
    const rows = [h('tr', null, titles)];
    if (columns.some((column) => column.range)) {
      const fields = columns.map((column) =>
        h('td', null, column.range ? this.rangeField(column) : null),
      );
      rows.push(h('tr', {class: 'ranges'}, fields));
    }
    return rows;
  }

  private rangeField(column: TableColumn): HTMLElement {
    const name = typeof column.title === 'string' ? column.title : column.id;
    const input = h('input', {
      type: 'text',
      class: 'range',
      placeholder: 'min..max',
      spellcheck: 'false',
      autocomplete: 'off',
      'aria-label': `Range of ${name}`,
      title:
        'A range: 0.1..0.5, > 0.1, < 5, = 0, 10%. A number alone is a minimum.',
      on: {input: () => this.setRange(column.id, input.value)},
    });
    this.inputs.set(column.id, input);
    return input;
  }

  private sortBy(id: string): void {
    this.table.getColumn(id)?.toggleSorting();
    this.update(true);
  }

  setRange(id: string, text: string): void {
    const input = this.inputs.get(id);
    if (input && input.value !== text) input.value = text;
    const range = parseRange(text);
    const wrong = text.trim() !== '' && !range;
    input?.setAttribute('aria-invalid', String(wrong));
    if (wrong) return;
    this.table.getColumn(id)?.setFilterValue(range ?? undefined);
    this.update(true);
  }

  setFilter(id: string, value: unknown): void {
    this.table.getColumn(`filter:${id}`)?.setFilterValue(value);
    this.update(true);
  }

  /** Removes all ranges. */
  clearRanges(): void {
    for (const [id, input] of this.inputs)
      if (input.value) this.setRange(id, '');
  }

  state(): TableState {
    const filters: Record<string, unknown> = {};
    for (const {id, value} of this.table.store.state.columnFilters) {
      if (id.startsWith('filter:')) filters[id.slice(7)] = value;
    }
    const ranges: Record<string, string> = {};
    for (const [id, input] of this.inputs)
      if (input.value) ranges[id] = input.value;
    const {sorting} = this.table.store.state;
    return {sorting, ranges, filters, scroll: this.element.scrollTop};
  }

  restore(state: TableState): void {
    this.table.setSorting(state.sorting);
    for (const [id, value] of Object.entries(state.filters))
      this.setFilter(id, value);
    for (const [id, text] of Object.entries(state.ranges))
      this.setRange(id, text);
    this.update();
    requestAnimationFrame(() => (this.element.scrollTop = state.scroll));
  }

  /** The ranges in words, for the line with the number of rows. */
  describe(): string {
    const parts: string[] = [];
    for (const [id, input] of this.inputs) {
      const range = parseRange(input.value);
      if (range) parts.push(`${id} ${describeRange(range)}`);
    }
    return parts.join(', ');
  }

  /** Row numbers in the shown order. */
  order(): number[] {
    return this.rows.map((row) => row.original.row);
  }

  private click(event: MouseEvent): void {
    const target = event.target as Element;
    if (target.closest('a, button, input') || getSelection()?.toString())
      return;
    target.closest('tr')?.querySelector('a')?.click();
  }

  private startVirtual(): void {
    this.virtualizer = new Virtualizer<HTMLElement, Element>({
      ...this.virtualOptions(),
    });
    this.stop = this.virtualizer._didMount();
    // The element has no size before it is in the document.
    requestAnimationFrame(() => {
      this.virtualizer?._willUpdate();
      this.render();
    });
  }

  private virtualOptions() {
    return {
      count: this.rows.length,
      getScrollElement: () => this.element,
      estimateSize: () => this.options.rowHeight ?? 32,
      overscan: 12,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      initialRect: {width: 1000, height: 900},
      onChange: () => this.render(),
    };
  }

  /** Sorts and filters again. */
  update(toTop = false): void {
    this.rows = this.table.getRowModel().rows;
    for (const [id, head] of this.heads) {
      const sorted = this.table.getColumn(id)?.getIsSorted();
      if (sorted) {
        head.setAttribute(
          'aria-sort',
          sorted === 'desc' ? 'descending' : 'ascending',
        );
      } else head.removeAttribute('aria-sort');
    }
    this.grid.setAttribute('aria-rowcount', String(this.rows.length + 1));
    this.shown.clear();
    if (this.virtualizer) {
      this.virtualizer.setOptions(this.virtualOptions());
      this.virtualizer._willUpdate();
      if (toTop) this.element.scrollTop = 0;
    }
    this.render();
    this.options.onCount?.(this.rows.length, this.options.rows.length);
  }

  private render(): void {
    const items = this.virtualizer?.getVirtualItems();
    if (!items || !this.virtualizer) {
      fill(
        this.body,
        this.rows.map((_, i) => this.row(i)),
      );
      return;
    }
    const before = items.length ? items[0].start : 0;
    const last = items.length ? items[items.length - 1].end : 0;
    const after = this.virtualizer.getTotalSize() - last;
    (this.above.firstChild as HTMLElement).style.height = `${before}px`;
    (this.below.firstChild as HTMLElement).style.height = `${after}px`;
    const kept = new Map<number, HTMLTableRowElement>();
    for (const item of items) {
      kept.set(item.index, this.shown.get(item.index) ?? this.row(item.index));
    }
    const focused = document.activeElement;
    const wanted = [this.above, ...kept.values(), this.below];
    for (const child of [...this.body.children]) {
      if (!wanted.includes(child as HTMLTableRowElement)) child.remove();
    }
    wanted.forEach((row, i) => {
      if (this.body.children[i] !== row) {
        this.body.insertBefore(row, this.body.children[i] ?? null);
      }
    });
    if (focused instanceof HTMLElement && focused !== document.activeElement) {
      focused.focus({preventScroll: true});
    }
    this.shown = kept;
  }

  private row(index: number): HTMLTableRowElement {
    const row = this.rows[index].original.row;
    const cells = this.options.columns.map((column, i) => {
      const content = column.cell(row);
      const kind = column.numeric ? 'num' : '';
      if (i > 0) return h('td', {class: kind}, content);
      const href = this.options.href?.(row);
      const inner = href ? h('a', {href}, content) : content;
      return h('th', {scope: 'row', class: kind}, inner);
    });
    return h('tr', {'aria-rowindex': index + 2}, cells);
  }

  destroy(): void {
    this.stop?.();
  }
}
