// Bars over bins of equal width: histograms, profiles, densities.
import uPlot from 'uplot';
import {hideTip, showTip, tipRows} from '../ui/tooltip.ts';
import {axis, Chart, type Colors} from './chart.ts';

export interface BarOptions {
  label: string;
  height: number;
  /** Left edges of the bins in units of the axis; all of width `step`. */
  left: number[];
  step: number;
  values: (number | null)[];
  xLabel: string;
  yLabel?: string;
  /** The ticks of the axis and their texts. */
  ticks: {at: number; text: string}[];
  yText: (value: number) => string;
  /** Lines of the tooltip of a bin. */
  tip: (bin: number) => [string, string][];
  /** A vertical line with a text. */
  mark?: {at: number; text: string} | null;
  /** Small ticks on the axis. */
  notches?: number[];
}

function drawMark(u: uPlot, options: BarOptions, colors: Colors): void {
  const {ctx, bbox} = u;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = colors.accent;
  ctx.fillStyle = colors.accent;
  for (const notch of options.notches ?? []) {
    const x = Math.round(u.valToPos(notch, 'x', true));
    ctx.fillRect(
      x - ratio / 2,
      bbox.top + bbox.height - 5 * ratio,
      ratio,
      5 * ratio,
    );
  }
  if (options.mark) {
    const x = u.valToPos(options.mark.at, 'x', true);
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = 'bottom';
    const width = ctx.measureText(options.mark.text).width;
    const fits = x + width + 8 * ratio < bbox.left + bbox.width;
    ctx.textAlign = fits ? 'left' : 'right';
    ctx.fillText(
      options.mark.text,
      x + (fits ? -3 : 3) * ratio,
      bbox.top - 2 * ratio,
    );
  }
  ctx.restore();
}

export function barChart(options: BarOptions): Chart {
  const {left, step, values} = options;
  const middle = left.map((x) => x + step / 2);
  const marks = [left[0], left[left.length - 1] + step];
  if (options.mark)
    marks.push(options.mark.at - step / 2, options.mark.at + step / 2);
  const range: [number, number] = [Math.min(...marks), Math.max(...marks)];
  const ticks = options.ticks.filter(
    ({at}) => at >= range[0] - 1e-9 && at <= range[1] + 1e-9,
  );
  const chart: Chart = new Chart(options.label, options.height, (colors) => ({
    data: [middle, values],
    options: {
      padding: [options.mark ? 18 : 8, 10, 0, 0],
      scales: {
        x: {time: false, range: () => range},
        y: {range: (_, __, max) => [0, max > 0 ? max * 1.06 : 1]},
      },
      axes: [
        axis(colors, {
          label: options.xLabel || undefined,
          size: 28,
          grid: {show: false},
          splits: () => ticks.map(({at}) => at),
          values: (_, at) =>
            at.map((x) => ticks.find((t) => t.at === x)?.text ?? ''),
        }),
        axis(colors, {
          size: 50,
          label: options.yLabel,
          values: (_, at) => at.map(options.yText),
          space: 26,
        }),
      ],
      series: [
        {},
        {
          fill: colors.heat,
          width: 0,
          points: {show: false},
          paths: uPlot.paths.bars?.({size: [1, Infinity], gap: 1}),
        },
      ],
      cursor: {y: false, points: {show: false}, drag: {x: false, y: false}},
      hooks: {
        draw: [(u) => drawMark(u, options, colors)],
        setCursor: [(u) => tip(u, options)],
      },
    },
  }));
  chart.element.addEventListener('mouseleave', hideTip);
  return chart;
}

function tip(u: uPlot, options: BarOptions): void {
  const {left: x, top} = u.cursor;
  if (x === undefined || x < 0 || top === undefined) {
    hideTip();
    return;
  }
  const at = u.posToVal(x, 'x');
  const bin = options.left.findIndex((l) => at >= l && at < l + options.step);
  if (bin < 0) {
    hideTip();
    return;
  }
  const box = u.over.getBoundingClientRect();
  const middle =
    box.left + u.valToPos(options.left[bin] + options.step / 2, 'x');
  const y = box.top + u.valToPos(options.values[bin] ?? 0, 'y');
  showTip(
    {left: middle, right: middle, top: y, bottom: y},
    tipRows(options.tip(bin)),
  );
}
