"""Names of an SAE's input and target, in this package and other libraries."""

from jumprelu import lm


def hook_names(
    site: str,
    *,
    layer: int,
    input_gain: bool | None = None,
    family: str = 'gemma2',
) -> dict[str, dict[str, str]]:
  """Returns the names of an SAE's input and target.

  TransformerLens names refer to a model loaded with unprocessed weights, which
  has no norm folded into other weights.

  Args:
    site: A key of `lm.SITES`.
    layer: The layer.
    input_gain: Whether the input of a transcoder includes the norm's gain.
    family: The language model's family, a key of `lm.FAMILIES`.

  Returns:
    {'input': names, 'target': names}, where `names` maps `jumprelu`,
    `transformer_lens` and `huggingface` to the library's name.
  """
  known = lm.FAMILIES[family]

  def by_library(source, gain):
    ours, names = str(source), known.hook_names[source]
    if source is lm.Site.MLP_IN and not gain:
      ours, names = f'{ours} / input gain', known.input_gain_hook_names
    return {
        'jumprelu': ours,
        'transformer_lens': names.transformer_lens.format(layer=layer),
        'huggingface': names.huggingface.format(layer=layer),
    }

  source, target = lm.SITES[site]
  return {
      'input': by_library(source, input_gain),
      'target': by_library(target, True),
  }
