"""The config.json of Hugging Face for small Gemma 2 models."""

from typing import Any

from jumprelu import lm


def fields_of(config: lm.LmConfig) -> dict[str, Any]:
  """Returns the fields of config.json for a model like the embedded one."""
  return {
      'architectures': ['Gemma2ForCausalLM'],
      'model_type': 'gemma2',
      'vocab_size': config.vocab,
      'hidden_size': config.d_model,
      'intermediate_size': config.ffw,
      'num_attention_heads': config.heads,
      'num_key_value_heads': config.kv_heads,
      'head_dim': config.head_dim,
      'num_hidden_layers': config.layers,
      'sliding_window': config.window,
      'max_position_embeddings': config.context,
      'attn_logit_softcapping': config.attention_softcap,
      'final_logit_softcapping': config.logits_softcap,
      'query_pre_attn_scalar': config.head_dim,
      'hidden_activation': 'gelu_pytorch_tanh',
      'rms_norm_eps': 1e-6,
      'attention_bias': False,
      'tie_word_embeddings': True,
      'rope_theta': 10000.0,
      'pad_token_id': 0,
      'eos_token_id': 1,
      'bos_token_id': 2,
  }
