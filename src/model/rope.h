/* Rotary embedding's frequencies, and its scaling in the two forms that files know: parameters (config.json)
 * and divisors of each channel pair's frequency (GGUF's rope_freqs.weight). */
#ifndef HONE_MODEL_ROPE_H
#define HONE_MODEL_ROPE_H

#include "model/family.h"

/* What each channel pair's frequency is divided by, by the configuration's scaling: out[head_dim / 2]. */
void rope_factors(const struct model_config *config, float *out);
/* Rotation per position of each channel pair, out[head_dim / 2], by these divisors, which may be `out`; NULL:
 * by the configuration's scaling. */
void rope_frequencies(const struct model_config *config, const float *factors, float *out);

/* Sets the scaling whose divisors these are: none, linear or Llama 3's. False: they are of another kind. */
bool rope_scaling_from(struct model_config *config, const float *factors);

#endif
