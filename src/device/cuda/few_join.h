/* Nodes of a layer that one launch serves while few rows are decoded: a norm, the products of its result and
 * the gated unit of two of them (few.cu), or rotations and the attention through the cache of what they turn
 * (attention_cache.cu). Which ones is found when a program is compiled, from its graph and plan.
 *
 * What is written only to be read inside such a group is not written. */
#ifndef HONE_DEVICE_CUDA_FEW_JOIN_H
#define HONE_DEVICE_CUDA_FEW_JOIN_H

#include "device/cuda/cuda.h"
#include "graph/plan.h"

enum few_group_kind { FEW_ALONE, FEW_PRODUCTS, FEW_ATTENTION };

/* Of the node that it begins with. */
struct few_group {
    enum few_group_kind kind;
    int count; /* nodes, from the first on: norm or none, products, gated unit or none */
    bool norm, glu;
};

/* groups [nodes] */
void few_groups_find(struct few_group *groups, const struct plan *plan);
/* Runs the group that begins with node n; false: in this run its nodes are to be run one by one. */
bool few_group_run(const struct few_group *group, int n, struct call (*call_of)(void *user, int node),
                   void *user);

#endif
