// A histogram of a few pixels for a cell of a table.
import {svg} from '../ui/dom.ts';

const WIDTH = 84;
const HEIGHT = 20;

export function sparkline(counts: number[], label: string): SVGElement {
  const most = Math.max(1, ...counts);
  const step = WIDTH / counts.length;
  const bars = counts.map((count, i) => {
    const height = count === 0 ? 0 : Math.max(1, (count / most) * HEIGHT);
    return svg('rect', {
      x: (i * step).toFixed(2),
      y: (HEIGHT - height).toFixed(2),
      width: Math.max(0.5, step - 0.5).toFixed(2),
      height: height.toFixed(2),
    });
  });
  return svg(
    'svg',
    {
      class: 'sparkline',
      width: WIDTH,
      height: HEIGHT,
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: 'img',
      'aria-label': label,
    },
    bars,
  );
}
