/* Settings of the commands beside the recipe's: what to generate, what to show. */
#ifndef HONE_JOB_OPTIONS_H
#define HONE_JOB_OPTIONS_H

#include "base/settings.h"
#include "train/recipe.h"

enum { option_row_limit = 40 };

struct options {
    char *path, *name;       /* pull */
    bool list;               /* pull: what the store holds */
    bool measure;            /* doctor */
    struct text_list shapes; /* doctor, bench: "512x576x1536" = m, n, k of a product */
    char *prompt;            /* generate */
    char *messages;          /* generate: a file */
    char *batch;             /* generate: a file of requests … */
    char *output;            /* … and one for the answers; convert: what is written */
    int64_t max_tokens;
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k;
    int64_t prompt_tokens; /* bench */
    int64_t context;       /* tokens of a sequence; 0: auto */
    int64_t rows;          /* data preview */
    int to;                /* convert: 0: auto, else enum container + 1 */
    char *type, *config;   /* convert: a type's name; a shape for … */
    bool random_weights;   /* … drawn numbers */
    uint64_t shard_size;   /* convert: largest file of weights in a directory; 0: auto */
    char *command;         /* settings: of one command */
    bool markdown;         /* settings */
    char *run, *report;    /* report: a directory, and the file to write */
    bool compare, profile; /* plan */
    struct text_list runs; /* plan: directories of runs */
    bool json;             /* for the view: what is printed */
    struct setting_state states[option_row_limit];
};

extern const struct setting option_rows[];
extern const size_t option_row_count;
struct settings options_settings(struct options *options);

#endif
