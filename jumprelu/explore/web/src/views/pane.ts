// A text as one member sees it: heat, and the latents of a token and of all.
import type {Context} from '../context.ts';
import {type Active, strongest, type TokenLatents} from '../data/texts.ts';
import type {Member} from '../data/suite.ts';
import {integer, number, plural} from '../format.ts';
import {button, card, type Child, fill, h} from '../ui/dom.ts';
import {heatOf, heatText, type HeatToken} from '../ui/heat.ts';
import {tokenChip} from '../ui/pieces.ts';
import {hint} from './latent_neighbours.ts';
import {bar, listTable} from './latent_tokens.ts';

// Latents in each of the two lists.
const LISTED = 12;

// So that the strongest L0 is not taken for the strongest activation.
const L0_HEAT = 0.85;

const HEADS: [string, string][] = [
  ['Latent', ''],
  ['About', 'Your label, or its top token'],
  ['Bar', ''],
  ['Activation', ''],
  ['Tokens', ''],
  ['Heat', ''],
];

export interface PaneOptions {
  member: Member;
  pieces: string[];
  latents: TokenLatents;
  /** The latent of the heat; null for L0. */
  heat: number | null;
  onHeat: (latent: number | null) => void;
  onSelect: (token: number) => void;
}

export class Pane {
  readonly element: HTMLElement;
  private heat: number | null;
  selected = 0;
  private readonly l0: number[];
  private readonly all;
  private readonly mode = h('div', {class: 'controls'});
  private readonly text = h('div');
  private readonly tokenTitle = h('h3');
  private readonly ofToken = h('div');
  private readonly ofText = h('div');

  constructor(
    private readonly context: Context,
    private readonly options: PaneOptions,
  ) {
    const {member, latents, heat} = options;
    this.heat = heat;
    this.all = strongest(latents);
    this.l0 = options.pieces.map((_, i) => latents.l0(i));
    this.selected = this.firstToken();
    const mean = this.l0.reduce((a, b) => a + b, 0) / (this.l0.length || 1);
    this.element = card(
      h('a', {href: member.href()}, member.link),
      `Mean L0 here ${number(mean)}.`,
      {class: 'pane'},
      this.mode,
      this.text,
      this.tokenTitle,
      this.ofToken,
      h('h3', null, 'Strongest in this text'),
      this.ofText,
    );
    this.draw();
  }

  /** The strongest token of the heat's latent, or the first one with latents. */
  private firstToken(): number {
    const hot = this.all.find((each) => each.latent === this.heat);
    // BOS has no latents in some texts.
    return (
      hot?.token ??
      Math.max(
        0,
        this.l0.findIndex((l0) => l0 > 0),
      )
    );
  }

  /** Shows the latents of a token. */
  select(token: number): void {
    const line = this.text.firstElementChild;
    line?.children[this.selected]?.classList.remove('chosen');
    this.selected = token;
    line?.children[token]?.classList.add('chosen');
    this.drawLists();
  }

  private choose(latent: number | null): void {
    this.heat = latent;
    this.options.onHeat(latent);
    this.draw();
  }

  private draw(): void {
    const {heat, l0} = this;
    const {member} = this.options;
    const least = Math.min(...l0);
    const values = heat === null ? l0 : this.values(heat);
    const most = Math.max(...values);
    const share = (value: number) =>
      heat === null
        ? (L0_HEAT * (value - least)) / Math.max(1, most - least)
        : heatOf(value, most);
    this.drawText(values.map(share), values);
    const latent =
      heat !== null && h('a', {href: member.href(heat)}, `latent ${heat}`);
    const range = latent
      ? [latent, `, up to ${number(most)}`]
      : `L0, from ${integer(least)} to ${integer(most)}`;
    const back = () => this.choose(null);
    fill(
      this.mode,
      h('span', {class: 'note'}, 'Heat: ', range),
      latent && button('L0 instead', back, {class: 'mini'}),
    );
    this.drawLists();
  }

  /** The activations of a latent at all tokens. */
  private values(latent: number): number[] {
    const {pieces, latents} = this.options;
    const at = (token: number) =>
      latents.active(token).find((each) => each.latent === latent)?.value ?? 0;
    return pieces.map((_, token) => at(token));
  }

  private drawText(shares: number[], values: number[]): void {
    const {heat, l0} = this;
    const value = (i: number): [string, string][] =>
      heat === null
        ? []
        : [[`latent ${heat}`, values[i] > 0 ? number(values[i]) : 'silent']];
    const tokens = this.options.pieces.map((piece, i): HeatToken => ({
      piece,
      heat: shares[i],
      tip: () => [
        ['L0', integer(l0[i])],
        ...value(i),
        ['position', integer(i)],
      ],
    }));
    const line = heatText(tokens, {
      label: `Text, coloured by ${heat === null ? 'L0' : `latent ${heat}`}`,
      breaks: true,
      class: 'passage',
      onFocus: (i) => this.options.onSelect(i),
    });
    line.children[this.selected]?.classList.add('chosen');
    fill(this.text, line);
  }

  private drawLists(): void {
    const {pieces, latents, member} = this.options;
    const at = this.selected;
    const active = latents.active(at);
    const weaker = active.length - LISTED;
    fill(
      this.tokenTitle,
      'Token ',
      tokenChip(pieces[at] ?? ''),
      ` at ${integer(at)}: L0 ${integer(this.l0[at] ?? 0)}`,
    );
    fill(
      this.ofToken,
      this.list(`Latents of the token, ${member.link}`, active, () => null),
      weaker > 0 &&
        h('p', {class: 'note'}, `and ${plural(weaker, 'weaker one')}`),
    );
    fill(
      this.ofText,
      this.list(`Latents of the text, ${member.link}`, this.all, ({count}) =>
        h('span', {title: 'Tokens on which it fires'}, `${count}×`),
      ),
    );
  }

  private list<T extends Active>(
    caption: string,
    rows: T[],
    more: (row: T) => Child,
  ): HTMLElement {
    const first = rows.slice(0, LISTED);
    const most = first[0]?.value ?? 1;
    return listTable(
      caption,
      HEADS,
      first.map((row) => this.row(row, row.value / most, more(row))),
      {kind: 'pane-list'},
    );
  }

  private row({latent, value}: Active, share: number, more: Child) {
    const {member} = this.options;
    const chosen = latent === this.heat;
    return h(
      'tr',
      {class: chosen ? 'chosen-row' : ''},
      h(
        'td',
        {class: 'latent-cell'},
        h('a', {href: member.href(latent)}, latent),
      ),
      h('td', null, hint(this.context, member, latent)),
      h('td', {class: 'bar-cell'}, bar(share)),
      h('td', {class: 'num'}, number(value)),
      h('td', {class: 'num dim'}, more),
      h(
        'td',
        {class: 'num'},
        button('heat', () => this.choose(chosen ? null : latent), {
          class: 'mini',
          'aria-pressed': String(chosen),
          title: 'Colour the text by this latent',
        }),
      ),
    );
  }
}
