// uPlot in the page's colours, drawn again when the size or the theme changes.
import uPlot from 'uplot';
import {h} from '../ui/dom.ts';
import {color, onTheme} from '../theme.ts';

export type Make = (colors: Colors) => {
  options: Omit<uPlot.Options, 'width' | 'height'>;
  data: uPlot.AlignedData;
};

export interface Colors {
  text: string;
  grid: string;
  accent: string;
  heat: string;
  strong: string;
  palette: string[];
}

const PALETTE = 8;
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

export function colors(): Colors {
  return {
    text: color('muted'),
    grid: color('grid'),
    accent: color('accent'),
    heat: color('data'),
    strong: color('text'),
    palette: Array.from({length: PALETTE}, (_, i) => color(`series-${i}`)),
  };
}

export function axis(colors: Colors, more: uPlot.Axis = {}): uPlot.Axis {
  return {
    stroke: colors.text,
    font: FONT,
    labelFont: FONT,
    labelSize: 18,
    labelGap: 2,
    gap: 4,
    size: 44,
    grid: {stroke: colors.grid, width: 1},
    ticks: {stroke: colors.grid, width: 1, size: 4},
    ...more,
  };
}

export class Chart {
  readonly element: HTMLElement;
  plot: uPlot | null = null;
  private readonly observer: ResizeObserver;
  private readonly stopTheme: () => void;
  private width = 0;

  /** The label describes the chart to those who do not see it. */
  constructor(
    label: string,
    private readonly height: number,
    private make: Make,
  ) {
    this.element = h('div', {class: 'chart', role: 'img', 'aria-label': label});
    this.element.style.height = `${height}px`;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
    this.stopTheme = onTheme(() => this.draw());
  }

  set(make: Make): void {
    this.make = make;
    this.draw();
  }

  private resize(): void {
    const width = Math.floor(this.element.clientWidth);
    if (width === this.width || width === 0) return;
    this.width = width;
    if (this.plot) this.plot.setSize({width, height: this.height});
    else this.draw();
  }

  private draw(): void {
    this.plot?.destroy();
    this.plot = null;
    if (this.width === 0) return;
    const {options, data} = this.make(colors());
    const size = {width: this.width, height: this.height};
    const all = {legend: {show: false}, ...options, ...size} as uPlot.Options;
    this.plot = new uPlot(all, data, this.element);
  }

  destroy(): void {
    this.observer.disconnect();
    this.stopTheme();
    this.plot?.destroy();
    this.plot = null;
  }
}
