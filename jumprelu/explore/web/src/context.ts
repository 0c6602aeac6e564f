// All that a view gets.
import type {Suite} from './data/suite.ts';
import type {Labels} from './labels.ts';

export interface Context {
  readonly suite: Suite;
  readonly labels: Labels;
  /** The element that the view fills. */
  readonly root: HTMLElement;
  /** Whether this view is still shown: checked after each wait. */
  alive(): boolean;
  /** Called when the view is left. */
  cleanup(stop: () => void): void;
  /** Sets the title of the window. */
  title(text: string): void;
}
