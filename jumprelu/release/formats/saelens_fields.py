"""Checks of the fields in a cfg.json of SAELens.

A known field is used, or must have a value with which it changes nothing, or
concerns only training and logging. An unknown field is refused, because it may
describe a change of the SAE, which would otherwise be ignored silently.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from jumprelu import errors

# Fields that the reader uses or checks.
_USED = """
activation_fn activation_fn_kwargs activation_fn_str apply_b_dec_to_input
architecture d_in d_out d_sae finetuning_scaling_factor hf_hook_name
hf_hook_name_out hook_head_index hook_name hook_name_out hook_point
hook_point_head_index hook_point_out k metadata model_name
normalize_activations rescale_acts_by_decoder_norm reshape_activations
sae_lens_version
""".split()

# The layer is part of the hook's name, too.
_ORIGIN = """
context_size dataset_path dataset_trust_remote_code hook_eval hook_layer
hook_layer_out hook_point_eval hook_point_layer is_dataset_tokenized
model_class_name model_from_pretrained_kwargs model_kwargs neuronpedia_id
prepend_bos sae_lens_training_version seqpos_slice exclude_special_tokens
streaming
""".split()

# Fields that only training, logging and the choice of devices use.
_TRAINING = """
act_store_device adam_beta1 adam_beta2 autocast autocast_lm aux_loss_coefficient
b_dec_init_method bandwidth cached_activations_path checkpoint_path compile_llm
compile_sae d_head dead_feature_threshold dead_feature_window
decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm
decoder_orthogonal_init device dtype eval_batch_size_prompts
eval_every_n_wandb_logs expansion_factor feature_reinit_scale
feature_sampling_method feature_sampling_window finetuning_method
finetuning_tokens from_pretrained_path ghost_grads
init_encoder_as_decoder_transpose jumprelu_bandwidth jumprelu_init_threshold
jumprelu_sparsity_loss_mode jumprelu_tanh_scale l0_coefficient l0_warm_up_steps
l1_coefficient l1_warm_up_steps llm_compilation_mode
log_activations_store_to_wandb log_optimizer_state_to_wandb log_to_wandb logger
lp_norm lr lr_decay_steps lr_end lr_scheduler_name lr_warm_up_steps
matryoshka_widths mse_loss_normalization n_batches_in_buffer n_checkpoints
n_eval_batches n_restart_cycles n_running_sparsity noise_scale
normalize_sae_decoder pre_act_loss_coefficient resample_batches resume run_name
sae_compilation_mode scale_sparsity_penalty_by_decoder_norm seed sparsity
store_batch_size store_batch_size_prompts tokens_per_buffer topk_threshold_lr
total_training_steps total_training_tokens train_batch_size
train_batch_size_tokens training_tokens use_cached_activations
use_ghost_grads use_sparse_activations verbose wandb_entity wandb_id
wandb_log_frequency wandb_project
""".split()

_KNOWN = frozenset((*_USED, *_ORIGIN, *_TRAINING))
# Field -> the values with which it changes nothing.
_FIXED = {
    'hook_head_index': (None,),
    'hook_point_head_index': (None,),
    'finetuning_scaling_factor': (None, False),
    'reshape_activations': (None, 'none', 'hook_z'),
}


def check(where: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Raises DataError if a field is unknown or changes the SAE."""
  metadata = config.get('metadata')
  parts = {'': config}
  if isinstance(metadata, dict):
    parts['metadata.'] = metadata
  for prefix, part in parts.items():
    for name, accepted in _FIXED.items():
      if part.get(name) not in accepted:
        raise errors.DataError(
            f'{where}: {prefix}{name} is {part[name]!r}, wanted'
            f' {accepted[0]!r}; this changes the SAE and is not supported'
        )
  unknown = sorted(config.keys() - _KNOWN)
  if unknown:
    raise errors.DataError(
        f'{where}: field {unknown[0]} ({str(config[unknown[0]])[:40]!r}) is'
        ' unknown and may change the SAE; remove it if it does not'
    )
