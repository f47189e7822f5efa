/* Names that people bring from other tools, with ours. They are refused, never quietly accepted: the same
 * word often counts something else there (a batch per device, steps instead of a ratio). */
#include "base/settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct foreign {
    const char *name;   /* theirs, with underscores */
    const char *ours;   /* our setting, or NULL when there is none */
    const char *values; /* "theirs=ours,…"; NULL: the value stays; "": it cannot be converted alone */
    const char *note;   /* what to mind; or NULL */
};

/* Sources of the names: transformers TrainingArguments, PEFT LoraConfig, Axolotl, LLaMA-Factory, MLX-LM,
 * Unsloth, torchtune, llama.cpp. */
static const char per_device[] =
    "It counts the examples of one optimizer step: multiply the per-device batch by the accumulation steps.";
static const char scheduler_values[] =
    "linear=linear,cosine=cosine,constant=constant,constant_with_warmup=constant,"
    "cosine_with_restarts=cosine-restarts,warmup_stable_decay=wsd,inverse_sqrt=inverse-sqrt,"
    "cosine_with_min_lr=cosine";
static const char optimizer_values[] =
    "adamw_torch=adamw,adamw_torch_fused=adamw,adamw_hf=adamw,adamw=adamw,adafactor=adafactor,sgd=sgd,"
    "lion=lion,lion_32bit=lion,muon=muon,adamw_8bit=adamw8bit,adamw_bnb_8bit=adamw8bit,"
    "paged_adamw_8bit=adamw8bit";
static const char yes_block[] = "true=block,1=block,unsloth=block,false=none,0=none";
static const char yes_bf16[] = "true=bf16,1=bf16,false=f32,0=f32";
static const char yes_f16[] = "true=f16,1=f16,false=f32,0=f32";
static const struct foreign names[] = {
    {"r", "lora-rank", NULL, NULL},
    {"rank", "lora-rank", NULL, NULL},
    {"lora_r", "lora-rank", NULL, NULL},
    {"lora_dim", "lora-rank", NULL, NULL},
    {"lora_scale", "lora-alpha", "", "Alpha is the scale times the rank."},
    {"scale", "lora-alpha", "", "Alpha is the scale times the rank."},
    {"target_modules", "lora-targets", NULL, NULL},
    {"lora_target", "lora-targets", NULL, NULL},
    {"lora_target_modules", "lora-targets", NULL, NULL},
    {"lora_target_linear", "lora-targets", "true=all-linear,1=all-linear", NULL},
    {"num_train_epochs", "epochs", NULL, NULL},
    {"num_epochs", "epochs", NULL, NULL},
    {"n_epochs", "epochs", NULL, NULL},
    {"iters", "max-steps", NULL, "Steps are optimizer steps."},
    {"max_iters", "max-steps", NULL, "Steps are optimizer steps."},
    {"max_train_steps", "max-steps", NULL, NULL},
    {"total_steps", "max-steps", NULL, NULL},
    {"per_device_train_batch_size", "batch-size", NULL, per_device},
    {"per_device_batch_size", "batch-size", NULL, per_device},
    {"train_batch_size", "batch-size", NULL, NULL},
    {"micro_batch_size", "batch-size", NULL, per_device},
    {"gradient_accumulation_steps", "batch-size", "", per_device},
    {"gradient_accumulation", "batch-size", "", per_device},
    {"grad_accumulation_steps", "batch-size", "", per_device},
    {"lr", "learning-rate", NULL, NULL},
    {"learningrate", "learning-rate", NULL, NULL},
    {"learn_rate", "learning-rate", NULL, NULL},
    {"learning_rate_multiplier", "learning-rate", "", "It is the rate itself, not a multiplier."},
    {"loraplus_lr_ratio", "loraplus-ratio", NULL, NULL},
    {"lr_scheduler_type", "schedule", scheduler_values, NULL},
    {"lr_scheduler", "schedule", scheduler_values, NULL},
    {"lr_schedule", "schedule", scheduler_values, NULL},
    {"min_lr_ratio", "min-learning-rate-ratio", NULL, NULL},
    {"min_lr_rate", "min-learning-rate-ratio", NULL, NULL},
    {"cosine_min_lr_ratio", "min-learning-rate-ratio", NULL, NULL},
    {"min_lr", "min-learning-rate-ratio", "", "It is a share of the highest rate, not a rate."},
    {"num_cycles", "cosine-cycles", NULL, NULL},
    {"warmup_steps", "warmup-ratio", "",
     "It is the warm-up's share of all steps: divide the steps by the run's."},
    {"warmup", "warmup-ratio", "", "It is the warm-up's share of all steps."},
    {"num_warmup_steps", "warmup-ratio", "",
     "It is the warm-up's share of all steps: divide the steps by the run's."},
    {"max_seq_length", "max-length", NULL, NULL},
    {"max_seq_len", "max-length", NULL, NULL},
    {"seq_length", "max-length", NULL, NULL},
    {"sequence_len", "max-length", NULL, NULL},
    {"cutoff_len", "max-length", NULL, NULL},
    {"block_size", "max-length", NULL, NULL},
    {"model_max_length", "max-length", NULL, NULL},
    {"grad_clip", "max-grad-norm", NULL, NULL},
    {"gradient_clipping", "max-grad-norm", NULL, NULL},
    {"clip_grad_norm", "max-grad-norm", NULL, NULL},
    {"gradient_clip_val", "max-grad-norm", NULL, NULL},
    {"output_dir", "output", NULL, NULL},
    {"adapter_path", "output", NULL, "--adapter names one to start from."},
    {"model_name_or_path", "model", NULL, NULL},
    {"base_model", "model", NULL, NULL},
    {"model_name", "model", NULL, NULL},
    {"model_id", "model", NULL, NULL},
    {"dataset", "data", NULL, NULL},
    {"datasets", "data", NULL, NULL},
    {"data_path", "data", NULL, NULL},
    {"train_file", "data", NULL, NULL},
    {"train_data", "data", NULL, NULL},
    {"validation_file", "valid", NULL, NULL},
    {"eval_file", "valid", NULL, NULL},
    {"val_data", "valid", NULL, NULL},
    {"test_datasets", "valid", NULL, NULL},
    {"val_set_size", "valid-split", NULL, NULL},
    {"val_size", "valid-split", NULL, NULL},
    {"validation_split", "valid-split", NULL, NULL},
    {"excess_length_strategy", "overlength", "drop=drop,truncate=truncate,raise=refuse", NULL},
    {"train_on_inputs", "train-on", "true=all,1=all,false=assistant,0=assistant", NULL},
    {"train_on_completions", "train-on", "true=assistant,1=assistant,false=all,0=all", NULL},
    {"train_on_responses_only", "train-on", "true=assistant,1=assistant,false=all,0=all", NULL},
    {"assistant_only_loss", "train-on", "true=assistant,1=assistant,false=all,0=all", NULL},
    {"completion_only_loss", "train-on", "true=assistant,1=assistant,false=all,0=all", NULL},
    {"mask_prompt", "train-on", "true=assistant,1=assistant,false=all,0=all", NULL},
    {"system_prompt", "system", NULL, NULL},
    {"default_system", "system", NULL, NULL},
    {"save_steps", "save-every", NULL, NULL},
    {"save_freq", "save-every", NULL, NULL},
    {"steps_per_save", "save-every", NULL, NULL},
    {"eval_steps", "eval-every", NULL, NULL},
    {"eval_freq", "eval-every", NULL, NULL},
    {"steps_per_eval", "eval-every", NULL, NULL},
    {"early_stopping_patience", "early-stopping", NULL, NULL},
    {"patience", "early-stopping", NULL, NULL},
    {"load_best_model_at_end", NULL, NULL, "With --early-stopping the result is the best held-out state."},
    {"metric_for_best_model", NULL, NULL, "The best state is the one with the lowest held-out loss."},
    {"save_total_limit", "keep", NULL, NULL},
    {"resume_from_checkpoint", "resume", "",
     "It stands alone: the run in --output goes on from its newest good checkpoint."},
    {"resume_adapter_file", "adapter", NULL, NULL},
    {"gradient_checkpointing", "recompute", yes_block, NULL},
    {"use_gradient_checkpointing", "recompute", yes_block, NULL},
    {"grad_checkpoint", "recompute", yes_block, NULL},
    {"bf16", "compute", yes_bf16, NULL},
    {"fp16", "compute", yes_f16, NULL},
    {"load_in_4bit", "base-type", "true=nf4,1=nf4,false=as-stored,0=as-stored", NULL},
    {"load_in_8bit", "base-type", "true=int8,1=int8,false=as-stored,0=as-stored", NULL},
    {"optim", "optimizer", optimizer_values, NULL},
    {"logging_steps", NULL, NULL, "Every step is written to events.jsonl: leave it out."},
    {"steps_per_report", NULL, NULL, "Every step is written to events.jsonl: leave it out."},
    {"per_device_eval_batch_size", NULL, NULL, "Held-out rows are packed as the others are: leave it out."},
    {"dtype", "compute", "bfloat16=bf16,bf16=bf16,float16=f16,fp16=f16,f16=f16,float32=f32,fp32=f32,f32=f32",
     NULL},
    {"torch_dtype", "compute", "bfloat16=bf16,float16=f16,float32=f32,auto=auto", NULL},
    {"random_seed", "seed", NULL, NULL},
    {"data_seed", "seed", NULL, NULL},
    {"num_threads", "threads", NULL, NULL},
    {"n_threads", "threads", NULL, NULL},
    {"packing", NULL, NULL, "Examples are always packed, with attention kept inside each: leave it out."},
    {"sample_packing", NULL, NULL,
     "Examples are always packed, with attention kept inside each: leave it out."},
    {"max_new_tokens", "max-tokens", NULL, NULL},
    {"n_predict", "max-tokens", NULL, NULL},
    {"temp", "temperature", NULL, NULL},
    {"repeat_penalty", "repetition-penalty", NULL, NULL},
    {"prompt_file", "batch", NULL, NULL},
};

static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++)
        if (*a != *b && !(*a == '-' && *b == '_')) return false;
    return *a == *b;
}

static const struct foreign *find_foreign(const char *name) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same_name(name, names[i].name)) return &names[i];
    return NULL;
}

/* Their value in our words, into out; empty when there is none. */
static void convert(const struct foreign *row, const char *value, char out[64]) {
    out[0] = '\0';
    if (!value && row->values && strstr(row->values, "true=")) value = "true"; /* a flag that stands alone */
    if (!value || strlen(value) > 40) return;
    if (!row->values) {
        snprintf(out, 64, "%s", value);
        return;
    }
    size_t length = strlen(value);
    for (const char *at = row->values; *at;) {
        size_t size = strcspn(at, ",");
        if (size > length && at[length] == '=' && strncmp(at, value, length) == 0)
            snprintf(out, 64, "%.*s", (int)(size - length - 1), at + length + 1);
        at += size + (at[size] == ',');
    }
}

static const struct setting *taken_by(struct settings *const *sets, size_t set_count, unsigned uses,
                                      const char *name) {
    for (size_t i = 0; i < set_count; i++) {
        size_t at = settings_find(sets[i], name, uses);
        if (at != SIZE_MAX) return &sets[i]->rows[at];
    }
    return NULL;
}

/* The row whose name is nearest, if it is near enough to be a slip of the hand. */
static const struct setting *nearest(struct settings *const *sets, size_t set_count, unsigned uses,
                                     const char *name) {
    char flat[64];
    snprintf(flat, sizeof flat, "%s", name);
    for (char *at = flat; *at; at++)
        if (*at == '_' || *at == '.') *at = '-';
    const struct setting *best = NULL;
    int least = (int)strlen(flat) / 3 + 1;
    for (size_t i = 0; i < set_count; i++) {
        for (size_t j = 0; j < sets[i]->count; j++) {
            const struct setting *row = &sets[i]->rows[j];
            int distance = row->uses & uses ? text_distance(flat, row->name) : least + 1;
            if (distance > least || (best && distance == least)) continue;
            best = row;
            least = distance;
        }
    }
    return best;
}

/* The only row whose name ends in a dash and this one: "init" of "lora-init". */
static const struct setting *longer(struct settings *const *sets, size_t set_count, unsigned uses,
                                    const char *name) {
    const struct setting *found = NULL;
    size_t size = strlen(name);
    for (size_t i = 0; i < set_count; i++)
        for (size_t j = 0; j < sets[i]->count; j++) {
            const struct setting *row = &sets[i]->rows[j];
            size_t length = strlen(row->name);
            if (!(row->uses & uses) || length < size + 2 || row->name[length - size - 1] != '-' ||
                !same_name(row->name + length - size, name))
                continue;
            if (found) return NULL;
            found = row;
        }
    return found;
}

static void ours_name(const char *prefix, const char *name, char out[64]) {
    snprintf(out, 64, "%s%s", prefix, name);
    if (*prefix) return;
    for (char *at = out; *at; at++)
        if (*at == '-') *at = '_';
}

bool settings_refuse_name(struct settings *const *sets, size_t set_count, unsigned uses, const char *name,
                          const char *value, const char *prefix, struct error *err) {
    char ours[64], converted[64];
    struct buf shown = {0};
    text_escape(&shown, name, strnlen(name, 60), false);
    error_set(err, ERROR_USAGE, "settings", "unknown setting %s%s", prefix, shown.data ? shown.data : "");
    buf_release(&shown);
    const struct foreign *row = find_foreign(name);
    const struct setting *taken = row && row->ours ? taken_by(sets, set_count, uses, row->ours) : NULL;
    if (taken) {
        ours_name(prefix, row->ours, ours);
        convert(row, value, converted);
        error_why(err, "another tool's name");
        if (value && row->values && *row->values && !*converted && taken->choices)
            return error_fix(err, "Here it is %s; its values are %s.", ours, taken->choices);
        return error_fix(err, "Here it is %s%s%s.%s%s", ours, *converted ? (*prefix ? " " : ": ") : "",
                         converted, row->note ? " " : "", row->note ? row->note : "");
    }
    if (row && !row->ours) {
        error_why(err, "another tool's name");
        return error_fix(err, "%s", row->note);
    }
    const struct setting *near = nearest(sets, set_count, uses, name);
    if (!near) near = longer(sets, set_count, uses, name);
    if (near) {
        ours_name(prefix, near->name, ours);
        return error_fix(err, "Did you mean %s?", ours);
    }
    return error_fix(err, "`hone settings` lists them all.");
}

bool settings_assign(struct settings *const *sets, size_t set_count, unsigned uses, const char *name,
                     const char *value, const char *prefix, struct error *err) {
    for (size_t i = 0; i < set_count; i++) {
        size_t row = settings_find(sets[i], name, uses);
        if (row != SIZE_MAX) return settings_set(sets[i], row, value, err);
    }
    return settings_refuse_name(sets, set_count, uses, name, value, prefix, err);
}
