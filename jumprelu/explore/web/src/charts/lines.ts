// Curves: the frontier of a suite, training curves, densities.
import uPlot from 'uplot';
import {hideTip, showTip, tipRows} from '../ui/tooltip.ts';
import {axis, Chart} from './chart.ts';

export interface Line {
  name: string;
  /** Number of its colour. */
  color: number;
  x: number[];
  y: (number | null)[];
  dashed?: boolean;
  /** One text for each point, the heading of its tooltip. */
  names?: string[];
  onClick?: (point: number) => void;
}

export interface LineOptions {
  label: string;
  height: number;
  lines: Line[];
  xLabel: string;
  yLabel: string;
  xText: (value: number) => string;
  yText: (value: number) => string;
  logX?: boolean;
  /** The ticks of the axis, if not those of the library. */
  splits?: (low: number, high: number) => number[];
  points?: boolean;
  stepped?: boolean;
  fromZero?: boolean;
}

interface Hit {
  line: Line;
  point: number;
  left: number;
  top: number;
}

function nearest(u: uPlot, lines: Line[], reach: number): Hit | null {
  const {left: x = -1, top: y = -1} = u.cursor;
  if (x < 0) return null;
  let best: Hit | null = null;
  let least = reach * reach;
  for (const line of lines) {
    for (let i = 0; i < line.x.length; i++) {
      const value = line.y[i];
      if (value === null) continue;
      const left = u.valToPos(line.x[i], 'x');
      const top = u.valToPos(value, 'y');
      const far = (left - x) ** 2 + (top - y) ** 2;
      if (far < least) {
        least = far;
        best = {line, point: i, left, top};
      }
    }
  }
  return best;
}

function logSplits(low: number, high: number): number[] {
  const splits: number[] = [];
  const ratio = high / low;
  const steps =
    ratio > 60 ? [1] : ratio > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
    for (const step of steps) {
      const x = step * 10 ** e;
      if (x >= low * 0.999 && x <= high * 1.001) splits.push(x);
    }
  }
  return splits;
}

function limits(lines: Line[], log: boolean): [number, number] {
  const all = lines.flatMap((line) => line.x).filter((x) => !log || x > 0);
  let [low, high] = [Infinity, -Infinity];
  for (const x of all) {
    low = Math.min(low, x);
    high = Math.max(high, x);
  }
  if (!(low <= high)) return [1, 10];
  if (log) return [low / 1.15, high * 1.15];
  return low === high ? [low - 1, high + 1] : [low, high];
}

export function lineChart(options: LineOptions): Chart {
  const {lines} = options;
  const tables = lines.map((line) => [line.x, line.y] as uPlot.AlignedData);
  const data = tables.length
    ? uPlot.join(
        tables,
        tables.map((t) => t.map(() => 2)),
      )
    : ([[], []] as uPlot.AlignedData);
  const range = limits(lines, options.logX ?? false);
  const splits = options.splits ?? (options.logX ? logSplits : undefined);
  let hit: Hit | null = null;
  const find = (u: uPlot) => {
    hit = nearest(u, lines, options.points ? 36 : 48);
    u.over.classList.toggle('pointing', Boolean(hit?.line.onClick));
    if (!hit) return hideTip();
    const box = u.over.getBoundingClientRect();
    const [x, y] = [box.left + hit.left, box.top + hit.top];
    const {line, point} = hit;
    showTip(
      {left: x, right: x, top: y - 4, bottom: y + 4},
      tipRows([
        ['', line.names?.[point] ?? line.name],
        [options.xLabel, options.xText(line.x[point])],
        [options.yLabel, options.yText(line.y[point] as number)],
      ]),
    );
  };
  const chart: Chart = new Chart(options.label, options.height, (colors) => ({
    data,
    options: {
      padding: [10, 14, 0, 0],
      scales: {
        x: {time: false, distr: options.logX ? 3 : 1, range: () => range},
        y: {
          range: (_, low, high) => {
            const room = (high - low || Math.abs(high) || 0.1) * 0.08;
            return [options.fromZero ? 0 : low - room, high + room];
          },
        },
      },
      axes: [
        axis(colors, {
          label: options.xLabel,
          size: 28,
          splits: splits && (() => splits(...range)),
          // uPlot leaves out labels of logarithmic axes by itself.
          filter: (_, splits) => splits,
          values: (_, at) => at.map(options.xText),
        }),
        axis(colors, {
          label: options.yLabel,
          size: 50,
          space: 34,
          values: (_, at) => at.map(options.yText),
        }),
      ],
      series: [
        {},
        ...lines.map((line) => ({
          stroke: colors.palette[line.color % colors.palette.length],
          width: options.points ? 1.5 : 1.75,
          dash: line.dashed ? [5, 4] : undefined,
          spanGaps: true,
          paths: options.stepped
            ? uPlot.paths.stepped?.({align: 1})
            : undefined,
          points: {
            show: options.points ?? false,
            size: 9,
            width: 1.5,
            fill: colors.palette[line.color % colors.palette.length],
          },
        })),
      ],
      cursor: {
        x: !options.points,
        y: false,
        points: {show: false},
        drag: {x: false, y: false},
      },
      hooks: {setCursor: [find]},
    },
  }));
  chart.element.addEventListener('mouseleave', hideTip);
  chart.element.addEventListener('click', () => {
    hideTip();
    hit?.line.onClick?.(hit.point);
  });
  return chart;
}
