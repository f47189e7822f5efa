/* Starts of an adapter that are made of the weights that it stands beside. */
#ifndef HONE_MODEL_METHOD_INIT_H
#define HONE_MODEL_METHOD_INIT_H

#include "model/build.h"

/* Whether both A and B come from here, instead of method_init_a. */
bool method_init_is_made(const struct method *method);
/* A [rank, in] and B [out, rank] of a module. Not by several threads at once (score/engine_init.c says why).
 *
 *   PiSSA   W = U diag(S) V:  A = √(S/s) V, B = U √(S/s), of the largest S
 *   OLoRA   W = Q R:          A = R, B = Q, their first rows and columns
 *   LoftQ   as PiSSA, of W - Q(W): s B A is what quantising took. PEFT leaves the scale s out: the same where
 *           it is 1, and too much or too little elsewhere
 *
 * W is what the base's numbers stand for, as it is used: quantised, if it is. */
bool method_init_make(const struct model_state *state, size_t module, float *a, float *b, struct error *err);
/* Bytes that the largest module takes meanwhile, A and B included; operations of all modules. 0: nothing is
 * made. */
uint64_t method_init_bytes(const struct model_state *state);
double method_init_flops(const struct model_state *state);

#endif
