// The index that the page contains, as the Python writer makes it.

export interface Column {
  name: string;
  title: string;
  help: string;
}

export interface MemberInfo {
  id: string;
  link: string;
  site: string;
  layer: number;
  width: number;
  variant: string;
  results: Record<string, number | string | null>;
  few_examples: number;
  never: number;
  density: {edges: number[]; counts: number[]};
  shard: number;
  table: string;
  search: string;
  shards: string[];
}

export interface Curve {
  member: string;
  series: Record<string, number[] | number | null>;
}

export interface Live {
  max_tokens: number;
  max_new_tokens: number;
  max_edits: number;
}

/** A set of explanations. */
export interface ExplanationSet {
  name: string;
  explainer: string;
  judge: string;
  model: string | null;
}

export interface Index {
  format: number;
  generator: string;
  title: string;
  storage_key: string;
  blobs: 'inline' | 'files';
  live: Live | null;
  model: {name: string; dtype: string; digest: string};
  text: {
    source: string;
    split: string;
    digest: string;
    tokens: number;
    documents: number;
    positions: number;
  };
  settings: Record<string, unknown>;
  histogram_edges: number[];
  position_totals: number[];
  results_columns: Column[];
  members: MemberInfo[];
  curves: Curve[];
  explanations?: ExplanationSet[];
  vocabulary: string;
  texts: string | null;
}

export type Numbers =
  Int8Array | Uint8Array | Uint16Array | Int32Array | Float32Array;
