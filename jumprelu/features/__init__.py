"""Feature data: the activations of every latent on text, and its neighbours.

A collection has two phases. The first (`text_pass`) runs the language model
over held-out text once for all SAEs, which are called members, and writes their
active latents ("firings") to the disk, in segments of consecutive rows. The
second (`tables`) reads the segments in blocks of latents, by several threads
and without the model. It merges the statistics of each block over the segments
(`statistics`) and writes one Parquet file per member. The manifest is written
last.

Memory does not grow with the text, except by 8 bytes for each row and each
document. The host holds, besides the members' parameters and the embedding of
the model:

*   first phase: the firings of one segment, at 8 bytes each, and those of one
    member twice while they are sorted (a segment ends with the batch that
    reaches `text_pass.SEGMENT_FIRINGS` firings or `text_pass.SEGMENT_POSITIONS`
    positions); and two batches of latents, of at most `text_pass.DENSE_BYTES`
    for each member, or else of the active ones only;
*   second phase: the decoders once more, scaled to unit norm; for the block of
    each thread (`tables.MAX_THREADS`), and as many finished ones, the firings
    of one segment and the merged statistics. Those have a fixed size per
    latent, except the counts of tokens, which have at most one entry per latent
    and token id, and the co-activations, which have at most
    `member_table.BLOCK_PAIRS` entries; and for one member, the firings at the
    tokens of the passages (`passages`).

The disk holds 12 bytes per firing until the collection is complete. Its files
are mapped into memory, which the system frees when it is short of memory.
"""

import dataclasses

from jumprelu.files import fields

# Part of the identity of a collection. It is incremented whenever a code change
# alters a value in the files.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Config:
  """The amount of text, and the numbers of examples and neighbours."""

  tokens: int = fields.field(102_400, 'Held-out positions to read.')
  examples: int = fields.field(
      20, 'Strongest activations of a latent, at most one from each document.'
  )
  bands: int = fields.field(
      5, 'Bands with equal numbers of activations, from weak to strong.'
  )
  band_examples: int = fields.field(
      5, 'Activations drawn at random from each band.'
  )
  silent_examples: int = fields.field(
      5, 'Windows drawn at random in which the latent does not fire.'
  )
  sample: int = fields.field(
      100,
      'Activations of a latent, drawn at random, from which the bands are '
      'computed; exact for latents that fire at most this often.',
  )
  window: int = fields.field(
      16, 'Tokens of an example before and after its activation.'
  )
  listed: int = fields.field(
      10, 'Entries in lists of tokens, neighbours and co-active latents.'
  )
  texts: int = fields.field(
      24, 'Passages of text, for which all active latents are listed.'
  )
  text_length: int = fields.field(64, 'Tokens of a passage.')
  seed: int = fields.field(0, 'Seed of all random draws.')
  lm_sequences: int = fields.field(
      32, 'Sequences in a batch of the language model.'
  )

  def __post_init__(self):
    fields.check_counts(
        self,
        'features',
        'tokens',
        'examples',
        'bands',
        'band_examples',
        'silent_examples',
        'sample',
        'window',
        'listed',
        'texts',
        'text_length',
        'lm_sequences',
    )
    wanted = self.bands * self.band_examples
    fields.require(
        'features.sample',
        self.sample,
        self.sample >= wanted,
        f'at least bands * band_examples = {wanted}',
    )
    fields.require('features.seed', self.seed, self.seed >= 0, 'at least 0')
