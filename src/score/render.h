/* The template that a run speaks with: --chat-template, else the adapter's own, else the model's. */
#ifndef HONE_SCORE_RENDER_H
#define HONE_SCORE_RENDER_H

#include "model/model.h"
#include "text/example.h"

struct render_options {
    const char *chat_template; /* a file or a built-in name; NULL: not given */
    const char *adapter;       /* directory whose chat_template.jinja is taken; NULL: none */
    char *const *arguments;    /* "K=V" … */
    size_t argument_count;
    const char *system;
    double now;
    enum train_on train_on;
    enum overlength overlength;
    size_t max_length;
};

struct render {
    struct renderer renderer; /* for text/example.h */
    struct template *template;
    json_t *arguments;
    char *source; /* the template's text, or NULL; written beside the adapter */
    size_t source_size;
};

bool render_open(struct render *out, const struct model *model, const struct render_options *options,
                 struct error *err);
void render_close(struct render *render);

/* Whether a setting asks for more tokens than the model was made for, with a sentence for the user: that is
 * no error, since positions go on behind the context. */
enum { context_sentence = 120 };
bool render_beyond_context(const char *setting, int64_t tokens, const struct model *model,
                           char out[context_sentence]);

#endif
